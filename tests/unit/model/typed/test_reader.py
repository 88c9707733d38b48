from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import weakref
from dataclasses import dataclass, field, make_dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
import pydantic
import pytest
from pydantic.dataclasses import dataclass as pydantic_dataclass

from pgdoc.errors import InvalidInput, InvalidModel, MissingExtra, UnreadableDocument
from pgdoc.model.json_codec import decode_decimals
from pgdoc.model.typed.reader import reader_of
from tests.unit.model.typed.models import Order, PydanticLine, PydanticOrder, StructLine, StructOrder

T = TypeVar("T")


def fault(model: Any, text: bytes) -> InvalidModel:
    with pytest.raises(InvalidModel) as caught:
        reader_of(model).read(text)
    return caught.value


class Item(pydantic.BaseModel):
    price: Decimal


class Cart(pydantic.BaseModel):
    items: list[Item]
    prices: dict[str, Item] = {}


class StructItem(msgspec.Struct, forbid_unknown_fields=True):
    price: Decimal


class StructCart(msgspec.Struct):
    items: list[StructItem]
    prices: dict[str, StructItem] = {}


@pytest.mark.parametrize("model", [Cart, StructCart])
@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b'{"items": [{"price": 1}, {"price": {}}]}', "items.1.price"),
        (b'{"items": [{"price": 1}, {}]}', "items.1.price"),
        (b'{"items": 5}', "items"),
        (b"{}", "items"),
        (b"[]", ""),
    ],
)
def test_the_error_names_the_field(model: Any, text: bytes, path: str) -> None:
    error = fault(model, text)
    assert (error.path, error.model) == (path, model.__name__)
    assert f"is not a valid {model.__name__}: " in str(error)
    assert isinstance(error.__cause__, pydantic.ValidationError | msgspec.ValidationError)


def test_the_error_names_the_value_of_a_mapping() -> None:
    assert fault(Cart, b'{"items": [], "prices": {"a": {"price": []}}}').path == "prices.a.price"
    assert fault(StructCart, b'{"items": [], "prices": {"a": {"price": []}}}').path == "prices.*.price"


def test_an_unknown_field_that_the_model_forbids_is_named() -> None:
    assert fault(StructItem, b'{"price": 1, "more": 2}').path == "more"


def test_the_error_counts_the_other_faults() -> None:
    assert str(fault(Cart, b'{"items": 1, "prices": 2}')).endswith("(and 1 more)")


class Odd(pydantic.BaseModel):
    name: str

    @pydantic.field_validator("name")
    @classmethod
    def _check(cls, name: str) -> str:
        return {"known": "name"}[name]


@dataclass
class OddDataclass:
    name: str

    def __post_init__(self) -> None:
        raise ZeroDivisionError(self.name)


@pytest.mark.parametrize(("model", "kind"), [(Odd, KeyError), (OddDataclass, ZeroDivisionError)])
def test_any_error_of_a_validator_is_one_of_the_document(model: Any, kind: type[Exception]) -> None:
    error = fault(model, b'{"name": "other"}')
    assert isinstance(error.__cause__, kind)
    assert kind.__name__ in str(error)


class Interrupting(pydantic.BaseModel):
    name: str

    @pydantic.field_validator("name")
    @classmethod
    def _check(cls, _name: str) -> str:
        raise KeyboardInterrupt


def test_an_interrupt_is_no_error_of_the_document() -> None:
    with pytest.raises(KeyboardInterrupt):
        reader_of(Interrupting).read(b'{"name": "a"}')


class Dated(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    at: datetime
    total: Decimal


def test_a_strict_model_reads_times_beside_exact_decimals() -> None:
    for total in ("9.5", "12345678901234567890.123456789012345678"):
        read = reader_of(Dated).read(f'{{"at": "2026-07-01T12:00:00.000000Z", "total": {total}}}'.encode())
        assert read.total == Decimal(total)


class Embedded(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    at: datetime
    value: pydantic.Json[Any]


def test_invalid_json_in_a_field_is_the_fault_of_that_field() -> None:
    assert fault(Embedded, b'{"at": "2026-07-01T12:00:00.000000Z", "value": "{"}').path == "value"


class Numbers(pydantic.BaseModel):
    exact: Decimal
    near: float
    whole: int
    took: timedelta


def test_pydantic_reads_numbers_beyond_floats_exactly() -> None:
    text = '{"exact": %s, "near": 0.1234567890123456789, "whole": %s, "took": 1.000001}'
    for exact in ("0." + "0" * 400 + "1", "1" * 400 + ".5", "9.90", "1" + "0" * 30):
        read = reader_of(Numbers).read(text % (exact, "1" * 400))
        assert (read.exact, read.near, read.whole) == (Decimal(exact), 0.12345678901234568, int("1" * 400))
        assert read.took == timedelta(seconds=1, microseconds=1)


class Rate(Enum):
    LOW = 0.1
    HIGH = 0.5


class Priced(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    price: Decimal
    rate: Rate = Rate.HIGH
    notes: dict[str, Any] = {}


class PricedStrict(Priced):
    model_config = pydantic.ConfigDict(strict=True)


@pytest.mark.parametrize("model", [Priced, PricedStrict])
@pytest.mark.parametrize("price", ["9.90", "9.9", "1" * 30 + ".5", "0." + "0" * 30 + "1"])
def test_a_decimal_changes_no_number_of_another_field(model: Any, price: str) -> None:
    text = '{"price": %s, "rate": 0.1, "notes": {"ratio": 0.25}, "more": 1.5}'
    read = reader_of(model).read(text % price)
    assert str(read.price) == str(Decimal(price)) or (model is PricedStrict and read.price == Decimal(price))
    assert (read.rate, read.notes, read.more) == (Rate.LOW, {"ratio": 0.25}, 1.5)
    assert (type(read.notes["ratio"]), type(read.more)) == (float, float)


class Anything(pydantic.BaseModel):
    value: Any


class AnyStruct(msgspec.Struct):
    value: Any


@pytest.mark.parametrize("model", [Anything, AnyStruct])
def test_data_that_is_as_deep_as_a_document_may_be_is_read(model: Any) -> None:
    text = b'{"value": ' + b"[" * 253 + b"]" * 253 + b"}"
    found, depth = reader_of(model).read(text).value, 0
    while found:
        found, depth = found[0], depth + 1
    assert depth == 252


def test_a_number_that_python_does_not_read_is_an_unreadable_document() -> None:
    text = b'{"value": ' + b"1" * 5000 + b"}"
    for model in (Anything, AnyStruct):
        with pytest.raises(UnreadableDocument):
            reader_of(model).read(text)


def test_a_large_document_is_read() -> None:
    text = b'{"items": [' + b",".join([b'{"price": 1.5}'] * 100_000) + b"]}"
    models: list[Any] = [Cart, StructCart]
    for model in models:
        assert len(reader_of(model).read(text).items) == 100_000


class Node(pydantic.BaseModel):
    next: Node | None = None


class StructNode(msgspec.Struct):
    next: StructNode | None = None
    took: timedelta | None = None


def test_a_model_that_refers_to_itself_is_read() -> None:
    assert reader_of(Node).read(b'{"next": {"next": null}}') == Node(next=Node())
    assert reader_of(StructNode).read(b'{"next": {"took": 1.5}}').next == StructNode(took=timedelta(seconds=1.5))


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]


class Batch(msgspec.Struct, Generic[T]):
    items: list[T]


def test_generic_models_are_read() -> None:
    assert reader_of(Page[Item]).read(b'{"items": [{"price": 1}]}').items == [Item(price=Decimal(1))]
    assert reader_of(Batch[StructItem]).read(b'{"items": [{"price": 1}]}').items == [StructItem(Decimal(1))]
    assert fault(Page[int], b'{"items": ["a"]}').path == "items.0"


class Paid(pydantic.BaseModel):
    kind: Literal["paid"] = "paid"


class Refunded(pydantic.BaseModel):
    kind: Literal["refunded"] = "refunded"


class PaidStruct(msgspec.Struct, tag="paid"):
    pass


class RefundedStruct(msgspec.Struct, tag="refunded"):
    pass


def test_unions_are_read_as_the_member_that_fits() -> None:
    assert reader_of(Paid | Refunded).read(b'{"kind": "refunded"}') == Refunded()
    tagged = Annotated[Paid | Refunded, pydantic.Field(discriminator="kind")]
    assert reader_of(tagged).read(b'{"kind": "refunded"}') == Refunded()
    assert reader_of(PaidStruct | RefundedStruct).read(b'{"type": "refunded"}') == RefundedStruct()
    assert fault(PaidStruct | RefundedStruct, b'{"type": "lost"}').model == "PaidStruct | RefundedStruct"


class Aliased(pydantic.BaseModel):
    order_id: str = pydantic.Field(alias="orderId")


def test_a_field_is_read_by_its_name_and_by_its_alias() -> None:
    for name in (b"order_id", b"orderId"):
        assert reader_of(Aliased).read(b'{"%b": "o-1"}' % name).order_id == "o-1"


@pydantic_dataclass
class AliasedDataclass:
    order_id: str = pydantic.Field(alias="orderId")


def test_a_field_of_a_pydantic_dataclass_is_read_by_its_name_and_by_its_alias() -> None:
    for name in (b"order_id", b"orderId"):
        assert reader_of(AliasedDataclass).read(b'{"%b": "o-1"}' % name).order_id == "o-1"


class Amount(pydantic.BaseModel):
    kind: Literal["amount"] = "amount"
    total: int


class Rows(pydantic.BaseModel):
    kind: Literal["rows"] = "rows"
    rows: list[Amount | int]


TAGGED = Annotated[Amount | Rows, pydantic.Field(discriminator="kind")]


class Holder(pydantic.BaseModel):
    name: int | float = 0
    held: TAGGED | None = None
    names: dict[Annotated[str, pydantic.Field(max_length=3)], int] = {}


@pytest.mark.parametrize(
    ("model", "text", "path"),
    [
        (Amount | Rows, b'{"total": "x"}', "total"),
        (TAGGED, b'{"kind": "amount", "total": []}', "total"),
        (TAGGED, b'{"kind": "amount"}', "total"),
        (TAGGED, b'{"kind": "lost"}', ""),
        (Holder, b'{"name": []}', "name"),
        (Holder, b'{"held": {"kind": "amount"}}', "held.total"),
        (Holder, b'{"held": {"kind": "rows", "rows": [1, {"total": []}]}}', "held.rows.1.total"),
        (Holder, b'{"names": {"long": 1}}', "names.long"),
    ],
)
def test_the_path_in_a_union_is_that_of_the_data(model: Any, text: bytes, path: str) -> None:
    assert fault(model, text).path == path


@dataclass
class WithPydantic:
    line: PydanticLine


class Missing(pydantic.BaseModel):
    line: NoSuchClass  # type: ignore[name-defined]  # noqa: F821


@dataclass
class MissingDataclass:
    line: NoSuchClass  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (WithPydantic, "msgspec can't read .*PydanticLine.*, which is a part of the model"),
        (Missing, "pydantic can't read model Missing: .*NoSuchClass"),
        (MissingDataclass, "msgspec can't read model MissingDataclass: .*NoSuchClass"),
        (StructLine | Order, "msgspec can't read model StructLine | Order: .*"),
    ],
)
def test_a_model_that_its_library_can_not_read_is_refused_at_once(model: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as raised:
        reader_of(model)
    assert "\n" not in str(raised.value)


def test_a_reader_is_shared_while_it_is_in_use() -> None:
    reader = reader_of(StructOrder)
    assert reader_of(StructOrder) is reader
    assert reader_of(StructOrder, decode_decimals) is not reader
    assert reader_of(Paid | Refunded) is not reader_of(Refunded | Paid)


@pydantic_dataclass
class Box(Generic[T]):
    value: T


def test_parameters_that_are_equal_but_not_the_same_have_readers_of_their_own() -> None:
    assert reader_of(Box[Literal[1]]).read(b'{"value": 1}').value is not True
    assert reader_of(Box[Literal[True]]).read(b'{"value": true}').value is True


def test_the_reader_of_a_modules_class_is_kept() -> None:
    watched = weakref.ref(reader_of(StructOrder)), weakref.ref(reader_of(Paid | Refunded))
    gc.collect()
    assert all(reference() is not None for reference in watched)


def test_a_class_that_was_made_at_run_time_is_freed() -> None:
    made = make_dataclass("Made", [("name", str), ("tags", list[str], field(default_factory=list))])
    created = pydantic.create_model("Created", name=str)
    references = [weakref.ref(made), weakref.ref(created)]
    for model in (made, created):
        assert reader_of(model).read(b'{"name": "a"}').name == "a"
    del made, created, model
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_a_reader_is_pickled_by_its_model() -> None:
    models: list[Any] = [PydanticOrder, StructOrder, Paid | Refunded]
    for model in models:
        reader = reader_of(model, decode_decimals)
        assert pickle.loads(pickle.dumps(reader)) is reader  # noqa: S301
        assert copy.deepcopy(reader) is copy.copy(reader) is reader


def test_without_msgspec_a_dataclass_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    monkeypatch.delitem(sys.modules, "pgdoc.model.typed.with_msgspec", raising=False)
    made = make_dataclass("Made", [("name", str)])
    with pytest.raises(
        MissingExtra, match=r"reading model Made needs the package msgspec: run pip install 'pgdoc\[models\]'"
    ):
        reader_of(made)
    assert reader_of(Paid).read(b"{}") == Paid()


ALONE = """
import sys
sys.modules[{missing!r}] = None
import pgdoc
from dataclasses import dataclass
store = pgdoc.Store("")
store["orders"], store.collection("orders")
assert {{"pydantic", "msgspec"}}.isdisjoint(sys.modules.keys() - {{{missing!r}}})
{model}
store.collection("orders", Model)
assert {{"pydantic", "msgspec"}} & {{name for name, module in sys.modules.items() if module}} == {{{used!r}}}
"""


@pytest.mark.parametrize(
    ("used", "missing", "model"),
    [
        ("msgspec", "pydantic", "@dataclass\nclass Model:\n    name: str"),
        ("msgspec", "pydantic", "import msgspec\nclass Model(msgspec.Struct):\n    name: str"),
        ("pydantic", "msgspec", "import pydantic\nclass Model(pydantic.BaseModel):\n    name: str"),
    ],
)
def test_a_model_needs_and_loads_only_its_own_library(used: str, missing: str, model: str) -> None:
    code = ALONE.format(used=used, missing=missing, model=model)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
