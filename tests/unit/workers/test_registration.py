"""What a handler may look like, and which events it gets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc.errors import InvalidFilter, InvalidName
from pgdoc.workers.registration import Registration, async_check_handler, check_handler

if TYPE_CHECKING:
    from collections.abc import Callable

_OPTIONS: dict[str, Any] = {
    "encoder": None,
    "consumer": "audit",
    "name": None,
    "where": None,
    "tables": False,
    "snapshot": False,
    "batch": 100,
    "retries": 5,
    "on_dead": "continue",
}


def registered(function: Callable[..., Any], *names: str, **options: Any) -> Registration:
    return Registration.checked(function, names, **(_OPTIONS | options))


def test_the_names_of_the_parameters_say_what_a_handler_takes() -> None:
    found = [
        registered(lambda tx, events: (tx, events)),
        registered(lambda tx, event: (tx, event)),
        registered(lambda events: events),
        registered(lambda event, debug=False: (event, debug)),
    ]
    assert [(each.takes_tx, each.takes_one) for each in found] == [
        (True, False),
        (True, True),
        (False, False),
        (False, True),
    ]


@pytest.mark.parametrize(
    "function",
    [
        lambda: None,
        lambda change: change,
        lambda event, tx: (event, tx),
        lambda events, *, needed: (events, needed),
        lambda *events: events,
    ],
)
def test_other_parameters_are_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="is not a handler: its parameters must be one of"):
        registered(function)


def test_a_handler_has_the_name_of_its_function_or_its_own() -> None:
    def audit(events: list[Any]) -> None: ...

    assert registered(audit).name == "audit"
    assert registered(audit, name="other").title == 'handler "other" of consumer "audit"'
    with pytest.raises(ValueError, match="name must be a text of 1 to 200 characters, got ''"):
        registered(audit, name="")
    for odd in ("a\0b", "a\ud800b", "a\nb"):
        with pytest.raises(ValueError, match="name must have only characters that can be printed"):
            registered(audit, name=odd)


def test_what_the_server_would_refuse_is_refused_at_once() -> None:
    def audit(events: list[Any]) -> None: ...

    with pytest.raises(InvalidName):
        registered(audit, "no name")
    with pytest.raises(InvalidName):
        registered(audit, consumer="No")
    with pytest.raises(InvalidFilter):
        registered(audit, where={"nothing": 1})
    with pytest.raises(ValueError, match="tables=True stands for all"):
        registered(audit, "orders", tables=True)
    with pytest.raises(ValueError, match="retries must be a whole number of at least 0, got True"):
        registered(audit, retries=True)


def test_attempts_are_one_more_than_retries() -> None:
    def audit(events: list[Any]) -> None: ...

    assert registered(audit).attempts == 6
    assert registered(audit, retries=None).attempts is None


def test_a_handler_wants_the_events_of_its_names_and_filter() -> None:
    def audit(events: list[Any]) -> None: ...

    def event(collection: str, renamed_to: str | None = None) -> Any:
        return SimpleNamespace(collection=collection, renamed_to=renamed_to, full_document=None)

    named, every = registered(audit, "orders", "public.t"), registered(audit)
    assert [named.wants(event(each)) for each in ("orders", "public.t", "users")] == [True, True, False]
    assert named.wants(event("users", renamed_to="orders"))
    assert [every.wants(event(each)) for each in ("orders", "public.t")] == [True, False]
    assert registered(audit, tables=True).wants(event("public.t"))


def test_each_kind_of_worker_takes_its_kind_of_function() -> None:
    async def coroutine(events: list[Any]) -> None: ...

    def function(events: list[Any]) -> None: ...

    check_handler(function)
    async_check_handler(coroutine)
    with pytest.raises(TypeError, match="got the coroutine function coroutine; AsyncWorker takes"):
        check_handler(coroutine)
    with pytest.raises(TypeError, match="got the function function; Worker takes plain functions"):
        async_check_handler(function)


def test_a_handler_of_topics_gets_their_events_and_no_others() -> None:
    found = registered(lambda event: event, topics=["order.*"])
    assert found.selection.collections == frozenset()
    assert found.described == "<lambda>(event) on topic order.*, batches of 100, 5 retries, then continue"
    mixed = registered(lambda event: event, "users", topics=["order.*", "a"], name="mixed")
    assert mixed.described.startswith("mixed(event) on users, topic order.*, topic a, ")
    everything = registered(lambda event: event, "*", topics=["a"], name="all")
    assert everything.described.startswith("all(event) on all collections, topic a, ")
    for name, wanted in (("topic:order.shipped", True), ("topic:order", False), ("orders", False)):
        assert found.selection.covers(name) == wanted
        assert everything.selection.covers(name) == (name == "orders")
