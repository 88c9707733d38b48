"""Law: what is written through a model is read back as the same by the same model."""

from __future__ import annotations

from datetime import UTC, timedelta
from decimal import Decimal  # noqa: TC003 (pytest passes it)
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgdoc.model.document_form import DocumentForm
from pgdoc.model.json_codec import decode_decimals, encode
from pgdoc.model.value_codec import USUAL_VALUES
from tests.unit.model.typed.models import ALIASED, LINES, Level, Status

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30)
YEARS = timedelta(days=36_000)


def as_printed(text: bytes) -> bytes:
    """Print JSON as PostgreSQL prints `jsonb`: without exponents, with all digits."""
    return encode(decode_decimals(text))


def form_of(model: Any) -> DocumentForm[Any]:
    return DocumentForm("orders", 'collection "docs.orders"', USUAL_VALUES, model)


@st.composite
def orders(draw: st.DrawFn, model: Any) -> Any:
    lines = st.builds(LINES[model], sku=TEXTS, price=DECIMALS)
    fields: dict[str, Any] = {
        "id": draw(st.uuids()),
        "status": draw(st.sampled_from(Status)),
        "level": draw(st.sampled_from(Level)),
        "at": draw(st.datetimes(timezones=st.just(UTC))),
        "day": draw(st.dates()),
        "hour": draw(st.times()),
        "took": draw(st.timedeltas(-YEARS, YEARS)),
        "total": draw(DECIMALS),
        "weight": draw(st.floats(allow_nan=False, allow_infinity=False)),
        "count": draw(st.integers(-(10**30), 10**30)),
        "is_paid": draw(st.booleans()),
        "lines": draw(st.lists(lines, max_size=3)),
        "notes": draw(st.dictionaries(TEXTS, TEXTS, max_size=3)),
        "best": draw(st.none() | lines),
    }
    if draw(st.booleans()):
        fields["renamedTo" if model in ALIASED else "renamed"] = draw(TEXTS)
    return model(**fields)


@pytest.mark.parametrize("model", LINES, ids=lambda model: model.__name__)
@given(data=st.data())
@settings(max_examples=40)
def test_an_instance_is_read_back_as_an_equal_one(model: Any, data: st.DataObject) -> None:
    order, form = data.draw(orders(model)), form_of(model)
    text = as_printed(form.encoded(order))
    read = form.read("o-1", text, 1, None, None).data
    assert read == order
    assert all(type(value) is type(found) for value, found in zip(_values(order), _values(read), strict=True))
    assert as_printed(form.encoded(read)) == text


@pytest.mark.parametrize("model", LINES, ids=lambda model: model.__name__)
@given(data=st.data())
@settings(max_examples=40)
def test_a_mapping_is_stored_as_its_instance(model: Any, data: st.DataObject) -> None:
    order, form = data.draw(orders(model)), form_of(model)
    text = form.encoded(order)
    stored = form.encoded(decode_decimals(as_printed(text)))
    assert decode_decimals(as_printed(stored)) == decode_decimals(as_printed(text))


@pytest.mark.parametrize("model", LINES, ids=lambda model: model.__name__)
@given(total=st.decimals("0.0", "999.99", places=2))
@settings(max_examples=40)
def test_a_decimal_keeps_its_digits(model: Any, total: Decimal) -> None:
    line, form = LINES[model](sku="a", price=total), form_of(LINES[model])
    read = form.read("o-1", form.encoded(line), 1, None, None).data
    assert str(read["price"] if isinstance(read, dict) else read.price) == str(total)


def _values(order: Any) -> list[Any]:
    names = ("id", "status", "at", "day", "hour", "took", "total", "weight", "count", "is_paid")
    return [order[name] if isinstance(order, dict) else getattr(order, name) for name in names]
