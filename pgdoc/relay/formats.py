"""The formats in which a relay writes events."""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 (a dataclass's fields are looked up)
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from pgdoc.errors import InvalidInput
from pgdoc.model.short_repr import short_repr
from pgdoc.relay import cloudevents, debezium
from pgdoc.relay.debezium import UNNAMED

if TYPE_CHECKING:
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.relay.debezium import SourceNames

__all__ = ["FORMATS", "Format", "format_named"]

JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Format:
    """How the body of a message has an event. The same event has the same bytes, in every process.

    Attributes:
        name: what options call it.
        content_type: the media type of a body.
        encode: returns the body of an event. Raises `UnreadableDocument` as `event.to_json()`.
        decode: returns `event.to_json()` from a body, byte for byte; `None` if this format does not have it, or the
            text is not one that `encode` returned.
    """

    name: str
    content_type: str
    encode: Callable[[ChangeEvent], bytes]
    decode: Callable[[bytes], bytes | None]


def format_named(name: str, names: SourceNames = UNNAMED) -> Format:
    """Return the format of this name. `names` is what only Debezium's envelope has.

    Raises:
        InvalidInput: there is none of this name.
    """
    if name == "debezium":
        return Format(name, JSON, partial(debezium.envelope_of, names=names), lambda _text: None)
    if not isinstance(name, str) or name not in FORMATS:
        raise InvalidInput(f"format must be one of {', '.join(FORMATS)}, got {short_repr(name)}")
    return FORMATS[name]


FORMATS: Final = {
    "pgdoc": Format("pgdoc", JSON, lambda event: event.to_json(), lambda text: text),
    "cloudevents": Format(
        "cloudevents", cloudevents.CONTENT_TYPE, cloudevents.cloudevent_of, cloudevents.data_of_cloudevent
    ),
    "debezium": format_named("debezium"),
}
"""By name. Debezium's envelope names no database here: see `format_named`."""
