from __future__ import annotations

import functools
from collections.abc import Mapping  # noqa: TC003 (an annotation that is looked up)
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, List, Protocol, TypedDict, TypeVar  # noqa: UP035 (as a handler may have it)

import pytest

from pgdoc import ChangeEvent, Store
from pgdoc.workers.annotations import check_annotation

if TYPE_CHECKING:
    from collections.abc import Callable

    from nowhere import Unknown  # type: ignore[import-not-found]

ModelT = TypeVar("ModelT")


@dataclass
class Order:
    total: int


@dataclass
class Paid(Order):
    by: str


@dataclass
class Customer:
    name: str


class Named(Protocol):
    name: str


class Item(TypedDict):
    name: str


def of_order(event: ChangeEvent[Order]) -> None: ...
def of_orders(events: list[ChangeEvent[Order]]) -> None: ...
def of_text(event: "ChangeEvent[Order]") -> None: ...  # noqa: UP037 (a text inside a text)
def of_item(event: ChangeEvent[Item]) -> None: ...
def of_dict(event: ChangeEvent[dict[str, Any]]) -> None: ...
def of_mapping(event: ChangeEvent[Mapping[str, Any]]) -> None: ...
def of_protocol(event: ChangeEvent[Named]) -> None: ...
def of_union(event: ChangeEvent[Order | Customer]) -> None: ...
def of_variable(event: ChangeEvent[ModelT]) -> None: ...
def of_unknown(event: ChangeEvent[Unknown]) -> None: ...
def of_any(event: ChangeEvent) -> None: ...
def of_list(events: List) -> None: ...  # type: ignore[type-arg]  # noqa: UP006
def without(event): ...


class Counting:
    """A handler that is an object: the annotations that it has are those of its attributes."""

    def __call__(self, event: ChangeEvent[Order]) -> None: ...


Counting.__annotations__ = {"event": ChangeEvent[Customer]}  # as without `from __future__ import annotations`


ACCEPTED = [
    *((each, model) for each in (of_order, of_orders, of_text) for model in (Order, Paid, Order | Customer, Any)),
    (of_list, None),
    (of_list, Order),
    *((each, None) for each in (of_item, of_dict, of_mapping, of_protocol, of_union, of_variable, of_unknown)),
    *((each, Order) for each in (of_protocol, of_union, of_variable, of_unknown, of_any, without)),
    (functools.partial(of_order), Order),
    (Counting(), None),
    (Counting(), Order),
]


@pytest.mark.parametrize(("function", "model"), ACCEPTED)
def test_a_handler_may_be_annotated_for_what_its_events_can_have(function: Callable[..., Any], model: Any) -> None:
    check_annotation(function, "events" if function in (of_orders, of_list) else "event", model)


@pytest.mark.parametrize("function", [of_order, of_orders, of_text])
def test_a_handler_that_is_annotated_for_another_class_is_refused(function: Callable[..., Any]) -> None:
    parameter = "events" if function is of_orders else "event"
    with pytest.raises(
        TypeError, match=rf"^{parameter} of the handler {function.__name__} .*\[Order\].* has the class dict: pass"
    ):
        check_annotation(function, parameter, None)
    with pytest.raises(TypeError, match=r"the data of its documents has the class Customer: annotate it with"):
        check_annotation(function, parameter, Customer)


def test_a_worker_refuses_it_when_it_is_registered() -> None:
    import pgdoc  # noqa: PLC0415

    worker = pgdoc.Worker(Store("host=nowhere"))
    with pytest.raises(TypeError, match="pass model=Order"):
        worker.on("orders", consumer="audit")(of_order)
    worker.on("orders", consumer="audit", model=Order)(of_order)
