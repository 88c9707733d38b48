"""Time reading a document as a model of each library, without a server, against reading it as a dict.

    python -m bench models

A model is read by the function that `document.data` of a typed collection calls.
"""

from __future__ import annotations

import sys
import timeit
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal  # noqa: TC003
from typing import Any, TypedDict
from uuid import UUID

import msgspec
import pydantic

from pgdoc.model.json_codec import decode, encode
from pgdoc.model.typed.reader import reader_of

ROUNDS = 400
CALLS = 50  # few, so that on a busy machine some rounds are not interrupted
LINES = 8


class PydanticLine(pydantic.BaseModel):
    sku: str
    price: float


class PydanticOrder(pydantic.BaseModel):
    id: UUID
    at: datetime
    lines: list[PydanticLine]


class PydanticDecimalLine(pydantic.BaseModel):
    sku: str
    price: Decimal


class PydanticDecimalOrder(pydantic.BaseModel):
    id: UUID
    at: datetime
    lines: list[PydanticDecimalLine]


class LineStruct(msgspec.Struct):
    sku: str
    price: float


class OrderStruct(msgspec.Struct):
    id: UUID
    at: datetime
    lines: list[LineStruct]


class DecimalLineStruct(msgspec.Struct):
    sku: str
    price: Decimal


class DecimalOrderStruct(msgspec.Struct):
    id: UUID
    at: datetime
    lines: list[DecimalLineStruct]


@dataclass
class Line:
    sku: str
    price: float


@dataclass
class Order:
    id: UUID
    at: datetime
    lines: list[Line]


class LineDict(TypedDict):
    sku: str
    price: float


class OrderDict(TypedDict):
    id: UUID
    at: datetime
    lines: list[LineDict]


MODELS: dict[str, Any] = {
    "msgspec Struct": OrderStruct,
    "msgspec Struct with Decimals": DecimalOrderStruct,
    "dataclass": Order,
    "TypedDict": OrderDict,
    "pydantic model": PydanticOrder,
    "pydantic model with Decimals": PydanticDecimalOrder,
}


def main() -> int:
    lines = [{"sku": f"sku-{number}", "price": 9.95} for number in range(LINES)]
    text = encode({"id": UUID(int=7), "at": datetime(2026, 7, 1, 12, tzinfo=UTC), "lines": lines})
    readers = {"dict": decode} | {name: reader_of(model).read for name, model in MODELS.items()}
    print(f"microseconds to read a document of {len(text)} bytes with {LINES} lines, least of {ROUNDS} rounds")
    for name, read in readers.items():
        least = min(timeit.repeat(lambda read=read: read(text), number=CALLS, repeat=ROUNDS))  # type: ignore[misc]
        print(f"{name:32}{least / CALLS * 1e6:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
