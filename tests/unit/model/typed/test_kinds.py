from __future__ import annotations

import dataclasses
from collections import namedtuple
from typing import Annotated, Any, Generic, TypedDict, TypeVar, Union

import attrs
import msgspec
import pydantic
import pytest
import typing_extensions

from pgdoc.errors import InvalidInput
from pgdoc.model.typed.kinds import kind_of, name_of
from tests.unit.model.typed.models import DictOrder, Order, PydanticDataclassOrder, PydanticOrder, StructOrder

T = TypeVar("T")


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]


class Batch(msgspec.Struct, Generic[T]):
    items: list[T]


@dataclasses.dataclass
class OfPydantic(PydanticDataclassOrder):
    """A plain dataclass, whose fields pydantic does not know."""

    more: int = 0


class OfExtensions(typing_extensions.TypedDict):
    name: str


@pytest.mark.parametrize(
    ("model", "library", "classes"),
    [
        (PydanticOrder, "pydantic", (PydanticOrder,)),
        (PydanticDataclassOrder, "pydantic", (PydanticDataclassOrder,)),
        (Page[PydanticOrder], "pydantic", (Page[PydanticOrder],)),
        (StructOrder, "msgspec", (StructOrder,)),
        (Batch[int], "msgspec", (Batch,)),
        (Order, "msgspec", (Order,)),
        (OfPydantic, "msgspec", (OfPydantic,)),
        (DictOrder, "msgspec", ()),
        (OfExtensions, "msgspec", ()),
        (StructOrder | Order, "msgspec", (StructOrder, Order)),
        (Union[PydanticOrder, Page[int]], "pydantic", (PydanticOrder, Page[int])),  # noqa: UP007
        (Annotated[PydanticOrder | Page[int], "a note"], "pydantic", (PydanticOrder, Page[int])),
        (typing_extensions.TypeAliasType("Alias", StructOrder | DictOrder), "msgspec", (StructOrder,)),
    ],
    ids=lambda value: None if isinstance(value, tuple) else name_of(value) if not isinstance(value, str) else value,
)
def test_the_model_decides_which_library_reads_it(model: Any, library: str, classes: tuple[type, ...]) -> None:
    assert kind_of(model) == (library, classes)


@attrs.define
class OfAttrs:
    name: str


class Plain:
    name: str


Named = namedtuple("Named", "name")  # noqa: PYI024


@pytest.mark.parametrize(
    "model", [dict, dict[str, Any], int, list[Order], Plain, Named, OfAttrs, Any, "Order", Order | None, 5]
)
def test_anything_else_is_refused(model: Any) -> None:
    with pytest.raises(InvalidInput, match=r"model must be a pydantic model or dataclass, a msgspec Struct.*got .+"):
        kind_of(model)


def test_an_instance_is_no_model() -> None:
    with pytest.raises(InvalidInput, match="model must be"):
        kind_of(Page[int](items=[]))


def test_a_union_of_models_of_both_libraries_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"StructOrder \| PydanticOrder mixes pydantic models with others"):
        kind_of(StructOrder | PydanticOrder)


def test_the_name_of_a_union_names_its_members() -> None:
    assert name_of(StructOrder | Order) == "StructOrder | Order"
    assert name_of(Annotated[StructOrder | Order, 1]) == "StructOrder | Order"


def test_the_same_class_is_read_by_the_same_library_whatever_its_fields_are() -> None:
    class Mixed(TypedDict):
        order: PydanticOrder

    assert kind_of(Mixed).library == "msgspec"
