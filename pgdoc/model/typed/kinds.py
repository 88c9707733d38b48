"""Which library reads a model. The model alone decides, not what else is installed."""

from __future__ import annotations

import dataclasses
from types import UnionType
from typing import Annotated, Any, Final, NamedTuple, Union, get_args, get_origin

from pgdoc.errors import InvalidInput
from pgdoc.model.short_repr import short_repr

__all__ = ["MSGSPEC", "PYDANTIC", "Fault", "Kind", "kind_of", "members_of", "name_of"]

PYDANTIC: Final = "pydantic"
MSGSPEC: Final = "msgspec"


class Kind(NamedTuple):
    """What a model is.

    Attributes:
        library: the library that reads it.
        classes: their instances are stored as they are; empty for a `TypedDict`, whose instances are dicts.
    """

    library: str
    classes: tuple[type, ...]


class Fault(NamedTuple):
    """What a library found.

    Attributes:
        path: the dotted path of the value; empty for the whole data.
        reason: why the model refuses the value, in the words of the library.
        others: how many more faults there are.
    """

    path: str
    reason: str
    others: int = 0


def kind_of(model: Any) -> Kind:
    """Return what a model is.

    Raises:
        InvalidInput: it is not a model.
    """
    members = members_of(model)
    libraries = {_library_of(member, model) for member in members}
    if len(libraries) > 1:
        raise InvalidInput(
            f"model {name_of(model)} mixes pydantic models with others, and no library reads both: use pydantic models "
            "or dataclasses for all of them, or none"
        )
    return Kind(libraries.pop(), tuple(member for member in members if not _is_typed_dict(member)))


def name_of(model: Any) -> str:
    """Return the name of a model for messages."""
    if isinstance(model, type):
        return model.__name__
    if get_origin(model) in (Union, UnionType):
        return " | ".join(map(name_of, get_args(model)))
    return name_of(get_args(model)[0]) if get_origin(model) is Annotated else short_repr(model)


def members_of(model: Any) -> list[Any]:
    """Return the classes that a model consists of: one, or the members of a union."""
    if not isinstance(model, type):
        model = getattr(model, "__value__", model)  # of `type Event = Order | Refund`
    origin = get_origin(model)
    if origin is Annotated:
        return members_of(get_args(model)[0])
    if origin in (Union, UnionType):
        return [member for each in get_args(model) for member in members_of(each)]
    return [model if origin is None else origin]  # the class of `Page[Order]`


def _library_of(member: Any, model: Any) -> str:
    if isinstance(member, type):
        if hasattr(member, "model_validate_json") and hasattr(member, "__pydantic_decorators__"):
            return PYDANTIC
        if "__is_pydantic_dataclass__" in member.__dict__:  # a plain dataclass may inherit from one
            return PYDANTIC
        if hasattr(member, "__struct_config__") or dataclasses.is_dataclass(member) or _is_typed_dict(member):
            return MSGSPEC
    raise InvalidInput(
        f"model must be a pydantic model or dataclass, a msgspec Struct, a dataclass or a TypedDict, or a union of "
        f"these; got {'' if member is model else name_of(member) + ' in '}{name_of(model)}"
    )


def _is_typed_dict(member: type) -> bool:
    """Return whether a class is a TypedDict, also one of typing_extensions."""
    return issubclass(member, dict) and hasattr(member, "__required_keys__") and hasattr(member, "__total__")
