"""Reads msgspec Structs, dataclasses and TypedDicts, by msgspec."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import inspect

from pgdoc.errors import InvalidInput
from pgdoc.model.short_repr import short_repr
from pgdoc.model.typed.kinds import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["msgspec_decoder", "msgspec_fault"]


def msgspec_decoder(model: Any) -> Callable[[bytes | str], Any]:
    """Return the function that reads JSON text.

    A duration is stored as a number of seconds, which msgspec takes for one only where it is not strict.
    """
    parts = list(_parts_of(inspect.type_info(model), set()))
    for part in parts:
        if isinstance(part, inspect.CustomType):
            raise InvalidInput(
                f"msgspec can't read {short_repr(part.cls)}, which is a part of the model: use types that msgspec "
                "supports, or a pydantic model"
            )
    return msgspec.json.Decoder(model, strict=not any(isinstance(part, inspect.TimeDeltaType) for part in parts)).decode


def _parts_of(part: Any, seen: set[int]) -> Iterator[Any]:
    """Yield a type and the types in it, each once: they may refer to one another."""
    if isinstance(part, tuple):
        for each in part:
            yield from _parts_of(each, seen)
    elif isinstance(part, inspect.Field):
        yield from _parts_of(part.type, seen)
    elif isinstance(part, inspect.Type) and id(part) not in seen:
        seen.add(id(part))
        yield part
        for name in part.__struct_fields__:
            yield from _parts_of(getattr(part, name), seen)


_PLACE: Final = re.compile(r"(?P<reason>.*?)(?: - at `(?:key in )?\$(?P<path>.*)`)?", re.DOTALL)
_FIELD: Final = re.compile(r"Object (?:missing required|contains unknown) field `(?P<name>.*)`")


def msgspec_fault(exc: Exception, _text: bytes | str) -> Fault | None:
    """Return what an error of msgspec says; `None` for another error."""
    if not isinstance(exc, msgspec.MsgspecError):
        return None
    found = _PLACE.fullmatch(str(exc))
    if found is None:
        return Fault("", str(exc))
    path = re.sub(r"\[(\d+)\]", r".\1", found["path"] or "").replace("[...]", ".*").lstrip(".")
    field = _FIELD.fullmatch(found["reason"])
    return Fault(".".join(filter(None, (path, field and field["name"]))), found["reason"])
