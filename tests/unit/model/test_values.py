"""The forms of Python values that JSON does not have."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import pickle
import subprocess
import sys
from collections import Counter, OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import orjson
import pydantic
import pydantic.dataclasses
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.errors import InvalidDocument, InvalidFilter, InvalidInput, InvalidUpdate
from pgdoc.model.documents import Document, data_text
from pgdoc.model.ids import check_id
from pgdoc.model.json_codec import MAX_DEPTH, decode, decode_comparable, decode_decimals, encode, encode_value
from pgdoc.query import apply_update, compare, matches, parse_filter, parse_update
from pgdoc.query.filters.order import parse_after
from pgdoc.query.filters.paths import parse_sort

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
NUMBER = UUID("6FA459EA-EE8A-3CA4-894E-DB77E160355E")

FIRST, LAST = datetime(1, 1, 2), datetime(9999, 12, 30)  # noqa: DTZ001 (the strategy adds the zone)
moments = st.datetimes(FIRST, LAST, timezones=st.sampled_from([UTC, BERLIN, timezone(timedelta(hours=-5))]))
decimals = st.decimals(allow_nan=False, allow_infinity=False, places=20, min_value=-(10**20), max_value=10**20)


class Colour(Enum):
    RED = "red"
    DAY = date(2026, 7, 1)
    PAIR = (1, NOON)


class Size(IntEnum):
    L = 3


class Status(StrEnum):
    NEW = "new"


class Rights(Flag):
    READ = 1
    WRITE = 2


@dataclass
class Line:
    sku: str
    price: Decimal
    at: datetime | None = None
    below: Any = None


@dataclass(frozen=True, slots=True)
class One:
    _hidden: int


@dataclass
class Empty:
    pass


class Customer(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(serialize_by_alias=True)
    name: str = pydantic.Field(alias="fullName")
    born: date
    lines: list[Line] = []

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def initial(self) -> str:
        return self.name[0]


class Moments(pydantic.RootModel[list[datetime]]):
    pass


class Moment(pydantic.RootModel[datetime]):
    pass


@pydantic.dataclasses.dataclass
class Checked:
    at: datetime


@dataclass
class Keyed:
    key: int

    def __eq__(self, other: object) -> bool:
        return self.key == other.key  # type: ignore[attr-defined,no-any-return]

    def __hash__(self) -> int:
        return self.key


class Order(msgspec.Struct, rename="camel", tag_field="kind", tag="order", omit_defaults=True):
    paid_at: datetime
    lines: list[Any] = []
    note: str = ""
    by: str | msgspec.UnsetType = msgspec.UNSET


class Point(msgspec.Struct, array_like=True):
    x: Decimal
    y: int


@attrs.define
class Plan:
    until: date
    steps: int = 1


class Pair(NamedTuple):
    number: int
    at: datetime


class LocalTime(datetime):
    def isoformat(self, *_args: Any) -> str:
        return "not ISO"


FORMS = [
    (NOON, '"2026-07-01T12:00:00.000000Z"'),
    (NOON.replace(microsecond=7), '"2026-07-01T12:00:00.000007Z"'),
    (datetime(2026, 7, 1, 12, 30, tzinfo=BERLIN), '"2026-07-01T10:30:00.000000Z"'),
    (datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN), '"2026-10-25T00:30:00.000000Z"'),
    (datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN), '"2026-10-25T01:30:00.000000Z"'),
    (datetime(33, 4, 3, 15, tzinfo=UTC), '"0033-04-03T15:00:00.000000Z"'),
    (datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), '"9999-12-31T23:59:59.999999Z"'),
    (LocalTime(2026, 7, 1, 12, tzinfo=BERLIN), '"2026-07-01T10:00:00.000000Z"'),
    (date(2026, 7, 1), '"2026-07-01"'),
    (date(33, 4, 3), '"0033-04-03"'),
    (time(9, 5), '"09:05:00.000000"'),
    (time(9, 5, 1, 20), '"09:05:01.000020"'),
    (timedelta(days=1, seconds=1), "86401"),
    (timedelta(0), "0"),
    (timedelta(microseconds=1), "0.000001"),
    (timedelta(seconds=1.5), "1.5"),
    (-timedelta(seconds=10, microseconds=500_000), "-10.5"),
    (timedelta.max, "86399999999999.999999"),
    (timedelta.min, "-86399999913600"),
    (NUMBER, '"6fa459ea-ee8a-3ca4-894e-db77e160355e"'),
    (Colour.RED, '"red"'),
    (Colour.DAY, '"2026-07-01"'),
    (Colour.PAIR, '[1,"2026-07-01T12:00:00.000000Z"]'),
    (Size.L, "3"),
    (Status.NEW, '"new"'),
    (Rights.READ | Rights.WRITE, "3"),
    (Decimal("9.90"), "9.90"),
    (Decimal("-1E+3"), "-1000"),
    (Decimal("1E+400"), "1" + "0" * 400),
    (Decimal(0).scaleb(-3), "0.000"),
    (Line("a", Decimal("1.10")), '{"sku":"a","price":1.10,"at":null,"below":null}'),
    (Line("a", Decimal(1), NOON, [Empty()]), '{"sku":"a","price":1,"at":"2026-07-01T12:00:00.000000Z","below":[{}]}'),
    (One(3), '{"_hidden":3}'),
    (Keyed(3), '{"key":3}'),
    (
        Customer(fullName="Ann", born=date(2000, 1, 2), lines=[Line("a", Decimal(1))]),
        '{"fullName":"Ann","born":"2000-01-02","lines":[{"sku":"a","price":1,"at":null,"below":null}],"initial":"A"}',
    ),
    (Moments([NOON]), '["2026-07-01T12:00:00.000000Z"]'),
    (Moment(NOON), '"2026-07-01T12:00:00.000000Z"'),
    (Checked(NOON), '{"at":"2026-07-01T12:00:00.000000Z"}'),
    (Order(NOON), '{"kind":"order","paidAt":"2026-07-01T12:00:00.000000Z"}'),
    (
        Order(NOON, [Empty()], by="ann"),
        '{"kind":"order","paidAt":"2026-07-01T12:00:00.000000Z","lines":[{}],"by":"ann"}',
    ),
    (Point(Decimal("0.10"), 2), "[0.10,2]"),
    (Plan(date(2026, 7, 1)), '{"until":"2026-07-01","steps":1}'),
    (OrderedDict(a=NOON), '{"a":"2026-07-01T12:00:00.000000Z"}'),
    (Counter(a=2), '{"a":2}'),
    (Pair(1, NOON), '[1,"2026-07-01T12:00:00.000000Z"]'),
]


@pytest.mark.parametrize(("value", "text"), FORMS, ids=repr)
@pytest.mark.parametrize("beside", [1, None, 10**30], ids=["fast", "fast, null", "slow"])
def test_a_value_has_one_form_on_the_fast_and_on_the_slow_path(value: Any, text: str, beside: Any) -> None:
    written = encode_value([value, beside], "").decode()
    assert written == f"[{text},{'null' if beside is None else beside}]"


@pytest.mark.parametrize("value", [value for value, _ in FORMS], ids=repr)
def test_an_encoder_that_leaves_all_values_changes_nothing(value: Any) -> None:
    assert encode_value({"a": [value]}, "", lambda given: given) == encode_value({"a": [value]}, "")


def test_a_class_with_fields_is_a_whole_document() -> None:
    assert decode(encode(Plan(date(2026, 7, 1)))) == {"until": "2026-07-01", "steps": 1}
    assert decode(encode(Order(NOON)))["paidAt"] == "2026-07-01T12:00:00.000000Z"
    with pytest.raises(InvalidDocument, match="such as a dataclass"):
        encode(Point(Decimal(1), 2))
    with pytest.raises(InvalidDocument, match="such as a dataclass"):
        encode(NOON)  # type: ignore[arg-type]


def test_an_id_among_the_fields_of_a_class_is_refused() -> None:
    with pytest.raises(InvalidDocument, match="remove it, and pass the id as an argument"):
        encode(dataclasses.make_dataclass("WithId", ["_id", "a"])("x", 1))


@pytest.mark.parametrize(
    ("value", "finding"),
    [
        (NOON.replace(tzinfo=None), "has no time zone: make it with datetime.now(UTC), or add the one it is meant in"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "can't be converted: OverflowError"),
        (time(9, tzinfo=UTC), "is a time of day with a time zone, which depends on the day"),
        (b"bytes", "has type bytes, which JSON can't represent: convert it, for example to text, or give the store an"),
        ({1, 2}, "has type set"),
        (Line, "has type type"),
        (Line("a", Decimal("NaN")), "JSON can't represent Decimal('NaN')"),
        (Order, "has type StructMeta"),
    ],
)
@pytest.mark.parametrize("beside", [{}, {"b": NOON}, {"b": None, "c": NOON}])
def test_a_value_without_a_form_is_refused_with_its_path(value: Any, finding: str, beside: dict[str, Any]) -> None:
    with pytest.raises(InvalidDocument) as caught:
        encode({**beside, "a": [value]})
    assert finding in str(caught.value)
    assert str(caught.value.path).startswith("a.0")


@pytest.mark.parametrize(
    "value", [float("nan"), float("-inf"), orjson.Fragment(b"{"), orjson.Fragment(b"null"), orjson.Fragment(b"1")]
)
@pytest.mark.parametrize("wrap", [lambda v: {"a": v, "t": NOON}, lambda v: {"a": Line("a", v)}, lambda v: {"a": (v,)}])
def test_what_orjson_would_write_as_another_value_is_refused_beside_others(value: Any, wrap: Any) -> None:
    with pytest.raises(InvalidDocument):
        encode(wrap(value))


def test_objects_with_fields_count_as_levels() -> None:
    def nested(levels: int) -> Any:
        value: Any = {}
        for number in range(levels - 1):
            value = Line("a", Decimal(1), None, value) if number % 2 else {"below": value}
        return value

    encode(nested(MAX_DEPTH))
    with pytest.raises(InvalidDocument, match="nested deeper than 254 levels"):
        encode(nested(MAX_DEPTH + 1))


def test_a_class_whose_fields_can_not_be_read_names_the_path() -> None:
    broken = Line("a", Decimal(1))
    del broken.sku
    with pytest.raises(InvalidDocument, match=r"at 'a': .*can't be converted: AttributeError") as caught:
        encode({"a": broken})
    assert caught.value.path == "a"
    assert isinstance(caught.value.__cause__, AttributeError)


class TestEncoders:
    def test_an_encoder_adds_forms_and_replaces_usual_ones(self) -> None:
        def encoder(value: Any) -> Any:
            if isinstance(value, bytes):
                return {"base64": value.hex()}
            if isinstance(value, set | frozenset):
                return sorted(value)
            if isinstance(value, datetime):
                return int(value.timestamp() * 1000)
            return value.name if isinstance(value, Enum) else value

        data = {
            "b": b"\1",
            "s": {2, 1},
            "t": NOON,
            "e": [Colour.RED],
            "n": {date(2026, 7, 2)},
            "x": 1.5,
            "o": Line("a", Decimal(1), NOON),
        }
        assert decode(encode(data, encoder)) == {
            "b": {"base64": "01"},
            "s": [1, 2],
            "t": 1782907200000,
            "e": ["RED"],
            "n": ["2026-07-02"],
            "x": 1.5,
            "o": {"sku": "a", "price": 1, "at": 1782907200000, "below": None},
        }

    def test_an_answer_is_converted_in_turn(self) -> None:
        def encoder(value: Any) -> Any:
            if isinstance(value, datetime) and value.tzinfo is None:
                return value.replace(tzinfo=UTC)
            return (
                value.decode() if isinstance(value, bytes) else bytes(value) if isinstance(value, bytearray) else value
            )

        assert encode({"a": NOON.replace(tzinfo=None), "b": bytearray(b"x")}, encoder) == (
            b'{"a":"2026-07-01T12:00:00.000000Z","b":"x"}'
        )

    def test_it_is_asked_for_nothing_that_json_has(self) -> None:
        asked = []

        def encoder(value: Any) -> Any:
            asked.append(value)
            return value

        encode({"a": [1, "x", 2.5, None, True, (1,), 10**30], "b": NOON}, encoder)
        assert asked == [NOON]

    def test_it_is_asked_for_the_whole_document(self) -> None:
        assert encode(b"ab", lambda value: {"size": len(value)}) == b'{"size":2}'  # type: ignore[arg-type]

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), Decimal("NaN"), b"x", object()])
    def test_it_can_store_null_for_a_value_without_a_form(self, value: Any) -> None:
        assert encode({"a": value}, lambda _value: None) == b'{"a":null}'

    @pytest.mark.parametrize(
        "value", [NOON, NUMBER, Decimal(1), Colour.RED, Line("a", Decimal(1)), Status.NEW, OrderedDict()]
    )
    def test_a_forgotten_return_is_no_null(self, value: Any) -> None:
        with pytest.raises(
            InvalidDocument, match=r"encoder returned None for .*let it return the values as they are"
        ) as caught:
            encode({"a": {"b": value}}, lambda _value: None)
        assert caught.value.path == "a.b"

    @pytest.mark.parametrize(
        ("encoder", "finding"),
        [
            (lambda _value: 1 / 0, r"the store's encoder raised ZeroDivisionError \(division by zero\) for b'x'"),
            (bytes, None),
            (lambda value: value + b"x", "returned another value 8 times in turn"),
            (lambda value: {"again": value}, "nested deeper than 254 levels"),
            (lambda _value: {1}, "returned another value 8 times in turn"),
            (lambda value: {1: value}, "the key 1 has type int"),
            (lambda _value: "\0", "contains a NUL character"),
        ],
    )
    def test_one_that_raises_or_returns_nonsense_is_named_with_the_path(
        self, encoder: Any, finding: str | None
    ) -> None:
        for error, call in (
            (InvalidDocument, lambda: encode({"a": [b"x"]}, encoder)),
            (InvalidFilter, lambda: parse_filter({"a.0": {"$gt": b"x"}}, encoder)),
            (InvalidUpdate, lambda: parse_update({"$set": {"a.0": b"x"}}, encoder)),
            (InvalidInput, lambda: parse_after([b"x", "1"], parse_sort("a.0"), encoder)),
        ):
            with pytest.raises(error, match=finding or "has type bytes") as caught:
                call()
            assert str(caught.value.path).startswith("a.0")

    def test_a_filter_and_an_update_use_it_everywhere(self) -> None:
        def encoder(value: Any) -> Any:
            return value.hex() if isinstance(value, bytes) else value

        nested: dict[str, Any] = {
            "$or": [
                {"a": {"$not": {"$in": [b"\1"]}}},
                {"b": {"$elemMatch": {"c": b"\2", "$nor": [{"d": {"$ne": b"\2"}}]}}},
                {"b": {"$all": [{"$elemMatch": {"$eq": b"\3"}}]}},
            ]
        }
        plain = orjson.loads(encode_value(nested, "", encoder))
        assert parse_filter(nested, encoder) == parse_filter(plain)
        update = {
            "$set": {"a": b"\1", "b": [b"\1"]},
            "$setOnInsert": {"c": b"\1"},
            "$min": {"d": b"\1"},
            "$max": {"e": b"\1"},
            "$push": {"f": {"$each": [b"\1"]}, "g": b"\1"},
            "$addToSet": {"h": {"$each": [b"\1"]}},
            "$pull": {"i": b"\1", "j": {"$gt": b"\1"}, "k": {"l": b"\1"}},
            "$pullAll": {"m": [b"\1"]},
        }
        assert parse_update(update, encoder) == parse_update(orjson.loads(encode_value(update, "", encoder)))


def test_updates_accept_values_in_every_operator() -> None:
    line = Line("a", Decimal("1.10"), NOON)
    update = {
        "$set": {"a": line, "b": Order(NOON)},
        "$setOnInsert": {"c": NUMBER},
        "$min": {"d": NOON},
        "$max": {"e": date(2026, 7, 1)},
        "$inc": {"f": timedelta(minutes=1), "g": Size.L},
        "$mul": {"h": Decimal("1.5")},
        "$push": {"i": line, "j": {"$each": (NOON, Colour.RED)}},
        "$addToSet": {"k": {"$each": [NUMBER]}},
        "$pull": {"m": {"$lt": NOON}, "n": {"at": NOON}, "o": NUMBER},
        "$pullAll": {"p": [NOON]},
    }
    assert parse_update(update) == parse_update(decode_decimals(encode_value(update, "")))


def test_pull_removes_the_elements_that_equal_an_object_with_fields() -> None:
    line = Line("a", Decimal("1.10"), NOON)
    found = apply_update(parse_update({"$pull": {"a": line}}), {"a": [decode(encode(line)), 1]})
    assert found == {"a": [1]}


@given(st.lists(moments, min_size=2, max_size=2))
def test_the_texts_of_datetimes_compare_as_the_datetimes_do(both: list[datetime]) -> None:
    left, right = (decode(encode_value(moment, "")) for moment in both)
    instants = [moment.astimezone(UTC) for moment in both]
    assert (left < right, left == right) == (instants[0] < instants[1], instants[0] == instants[1])
    assert [dt.datetime.fromisoformat(text) for text in (left, right)] == instants


@given(st.timedeltas(-timedelta(days=36_525), timedelta(days=36_525)))
def test_a_duration_of_up_to_a_hundred_years_comes_back_from_a_float(value: timedelta) -> None:
    assert timedelta(seconds=decode(encode_value(value, ""))) == value


def test_a_document_keeps_how_it_is_decoded_when_it_is_copied_or_pickled() -> None:
    unread = Document.from_text("a", b'{"price": 9.90}', 1, None, None, decode_text=decode_decimals)
    for document in copy.copy(unread), pickle.loads(pickle.dumps(unread)):  # noqa: S301 (the test's own)
        assert str(document["price"]) == "9.90"
    assert str(unread["price"]) == "9.90"
    assert data_text(unread) == b'{"price":9.90}'


def test_a_uuid_is_an_id() -> None:
    assert check_id(NUMBER) == "6fa459ea-ee8a-3ca4-894e-db77e160355e"


@given(decimals, decimals)
def test_decimals_come_back_with_their_digits_and_compare_exactly(left: Decimal, right: Decimal) -> None:
    texts = [encode_value(value, "") for value in (left, right)]
    assert [format(decode_decimals(text), "f") for text in texts] == [format(value, "f") for value in (left, right)]
    order = compare(*map(decode_comparable, texts))
    assert (order > 0) - (order < 0) == (left > right) - (left < right)
    assert matches(parse_filter({"a": left}), "x", {"a": decode_comparable(texts[1])}) == (left == right)
    assert matches(parse_filter({"a": {"$in": [left, "x"]}}), "x", {"a": decode_decimals(texts[1])}) == (left == right)


@pytest.mark.parametrize(
    "text",
    [
        "9.90",
        "0.1",
        "1e3",
        "100000000000000000.5",
        "0.30000000000000004",
        "99999999999999991611392.0",
        "0." + "0" * 323 + "5",
    ],
)
def test_a_float_stays_a_float_where_it_is_the_number(text: str) -> None:
    found = decode_comparable(format(Decimal(text), "f"))
    exact = Decimal(text)
    assert isinstance(found, Decimal) or Decimal(encode_value(found, "").decode()) == exact
    assert isinstance(found, Decimal) == (text == "100000000000000000.5")


def test_a_large_fraction_is_exact_in_filters() -> None:
    node = parse_filter({"a": {"$gt": Decimal("0.1")}})
    assert matches(node, "x", {"a": decode_comparable("0.10000000000000000001")})
    assert not matches(node, "x", {"a": decode_comparable("0.1")})
    assert matches(parse_filter({"a": 0.1}), "x", {"a": Decimal("0.10")})


def test_importing_pgdoc_and_encoding_import_no_optional_library() -> None:
    code = (
        "import sys, datetime, pgdoc; from pgdoc.model.json_codec import encode; "
        "encode({'a': datetime.datetime.now(datetime.UTC)}); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"pydantic", "msgspec", "attrs", "attr"}.isdisjoint(loaded)


@pytest.mark.parametrize("decoder", [decode, decode_decimals, decode_comparable])
@pytest.mark.parametrize("number", ["1e+38", "1e-320", "1E5", "1.5", "7", "12345678901234567890.5", "1e400"])
def test_a_number_is_decoded_the_same_beside_any_other(decoder: Any, number: str) -> None:
    alone = decoder(f'{{"n":{number}}}')["n"]
    beside = decoder(f'{{"n":{number},"m":0.1000000000000000055511151231257827,"e":1e-7}}')["n"]

    assert (type(alone), alone) == (type(beside), beside)
