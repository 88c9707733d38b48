"""How a model's own rules on names, fields and values meet what is stored, as the page on typed documents says."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import msgspec
import pydantic
import pytest

from pgdoc.errors import InvalidDocument, InvalidModel, ModelViolation
from pgdoc.model.document_form import DocumentForm
from pgdoc.model.json_codec import decode
from pgdoc.model.value_codec import USUAL_VALUES

if TYPE_CHECKING:
    from collections.abc import Callable


def form_of(model: Any) -> DocumentForm[Any]:
    return DocumentForm("orders", 'collection "docs.orders"', USUAL_VALUES, model)


def read(model: Any, text: bytes) -> Any:
    return form_of(model).read("o-1", text, 1, None, None).data


class Aliased(pydantic.BaseModel):
    order_id: str = pydantic.Field(alias="orderId")


class ByAlias(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(serialize_by_alias=True)
    order_id: str = pydantic.Field(alias="orderId")


@pytest.mark.parametrize(("model", "stored"), [(Aliased, b'{"order_id":"a"}'), (ByAlias, b'{"orderId":"a"}')])
def test_fields_are_stored_as_model_dump_names_them(model: Any, stored: bytes) -> None:
    form = form_of(model)
    assert form.encoded(model(orderId="a")) == stored
    assert form.encoded({"orderId": "a"}) == form.encoded({"order_id": "a"}) == stored
    assert read(model, stored) == model(orderId="a")


class Excluding(pydantic.BaseModel):
    name: str
    secret: str = pydantic.Field(default="", exclude=True)


def test_excluded_fields_are_not_stored() -> None:
    text = form_of(Excluding).encoded(Excluding(name="a", secret="b"))  # noqa: S106
    assert (text, read(Excluding, text)) == (b'{"name":"a"}', Excluding(name="a"))


class Computing(pydantic.BaseModel):
    price: int

    @pydantic.computed_field
    def doubled(self) -> int:
        return self.price * 2


class Forbidding(Computing, extra="forbid"):
    pass


def test_computed_fields_are_stored() -> None:
    text = form_of(Computing).encoded(Computing(price=2))
    assert (text, read(Computing, text)) == (b'{"price":2,"doubled":4}', Computing(price=2))
    with pytest.raises(InvalidModel, match="at 'doubled': Extra inputs are not permitted"):
        read(Forbidding, text)


class Keeping(pydantic.BaseModel, extra="allow"):
    name: str


class Ignoring(msgspec.Struct):
    name: str


class IgnoringDict(TypedDict):
    name: str


def test_fields_that_the_model_does_not_know_are_ignored_unless_it_keeps_them() -> None:
    text = b'{"name":"a","more":1}'
    assert form_of(Keeping).encoded(read(Keeping, text)) == text
    for model in (Aliased, Ignoring, IgnoringDict):
        written: Any = {"name": "a", "order_id": "b", "more": 1}
        assert "more" not in decode(form_of(model).encoded(written))
    assert read(Ignoring, text) == Ignoring("a")


class Took(msgspec.Struct):
    took: timedelta
    count: int


class Count(msgspec.Struct):
    count: int


def test_a_struct_with_a_duration_is_read_in_lax_mode() -> None:
    assert read(Took, b'{"took": 1.5, "count": "5"}') == Took(timedelta(seconds=1.5), 5)
    with pytest.raises(InvalidModel):
        read(Count, b'{"count": "5"}')


@dataclass
class Counted:
    price: int
    count: int = field(init=False, default=2)
    total: int = field(init=False)

    def __post_init__(self) -> None:
        self.total = self.price * self.count


def test_a_dataclass_computes_what_its_constructor_does_not_take() -> None:
    text = form_of(Counted).encoded(Counted(3))
    assert text == b'{"price":3,"count":2,"total":6}'
    assert read(Counted, text) == Counted(3)


class Bag(pydantic.BaseModel):
    tags: set[str] = set()
    raw: bytes = b""


def test_a_value_without_a_form_is_refused_when_it_is_written_and_can_be_read() -> None:
    assert read(Bag, b'{"tags": ["a", "a"], "raw": "b"}') == Bag(tags={"a"}, raw=b"b")
    with pytest.raises(InvalidDocument) as caught:
        form_of(Bag).encoded(Bag(tags={"a"}))
    assert not isinstance(caught.value, ModelViolation)
    assert caught.value.path == "tags"


class Root(pydantic.RootModel[dict[str, int]]):
    pass


class Kind(pydantic.BaseModel):
    kind: Literal["a"] = "a"


@pytest.mark.parametrize("make", [lambda: Root({"a": 1}), Kind])
def test_other_shapes_of_pydantic_models_are_read_back(make: Callable[[], Any]) -> None:
    made = make()
    assert read(type(made), form_of(type(made)).encoded(made)) == made
