"""What the API stores and takes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class NewOrder(BaseModel):
    """What a customer orders."""

    customer: str = Field(min_length=1, max_length=100)
    product: str
    quantity: int = Field(gt=0, le=1000)


class Order(NewOrder):
    """An order as it is stored."""

    cents: int
    status: Literal["new", "paid", "shipped"] = "new"


class OrderChange(BaseModel):
    """What may change about an order."""

    status: Literal["new", "paid", "shipped"]
