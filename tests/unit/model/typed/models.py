# ruff: noqa: TC003 (the libraries read the annotations)
"""The same model for each library that reads one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, NotRequired, TypedDict
from uuid import UUID

import msgspec
import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass


class Status(Enum):
    NEW = "new"
    PAID = "paid"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class PydanticLine(pydantic.BaseModel):
    sku: str
    price: Decimal


class PydanticOrder(pydantic.BaseModel):
    id: UUID
    status: Status
    level: Level
    at: datetime
    day: date
    hour: time
    took: timedelta
    total: Decimal
    weight: float
    count: int
    is_paid: bool
    lines: list[PydanticLine]
    notes: dict[str, str]
    best: PydanticLine | None = None
    renamed: str = pydantic.Field(default="", alias="renamedTo")


@pydantic_dataclass
class PydanticDataclassLine:
    sku: str
    price: Decimal


@pydantic_dataclass
class PydanticDataclassOrder:
    id: UUID
    status: Status
    level: Level
    at: datetime
    day: date
    hour: time
    took: timedelta
    total: Decimal
    weight: float
    count: int
    is_paid: bool
    lines: list[PydanticDataclassLine]
    notes: dict[str, str]
    best: PydanticDataclassLine | None = None
    renamed: str = pydantic.Field(default="", alias="renamedTo")


class StructLine(msgspec.Struct, tag=True):
    sku: str
    price: Decimal


class StructOrder(msgspec.Struct, rename="camel", omit_defaults=True):
    id: UUID
    status: Status
    level: Level
    at: datetime
    day: date
    hour: time
    took: timedelta
    total: Decimal
    weight: float
    count: int
    is_paid: bool
    lines: list[StructLine]
    notes: dict[str, str]
    best: StructLine | None = None
    renamed: str = msgspec.field(default="", name="renamedTo")


@dataclass
class Line:
    sku: str
    price: Decimal


@dataclass
class Order:
    id: UUID
    status: Status
    level: Level
    at: datetime
    day: date
    hour: time
    took: timedelta
    total: Decimal
    weight: float
    count: int
    is_paid: bool
    lines: list[Line]
    notes: dict[str, str] = field(default_factory=dict)
    best: Line | None = None
    renamed: str = ""


class DictLine(TypedDict):
    sku: str
    price: Decimal


class DictOrder(TypedDict):
    id: UUID
    status: Status
    level: Level
    at: datetime
    day: date
    hour: time
    took: timedelta
    total: Decimal
    weight: float
    count: int
    is_paid: bool
    lines: list[DictLine]
    notes: dict[str, str]
    best: DictLine | None
    renamed: NotRequired[str]


ALIASED = {PydanticOrder, PydanticDataclassOrder}  # their constructors take the alias
LINES: dict[Any, Any] = {
    PydanticOrder: PydanticLine,
    PydanticDataclassOrder: PydanticDataclassLine,
    StructOrder: StructLine,
    Order: Line,
    DictOrder: DictLine,
}
"""The model of an order's lines, by the model of the order."""
