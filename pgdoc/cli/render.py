"""Events as text for a terminal: the kind, the document, each changed value before and after, and the writer.

Documents and metadata are untrusted, so characters that are not printable, such as those that move the cursor, are
escaped.
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

__all__ = ["printable", "render_backlog", "render_bytes", "render_delay", "render_event", "shorten"]

_KIND_STYLES: Final = {
    "insert": "green",
    "update": "yellow",
    "replace": "magenta",
    "delete": "red",
    "drop": "red",
    "invalidate": "red",
}
_MOST_COUNTED: Final = 10_000
_MOST_PATHS: Final = 6
_DOCUMENT_WIDTH: Final = 72
_VALUE_WIDTH: Final = 44
_INDENT: Final = 9  # the kind and a space


def render_event(
    event: ChangeEvent, received: datetime | None = None, *, shows_clock: bool = False, shows_token: bool = False
) -> Text:
    """Return the event, whose document may be unreadable, as one line, or several if several paths changed.

    `received` adds the delay since the commit, `shows_clock` its local time, `shows_token` a line with the resume
    token.
    """
    kind = str(event.event_type)
    clock = f"{_clock(event.timestamp, received)}  " if shows_clock else ""
    line = Text.assemble((clock, "dim"), (f"{kind:<8}", _KIND_STYLES.get(kind, "cyan")), " ", (_target(event), "bold"))
    rows = _content(event)
    if len(rows) == 1:
        line.append("  ").append_text(rows.pop())
    line.append_text(_writer(event))
    if received is not None:
        line.append(f"  +{render_delay(received - event.timestamp)}", style="dim")
    if shows_token:
        rows.append(Text(f"token {event.resume_token}", style="dim"))
    for row in rows:
        line.append("\n" + " " * (len(clock) + _INDENT)).append_text(row)
    return line


def _clock(moment: datetime, received: datetime | None) -> str:
    """Return the local time, with the date unless that is the day of `received`."""
    local = moment.astimezone()
    today = received.astimezone().date() if received is not None else None
    return local.isoformat(sep=" ", timespec="milliseconds")[0 if local.date() != today else 11 : 23]


def render_delay(delay: timedelta) -> str:
    """Return a time span in the largest unit that it fills."""
    seconds = delay.total_seconds()
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds * 1000:.1f} ms"


def render_backlog(number: int) -> str:
    """Return a number of a `Backlog`, which is not exact above 10,000."""
    return f"more than {_MOST_COUNTED:,}" if number > _MOST_COUNTED else f"{number:,}"


def render_bytes(size: int | None) -> str:
    """Return a size in the largest unit that it fills, or `?` if it is unknown."""
    if size is None:
        return "?"
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def shorten(value: Any, width: int = _VALUE_WIDTH) -> str:
    """Return a value as printable JSON, cut off after `width` characters."""
    try:
        return _cut(json_codec.encode_value(value, "").decode(), width)
    except InvalidDocument:  # SQL can nest values deeper than pgdoc encodes
        return "…"


def _cut(text: str, width: int) -> str:
    return printable(text if len(text) <= width else f"{text[: width - 1]}…")


def printable(text: str) -> str:
    """Escape what a terminal would act on."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _target(event: ChangeEvent) -> str:
    name = printable(event.topic or event.collection)
    if event.document_id is None:
        return name
    return f"{name}/{_cut(event.document_id, _VALUE_WIDTH)}"


def _content(event: ChangeEvent) -> list[Text]:
    if event.renamed_to is not None:
        return [Text.assemble("→ ", (printable(event.renamed_to), "bold"))]
    if event.event_type is EventType.SCHEMA:
        return [Text(printable(", ".join(_column_changes(event.columns or {})) or "the same columns"))]
    if event.event_type is EventType.INVALIDATE:
        return [Text("no watched collection is left: the stream ends", style="dim")]
    try:
        before, after = event.full_document_before_change, event.full_document
        if before is not None and after is not None:
            return _changes(event.update_description or diff(before.data, after.data), before.data)
        values = [document.data for document in (before, after) if document is not None]
        values += [event.payload] if event.event_type is EventType.MESSAGE else []
        return [Text(shorten(value, _DOCUMENT_WIDTH)) for value in values]
    except UnreadableDocument as error:
        return [Text(printable(f"unreadable: {error}"), style="red")]


def _column_changes(columns: dict[str, Any]) -> Iterator[str]:
    """Yield what became of each column that changed."""
    before, after = columns.get("before", {}), columns.get("after", {})
    for name, type_name in after.items():
        if name not in before:
            yield f"{name} added {type_name}"
        elif before[name] != type_name:
            yield f"{name} {before[name]} → {type_name}"
    for name in before.keys() - after.keys():
        yield f"{name} removed"


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
    claims = [
        f"by {_name(value)}" if key == "user" else f"{key}={_name(value)}" for key, value in event.metadata.items()
    ]
    return Text("  " + _cut("  ".join(claims), _DOCUMENT_WIDTH), style="cyan") if claims else Text()


def _name(value: Any) -> str:
    return value if isinstance(value, str) else shorten(value)
