from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypedDict, TypeVar

import msgspec
import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass

T = TypeVar("T")


class Order(pydantic.BaseModel):
    status: str
    total: float = 0


class BigOrder(Order):
    parts: int = 1


class Refund(pydantic.BaseModel):
    order: str


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]


@pydantic_dataclass
class Invoice:
    number: int


class Event(msgspec.Struct):
    name: str


@dataclass
class Customer:
    name: str


class Address(TypedDict):
    city: str
