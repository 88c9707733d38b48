"""The forms in which Python values that JSON does not have are stored; `docs/reference/values.md` has the table.

A store's encoder is asked first, and its answer is converted in turn. pydantic, msgspec and attrs are recognized by
what their classes have, so none of them is imported.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar, Final, Protocol, TypeAlias
from uuid import UUID

import orjson

from pgdoc.model.raw_json import RawJson, value_of
from pgdoc.model.short_repr import short_repr

__all__ = [
    "FORMS",
    "DocumentData",
    "Encoder",
    "NoForm",
    "ObjectData",
    "datetime_json",
    "datetime_text",
    "is_json_type",
    "to_json_type",
]

Encoder: TypeAlias = Callable[[Any], Any]
"""Returns what to store for a value that is not one of JSON's types, or the value itself for its usual form."""


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


class _Attrs(Protocol):
    __attrs_attrs__: ClassVar[Any]


class _Struct(Protocol):
    __struct_fields__: ClassVar[tuple[str, ...]]


class _PydanticModel(Protocol):
    def model_dump(self) -> dict[str, Any]: ...


DocumentData: TypeAlias = "Mapping[str, Any] | RawJson | _Dataclass | _PydanticModel | _Struct | _Attrs"
"""The data of a document: a JSON object, its text, or an instance of a class with fields."""

ObjectData: TypeAlias = "Mapping[str, Any] | RawJson"
"""The data of a document of a typed collection that is not an instance of its model."""

_JSON_TYPES: Final = frozenset((str, int, float, bool, type(None), dict, list, tuple))
_MOST_ANSWERS: Final = 8


class NoForm(Exception):  # noqa: N818 (a finding; the caller raises the error, which names the path)
    """A value that can't be stored; the text says why, and what to do."""


def to_json_type(value: Any, encoder: Encoder | None) -> Any:
    """Return what is stored for a value: None, or a str, number, Mapping, list or tuple. Its items are not converted.

    Raises:
        NoForm: the value has no form, or the encoder returned none.
    """
    if encoder is not None:
        value = _ask(encoder, value)
    form = _form_of(value.__class__)
    if form is None:
        return value
    try:
        stored = form(value)
    except NoForm:
        raise
    except Exception as exc:
        raise NoForm(f"{short_repr(value)} can't be converted: {_described(exc)}") from exc
    return stored if stored is value or is_json_type(stored) else to_json_type(stored, encoder)


def is_json_type(value: Any) -> bool:
    """Return whether JSON has the value itself, though perhaps not its items."""
    return type(value) in _JSON_TYPES and (type(value) is not float or math.isfinite(value))


def _ask(encoder: Encoder, value: Any) -> Any:
    """Return the encoder's last answer, which is a JSON type, or a value that it leaves as it is."""
    for _ in range(_MOST_ANSWERS):
        try:
            answer = encoder(value)
        except Exception as exc:
            raise NoForm(
                f"the store's encoder raised {_described(exc)} for {short_repr(value)}: let it return the values as "
                "they are that it does not convert"
            ) from exc
        if answer is value:
            return value
        if answer is None and _has_form(value):
            raise NoForm(
                f"the store's encoder returned None for {short_repr(value)}: let it return the values as they are that "
                "it does not convert"
            )
        if is_json_type(answer):
            return answer
        value = answer
    raise NoForm(
        f"the store's encoder returned another value {_MOST_ANSWERS} times in turn, the last one {short_repr(value)}: "
        "let it return a str, number, bool, None, list or dict"
    )


def _has_form(value: Any) -> bool:
    if isinstance(value, float | Decimal):
        return Decimal(value).is_finite()
    is_like_json = isinstance(value, str | int | Mapping | list | tuple)
    return (is_like_json or _form_of(value.__class__) is not None) and not _is_nan(value)


def _is_nan(value: Any) -> bool:
    """Return whether the value differs from itself, such as pandas' NaT, a datetime."""
    try:
        return bool(value != value)  # noqa: PLR0124
    except Exception:  # noqa: BLE001 (the comparison is a foreign class's)
        return False


def _described(exc: Exception) -> str:
    return f"{type(exc).__name__} ({exc})"


def datetime_text(moment: datetime) -> str:
    """Return the time in UTC, as `2026-11-29T10:45:28.000000Z`: texts of this form sort as their times do.

    Raises:
        NoForm: the time has no time zone, or is out of range in UTC.
    """
    return datetime.isoformat(_in_utc(moment), "T", "microseconds")[:26] + "Z"


def datetime_json(moment: datetime) -> bytes:
    """Return the same as JSON text, in a tenth of the time. No subclass of datetime is accepted."""
    moment = _in_utc(moment)
    text = orjson.dumps(moment, None, orjson.OPT_UTC_Z)
    return text if moment.microsecond else text[:-2] + b'.000000Z"'


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is UTC:
        return moment
    if datetime.utcoffset(moment) is None:
        raise NoForm(
            f"{short_repr(moment)} has no time zone: make it with datetime.now(UTC), or add the one it is meant in "
            "with .replace(tzinfo=...)"
        )
    return datetime.astimezone(moment, UTC)


def _time_text(value: time) -> str:
    if value.tzinfo is not None:
        raise NoForm(
            f"{short_repr(value)} is a time of day with a time zone, which depends on the day: use a datetime, or a "
            "time without a zone"
        )
    return time.isoformat(value, "microseconds")


def _seconds(value: timedelta) -> int | Decimal:
    """Return the exact number of seconds: numbers sort, and `$inc` adds to them."""
    microseconds = (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
    seconds, rest = divmod(abs(microseconds), 1_000_000)
    sign = "-" if microseconds < 0 else ""
    return Decimal(f"{sign}{seconds}.{rest:06}".rstrip("0")) if rest else int(f"{sign}{seconds}")


def _unchanged(value: Decimal) -> Decimal:
    return value


FORMS: Final[dict[type, Callable[[Any], Any]]] = {
    datetime: datetime_text,
    date: date.isoformat,
    time: _time_text,
    timedelta: _seconds,
    UUID: str,
    Decimal: _unchanged,
    RawJson: value_of,
}
"""The form of a class, and of its subclasses."""


@lru_cache(256)
def _form_of(kind: type) -> Callable[[Any], Any] | None:
    """Return the function that converts values of a class; `None` for JSON's types and for unknown ones."""
    found = FORMS.get(kind)
    if found is not None:
        return found
    if issubclass(kind, Enum):
        return _value_of_enum
    if issubclass(
        kind, str | int | float | Mapping | list | tuple | type
    ):  # msgspec marks the class of its classes, too
        return None
    for base in kind.__mro__:
        if base in FORMS:
            return FORMS[base]
    return next((form_of(kind) for mark, form_of in _CLASSES_WITH_FIELDS.items() if hasattr(kind, mark)), None)


def _value_of_enum(value: Enum) -> Any:
    return value.value


def _form_of_model(_kind: type) -> Callable[[Any], Any]:
    return lambda value: value.model_dump()


def _form_of_dataclass(kind: Any) -> Callable[[Any], Any]:
    return _fields_named([field.name for field in dataclasses.fields(kind)])


def _form_of_attrs(kind: Any) -> Callable[[Any], Any]:
    return _fields_named([field.name for field in kind.__attrs_attrs__])


def _fields_named(names: list[str]) -> Callable[[Any], Any]:
    if len(names) < 2:  # attrgetter returns no tuple then
        return lambda value: {name: getattr(value, name) for name in names}
    get = attrgetter(*names)
    return lambda value: dict(zip(names, get(value), strict=True))


def _form_of_struct(_kind: type) -> Callable[[Any], Any]:
    return _fields_of_struct


def _fields_of_struct(value: Any) -> dict[str, Any] | list[Any]:
    """Return the fields under the names that msgspec encodes, with the tag, and without what it leaves out."""
    kind, config = type(value), value.__struct_config__
    names, encoded = kind.__struct_fields__, kind.__struct_encode_fields__
    values = [getattr(value, name) for name in names]
    tag = [] if config.tag is None else [config.tag]
    if config.array_like:
        return tag + values
    fields = dict(zip((config.tag_field,), tag, strict=False))
    defaults = (_NO_DEFAULT,) * (len(names) - len(kind.__struct_defaults__)) + kind.__struct_defaults__
    for name, item, default in zip(encoded, values, defaults, strict=True):
        is_left_out = config.omit_defaults and _is_default(item, default)
        if not is_left_out and type(item).__name__ != "UnsetType":
            fields[name] = item
    return fields


_NO_DEFAULT: Final = object()


def _is_default(item: Any, default: Any) -> bool:
    factory = getattr(default, "factory", None)
    return item is default or (factory in (list, dict, set) and type(item) is factory and not item)


_CLASSES_WITH_FIELDS: Final[dict[str, Callable[[Any], Callable[[Any], Any]]]] = {
    "model_dump": _form_of_model,
    "__struct_fields__": _form_of_struct,
    "__dataclass_fields__": _form_of_dataclass,
    "__attrs_attrs__": _form_of_attrs,
}
"""How to make the form of a class, by an attribute that it has."""
