"""Reads pydantic models and dataclasses, by pydantic."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pydantic

from pgdoc.errors import MissingExtra
from pgdoc.model.json_codec import decode, decode_decimals, may_be_rounded
from pgdoc.model.json_numbers import TO_DECIMALS, TO_SAME_DIGITS
from pgdoc.model.typed.kinds import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["pydantic_decoder", "pydantic_fault"]

_OLDEST: Final = (2, 11)
"""The first version that takes fields by their names where they have aliases."""

_BY_EITHER: Final = {"by_alias": True, "by_name": True}
"""`model_dump` writes the names of fields, unless the model's configuration says otherwise."""


def pydantic_decoder(model: Any) -> Callable[[bytes | str], Any]:
    """Return the function that reads JSON text.

    pydantic's own reader of JSON makes a Decimal of a float, which has lost digits and trailing zeros. So it gets
    Decimals where the model has any.
    """
    if tuple(map(int, pydantic.VERSION.split(".")[:2])) < _OLDEST:
        raise MissingExtra(f"typed collections need pydantic 2.11 or newer, found {pydantic.VERSION}: upgrade pydantic")
    adapter = pydantic.TypeAdapter(model)
    if not adapter.pydantic_complete:
        adapter.rebuild(raise_errors=True)
    traits = set(_traits_of(adapter.core_schema))
    if "decimal" not in traits:
        return partial(_decode, adapter.validator)
    # From Python values, a strict model takes no text for a time or a UUID. So only where digits would be lost.
    is_needed = may_be_rounded if "strict" in traits else None
    # Where the model says nothing, a Decimal would stay one, and it is no member of an enumeration of floats.
    read_number = TO_SAME_DIGITS if "float" in traits else TO_DECIMALS
    return partial(_decode_exactly, adapter.validator, is_needed, partial(decode_decimals, decoder=read_number))


def _traits_of(schema: Any) -> Iterator[str]:
    """Yield what matters of a schema.

    That is `decimal` if it has any, `strict` if a part of it is, and `float` if a value becomes one only if it is read
    as one.
    """
    if isinstance(schema, Enum) and isinstance(schema.value, float):
        yield "float"
    if isinstance(schema, list | tuple):
        for each in schema:
            yield from _traits_of(each)
    elif isinstance(schema, dict):
        if schema.get("type") == "decimal":
            yield "decimal"
        if schema.get("strict"):
            yield "strict"
        if schema.get("type") == "any" or "allow" in (
            schema.get("extra_behavior"),
            schema.get("extra_fields_behavior"),
        ):
            yield "float"
        for each in schema.values():
            yield from _traits_of(each)


def _decode(validator: Any, text: bytes | str) -> Any:
    try:
        return validator.validate_json(text, **_BY_EITHER)
    except pydantic.ValidationError as exc:
        first = _first_error(exc)
        if first["type"] != "json_invalid" or first["loc"]:  # of a field of the type Json
            raise
    return validator.validate_python(decode(text), **_BY_EITHER)  # deeper, or with more digits, than it reads


def _decode_exactly(
    validator: Any, is_needed: Callable[[bytes], bool] | None, read: Callable[[bytes], Any], text: bytes | str
) -> Any:
    raw = text.encode() if isinstance(text, str) else text
    if is_needed is not None and not is_needed(raw):
        return _decode(validator, raw)
    return validator.validate_python(read(raw), strict=False if is_needed else None, **_BY_EITHER)


def pydantic_fault(exc: Exception, text: bytes | str) -> Fault | None:
    """Return what an error of pydantic says of JSON text; `None` for another error."""
    if not isinstance(exc, pydantic.ValidationError):
        return None
    first = _first_error(exc)
    path = _path_of(decode(text), first["loc"], is_missing=first["type"] == "missing")
    return Fault(path, first["msg"], exc.error_count() - 1)


def _first_error(exc: pydantic.ValidationError) -> Any:
    return exc.errors(include_url=False, include_context=False, include_input=False)[0]


def _path_of(value: Any, location: tuple[int | str, ...], *, is_missing: bool) -> str:
    """Return the path of a value in the data: a location also says which member of a union pydantic tried."""
    path, name = [], location[-1] if is_missing else None
    for step in location[:-1] if is_missing else location:
        if step in value if isinstance(value, dict) else isinstance(value, list) and isinstance(step, int):
            value = value[step]
            path.append(str(step))
    return ".".join(path if name is None else [*path, str(name)])
