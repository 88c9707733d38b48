"""A typed document's data is a model; all else of it works on the stored JSON."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pydantic
import pytest

from pgdoc.crud.find_query import Search
from pgdoc.errors import InvalidDocument, InvalidModel, ModelViolation, UnreadableDocument
from pgdoc.model.document_form import DocumentForm
from pgdoc.model.documents import Document, TypedDocument, data_text, plain_data, to_be_decoded_by
from pgdoc.model.json_codec import decode, decode_comparable
from pgdoc.model.raw_json import RawJson
from pgdoc.model.table_row import TableRow
from pgdoc.model.typed.reader import reader_of
from pgdoc.model.value_codec import USUAL_VALUES, ValueCodec

if TYPE_CHECKING:
    from collections.abc import Callable

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
TEXT = b'{"status": "new", "total": 0.12345678901234567890, "orderId": "a-1", "unknown": [1]}'


class Order(pydantic.BaseModel):
    status: str
    total: Decimal = Decimal(0)
    order_id: str = pydantic.Field(default="", alias="orderId")


class OrderStruct(msgspec.Struct, rename="camel"):
    status: str
    total: Decimal = Decimal(0)
    order_id: str = ""


def form_of(model: Any, codec: ValueCodec = USUAL_VALUES) -> DocumentForm[Any]:
    return DocumentForm("orders", 'collection "docs.orders"', codec, model)


def document(text: bytes | None = TEXT, model: Any = Order) -> Document[Any]:
    return form_of(model).read("o-1", text, 1, NOON, NOON)


@pytest.mark.parametrize("model", [Order, OrderStruct])
def test_the_data_is_the_model_and_fields_are_what_is_stored(model: Any) -> None:
    found = document(model=model)
    assert isinstance(found.data, model)
    assert (found.data.status, found.data.total) == ("new", Decimal("0.12345678901234567890"))
    assert found.data is found.data
    assert (found["status"], found["orderId"], found["unknown"]) == ("new", "a-1", [1])
    assert found["total"] == pytest.approx(0.12345678901234567)
    assert "orderId" in found
    assert "order_id" not in found
    assert (found.get("order_id"), found.get("status")) == (None, "new")
    with pytest.raises(KeyError):
        _ = found["order_id"]


def test_a_store_that_reads_decimals_reads_fields_as_decimals() -> None:
    found = form_of(Order, ValueCodec.checked(None, decimals=True)).read("o-1", TEXT, 1, NOON, NOON)
    assert found["total"] == Decimal("0.12345678901234567890") == found.data.total


def test_the_stored_text_stays_when_the_data_was_read_or_changed() -> None:
    found = document()
    found.data.status = "paid"
    assert data_text(found) == TEXT
    assert found["status"] == "new"
    assert found.data.status == "paid"


def test_a_document_that_is_not_valid_can_be_read_but_for_its_data() -> None:
    found = document(b'{"status": 5}')
    for _ in range(2):
        with pytest.raises(InvalidModel) as caught:
            _ = found.data
        assert (caught.value.collection, caught.value.document_id, caught.value.path) == ("orders", "o-1", "status")
        assert caught.value.model == "Order"
        assert str(caught.value) == (
            "document 'o-1' of collection \"orders\": the data is not a valid Order: at 'status': Input should be a "
            "valid string. Correct the document, or change the model"
        )
        assert isinstance(caught.value.__cause__, pydantic.ValidationError)
    assert (found["status"], found.id, found.version, found.created_at) == (5, "o-1", 1, NOON)
    assert repr(found).startswith("Document[Order](id='o-1', data={'status': 5}, version=1, ")
    assert found == document(b'{"status": 5}')
    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301


def test_text_that_the_server_can_not_print_is_an_unreadable_document() -> None:
    found = document(None)
    reads: list[Callable[[], Any]] = [lambda: found.data, lambda: found["status"]]
    for read in reads:
        with pytest.raises(
            UnreadableDocument, match=r"^document 'o-1' of collection \"orders\": PostgreSQL can't print"
        ):
            read()
    assert "data=<unreadable>" in repr(found)


@pytest.mark.parametrize("is_accessed", [False, True])
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda found: pickle.loads(pickle.dumps(found))])  # noqa: S301
def test_a_copy_is_the_same_typed_document(again: Any, is_accessed: bool) -> None:
    found = document()
    if is_accessed:
        assert found.data.status == found["status"]
    other = again(found)
    assert other == found
    assert other is not found
    assert (other.data, data_text(other)) == (found.data, TEXT)
    assert type(other) is TypedDocument


def test_documents_are_equal_by_what_is_stored() -> None:
    same = document(b'{"orderId":"a-1","status":"new","total":0.12345678901234567890,"unknown":[1]}')
    assert document() == same
    assert document() != document(b"{}")
    assert document() != dataclasses.replace(document(), version=2)
    assert document() != object()
    made = Document("o-1", Order(status="new"), 1, NOON, NOON)
    assert document(b'{"status": "new", "total": 0, "order_id": ""}') == made
    assert document() != TableRow.of("o-1", TEXT, "public.orders", None)
    with pytest.raises(TypeError, match="unhashable"):
        hash(document())


def test_a_changed_copy_keeps_the_model() -> None:
    other = dataclasses.replace(document(), id="o-2")
    assert (other.id, other.data.status, other["status"]) == ("o-2", "new", "new")
    assert decode(data_text(other)) == {"status": "new", "total": pytest.approx(0.123456789), "order_id": "a-1"}
    assert to_be_decoded_by(decode_comparable, other).data["status"] == "new"


def test_a_document_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        document().data = Order(status="new")  # type: ignore[misc]
    with pytest.raises(AttributeError):
        _ = TypedDocument.data  # type: ignore[misc]


def test_a_document_that_was_made_with_a_model_has_its_fields() -> None:
    made = Document("o-1", Order(status="new"), 1, NOON, NOON)
    assert (made["status"], made.get("order_id"), "total" in made) == ("new", "", True)
    assert plain_data(made) == {"status": "new", "total": 0, "order_id": ""}
    assert made.data.status == "new"


def test_other_decoders_see_no_model() -> None:
    other = to_be_decoded_by(decode_comparable, document())
    assert other.data["total"] == Decimal("0.12345678901234567890")
    accessed = document()
    assert accessed.data.status == "new"
    assert to_be_decoded_by(decode_comparable, accessed).data["status"] == "new"


def test_another_reader_reads_another_model() -> None:
    accessed = document()
    assert accessed.data.status == accessed["status"] == "new"
    other = to_be_decoded_by(reader_of(OrderStruct), accessed)
    assert other.data == OrderStruct("new", Decimal("0.12345678901234567890"), "a-1")
    assert accessed.data.order_id == "a-1"


def test_a_page_begins_after_a_document_by_its_stored_fields() -> None:
    accessed = document()
    assert accessed.data.status == "new"
    after = [
        Search({}, sort="orderId", after=each)._after
        for each in (accessed, document(b'{"orderId": "a-1"}'), ["a-1", "o-1"])
    ]
    assert after[0] == after[1] == after[2]


def test_threads_get_one_and_the_same_model() -> None:
    found = [document() for _ in range(50)]
    with ThreadPoolExecutor(4) as threads:
        for each in found:
            read = list(threads.map(lambda _, each=each: each.data, range(8)))
            assert all(one is each.data for one in read)


class TestWrites:
    def test_what_a_mapping_leaves_out_is_filled_in(self) -> None:
        assert decode(form_of(Order).encoded({"status": "new"})) == {"status": "new", "total": 0, "order_id": ""}
        assert decode(form_of(OrderStruct).encoded({"status": "new", "orderId": "a", "unknown": 1})) == {
            "status": "new",
            "total": 0,
            "orderId": "a",
        }

    def test_a_mapping_that_is_not_valid_is_refused(self) -> None:
        with pytest.raises(ModelViolation) as caught:
            form_of(Order).encoded({"status": 5}, "o-1")
        assert isinstance(caught.value, InvalidModel)
        assert isinstance(caught.value, InvalidDocument)
        assert (caught.value.path, caught.value.document_id, caught.value.model) == ("status", "o-1", "Order")
        assert str(caught.value) == (
            "document 'o-1' of collection \"docs.orders\": the data is not a valid Order: at 'status': Input should be "
            "a valid string. Correct the data: nothing was sent"
        )
        assert isinstance(caught.value.__cause__, pydantic.ValidationError)
        with pytest.raises(ModelViolation, match=r'^a document of collection "docs.orders": ') as caught:
            form_of(Order).encoded({"status": 5})
        assert caught.value.document_id is None

    def test_an_instance_is_stored_as_it_is(self) -> None:
        changed = Order(status="new")
        changed.status = 5  # type: ignore[assignment]
        with pytest.warns(UserWarning, match="serialized value may not be as expected"):
            assert decode(form_of(Order).encoded(changed))["status"] == 5

    def test_an_instance_of_another_class_is_read_by_the_model(self) -> None:
        assert decode(form_of(Order).encoded(OrderStruct("new", order_id="a"))) == {
            "status": "new",
            "total": 0,
            "order_id": "a",
        }
        with pytest.raises(ModelViolation):
            form_of(OrderStruct).encoded(Order(status="new").model_copy(update={"status": None}))

    def test_json_text_is_checked_and_stored_as_it_is(self) -> None:
        form = form_of(Order)
        assert form.encoded(RawJson(TEXT)) == TEXT
        with pytest.raises(ModelViolation):
            form.encoded(RawJson(b'{"status": 5}'))

    def test_the_encoder_of_the_store_converts_what_a_model_has(self) -> None:
        class Tagged(pydantic.BaseModel):
            tags: set[str]

        codec = ValueCodec.checked(lambda value: sorted(value) if isinstance(value, set) else value, decimals=False)
        form = form_of(Tagged, codec)
        text = form.encoded(Tagged(tags={"b", "a"}))
        assert text == b'{"tags":["a","b"]}' == form.encoded({"tags": ["a", "b", "a"]})
        assert form.read("o-1", text, 1, NOON, NOON).data == Tagged(tags={"a", "b"})

    def test_members_of_a_union_are_stored_as_they_are(self) -> None:
        form = form_of(Order | pydantic.create_model("Other", a=int))
        assert decode(form.encoded({"a": 5})) == {"a": 5}
        assert decode(form.encoded(Order(status="new")))["status"] == "new"


def test_partial_reads_are_dicts() -> None:
    found = form_of(Order).read_part("o-1", b'{"status": "new"}', 1, NOON, NOON)
    assert type(found) is Document
    assert found.data == {"status": "new"}


def test_a_form_without_a_model_is_the_usual_one() -> None:
    found = form_of(None).read("o-1", TEXT, 1, NOON, NOON)
    assert type(found) is Document
    assert reader_of(Order).plain is decode


class Tagged(pydantic.BaseModel):
    tags: set[str]


def test_the_repr_of_a_replaced_document_needs_no_encoder() -> None:
    found = form_of(Tagged).read("o-1", b'{"tags": ["a"]}', 1, NOON, NOON)
    assert "data=Tagged(tags={'a'}), version=2" in repr(dataclasses.replace(found, version=2))
