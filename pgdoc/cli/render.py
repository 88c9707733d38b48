"""An event as a person wants to read it: what kind, of which document, what changed from what to what, by whom.

Documents and metadata are anybody's text: whatever could move a terminal's cursor is shown escaped.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from pgdoc.changes.diff import UpdateDescription, diff
from pgdoc.changes.events import EventType
from pgdoc.errors import InvalidDocument, UnreadableDocument
from pgdoc.model import json_codec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta

    from pgdoc.changes.events import ChangeEvent

__all__ = ["render", "render_bytes", "render_delay", "shorten"]

_KIND_STYLES: Final = {
    "insert": "green",
    "update": "yellow",
    "replace": "magenta",
    "delete": "red",
    "drop": "red",
    "invalidate": "red",
}
_MOST_PATHS: Final = 6
_DOCUMENT_WIDTH: Final = 72
_VALUE_WIDTH: Final = 44
_INDENT: Final = "\n" + " " * 9


def render(event: ChangeEvent, received: datetime | None = None) -> Text:
    """Give the event in one line, or a few where several paths changed.

    Args:
        event: of any kind, also one whose document can't be read.
        received: when it arrived, aware; tells how long after the commit that was.
    """
    kind = str(event.event_type)
    line = Text.assemble((f"{kind:<8}", _KIND_STYLES.get(kind, "cyan")), " ", (_place(event), "bold"))
    what = _what(event)
    if len(what) == 1:
        line.append("  ").append_text(what[0])
    line.append_text(_writer(event))
    if received is not None:
        line.append(f"  +{render_delay(received - event.timestamp)}", style="dim")
    for row in what if len(what) > 1 else ():
        line.append(_INDENT).append_text(row)
    return line


def render_delay(delay: timedelta) -> str:
    """Give a time span in the unit in which it is a small number."""
    seconds = delay.total_seconds()
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds * 1000:.1f} ms"


def render_bytes(size: int | None) -> str:
    """Give a size in the unit in which it is a small number; `?` where it is not known."""
    if size is None:
        return "?"
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def shorten(value: Any, width: int = _VALUE_WIDTH) -> str:
    """Give a value as JSON of at most `width` characters, safe to print."""
    try:
        return _cut(json_codec.encode_value(value, "").decode(), width)
    except InvalidDocument:  # SQL writers can nest deeper than pgdoc writes
        return "…"


def _cut(text: str, width: int) -> str:
    return _printable(text if len(text) <= width else f"{text[: width - 1]}…")


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _place(event: ChangeEvent) -> str:
    if event.document_id is None:
        return _printable(event.collection)
    return f"{_printable(event.collection)}/{_cut(event.document_id, _VALUE_WIDTH)}"


def _what(event: ChangeEvent) -> list[Text]:
    if event.renamed_to is not None:
        return [Text.assemble("→ ", (_printable(event.renamed_to), "bold"))]
    if event.event_type is EventType.INVALIDATE:
        return [Text("none of the watched collections is left: the stream ends here", style="dim")]
    try:
        before, after = event.full_document_before_change, event.full_document
        if before is not None and after is not None:
            return _changes(event.update_description or diff(before.data, after.data), before.data)
        return [Text(shorten(document.data, _DOCUMENT_WIDTH)) for document in (before, after) if document is not None]
    except UnreadableDocument as error:
        return [Text(_printable(f"can't be read: {error}"), style="red")]


def _changes(description: UpdateDescription, before: dict[str, Any]) -> list[Text]:
    count = len(description.updated_fields) + len(description.removed_fields) + len(description.truncated_arrays)
    if count <= _MOST_PATHS:
        return list(_each_change(description, before)) or [Text("nothing changed", style="dim")]
    first = islice(_each_change(description, before), _MOST_PATHS - 1)
    return [*first, Text(f"… and {count - _MOST_PATHS + 1} more", style="dim")]


def _each_change(description: UpdateDescription, before: dict[str, Any]) -> Iterator[Text]:
    for path, value in description.updated_fields.items():
        old = _old_value(before, description.parts(path))
        was = ("added ", "dim") if old is None else Text.assemble((old, "red"), " → ")
        yield Text.assemble(f"{_field(path)} ", was, (shorten(value), "green"))
    for path in description.removed_fields:
        old = _old_value(before, description.parts(path)) or ""
        yield Text.assemble(f"{_field(path)} ", ("removed ", "dim"), (old, "red"))
    for path, size in description.truncated_arrays:
        yield Text(f"{_field(path)} cut to {size} element{'' if size == 1 else 's'}")


def _field(path: str) -> str:
    return _cut(path, _VALUE_WIDTH) or '""'


def _old_value(before: dict[str, Any], parts: list[str | int]) -> str | None:
    value: Any = before
    try:
        for part in parts:
            value = value[part]
    except (KeyError, IndexError):
        return None
    return shorten(value)


def _writer(event: ChangeEvent) -> Text:
    said = [f"by {_name(value)}" if key == "user" else f"{key}={_name(value)}" for key, value in event.metadata.items()]
    return Text("  " + _cut("  ".join(said), _DOCUMENT_WIDTH), style="cyan") if said else Text()


def _name(value: Any) -> str:
    return value if isinstance(value, str) else shorten(value)
