"""A handler with its options, as `worker.on` takes them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from pgdoc.changes import events
from pgdoc.changes.event_filter import parse_where
from pgdoc.model.names import check_consumer
from pgdoc.model.short_repr import short_repr
from pgdoc.model.table_names import is_table_name
from pgdoc.streams.options import EVERY_COLLECTION, check_at_least, make_selection
from pgdoc.workers.annotations import check_annotation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.changes.router import Selection
    from pgdoc.model.typed.reader import ModelReader
    from pgdoc.model.values import Encoder

__all__ = ["Registration", "async_check_handler", "check_handler", "check_result", "wanted_by"]

_SIGNATURES: Final = (["tx", "events"], ["tx", "event"], ["events"], ["event"])
_ON_DEAD: Final = ("continue", "park")
_LONGEST_NAME: Final = 200
_LOOKS: Final = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A handler with its options.

    Attributes:
        names: of its collections and tables; empty for all collections, or for none if there are topics.
        topics: as the user gave them.
        where: the filter as given.
        selection: what it handles.
        retries: how often an event is tried again; `None` for ever.
        takes_tx: whether its effect and its position commit together.
        takes_one: whether it is called with one event, not with a list.
        reader: that of the model of the documents, if they have one.
    """

    function: Callable[..., Any]
    name: str
    consumer: str
    names: tuple[str, ...]
    topics: tuple[str, ...]
    tables: bool
    where: Mapping[str, Any] | None
    selection: Selection
    snapshot: bool
    batch: int
    retries: int | None
    on_dead: str
    takes_tx: bool
    takes_one: bool
    reader: ModelReader[Any] | None = None

    @classmethod
    def checked(  # noqa: PLR0913 (the options of `on`)
        cls,
        function: Callable[..., Any],
        names: tuple[str, ...],
        *,
        encoder: Encoder | None,
        consumer: str,
        name: str | None,
        where: Mapping[str, Any] | None,
        tables: bool,
        topics: Sequence[str] | None = None,
        **options: Any,
    ) -> Self:
        """Check what the user gave."""
        taken = _taken(function)
        reader: ModelReader[Any] | None = options.get("reader")
        check_annotation(function, taken[-1], None if reader is None else reader.model)
        condition = None if where is None else parse_where(where, encoder)
        selection = make_selection(names, condition, tables=tables, topics=topics)
        found = cls(
            function=function,
            name=_name_of(function) if name is None else name,
            consumer=check_consumer(consumer),
            names=names,
            where=where,
            tables=tables,
            topics=tuple(topics or ()),
            selection=selection,
            takes_tx="tx" in taken,
            takes_one="event" in taken,
            **options,
        )
        found.check()
        return found

    def check(self) -> None:
        """Refuse options that mean nothing."""
        if not isinstance(self.name, str) or not 0 < len(self.name) <= _LONGEST_NAME:
            raise ValueError(
                f"name must be a text of 1 to {_LONGEST_NAME} characters, got {short_repr(self.name)}: it is stored"
            )
        if not self.name.isprintable():
            raise ValueError(f"name must have only characters that can be printed, got {short_repr(self.name)}")
        check_at_least(1, "batch", self.batch)
        if self.retries is not None:
            check_at_least(0, "retries", self.retries)
        if self.on_dead not in _ON_DEAD:
            raise ValueError(f"on_dead must be {' or '.join(map(repr, _ON_DEAD))}, got {short_repr(self.on_dead)}")

    @property
    def title(self) -> str:
        """Its name for messages."""
        return f'handler "{self.name}" of consumer "{self.consumer}"'

    @property
    def described(self) -> str:
        """What it takes, and how its failures are treated, for people."""
        everything = "all collections and tables" if self.tables else "all collections"
        if self.selection.collections is not None:
            everything = ""
        names = [*(name for name in self.names if name != EVERY_COLLECTION)] or [everything]
        sources = [*filter(None, names), *(f"topic {topic}" for topic in self.topics)]
        taken = ("tx, " if self.takes_tx else "") + ("event" if self.takes_one else "events")
        retries = (
            "retries for ever"
            if self.retries is None
            else f"{self.retries} retr{'y' if self.retries == 1 else 'ies'}, then {self.on_dead}"
        )
        return (
            f"{self.name}({taken}) on {', '.join(sources)}{' where ...' if self.where else ''}, "
            f"batches of {self.batch:,}, {retries}"
        )

    @property
    def attempts(self) -> int | None:
        """How often one event is tried in all; `None` for ever."""
        return None if self.retries is None else self.retries + 1

    def wants(self, event: ChangeEvent) -> bool:
        """Whether the handler gets an event of its consumer."""
        covers, condition = self.selection.covers, self.selection.where
        if not covers(event.collection) and not (event.renamed_to is not None and covers(event.renamed_to)):
            return False
        return condition is None or condition.matches(events.to_be_compared(event))


def wanted_by(registrations: list[Registration]) -> dict[str, Any]:
    """Return what `watch` takes for what several handlers want together, with the `names`."""
    filters: list[Mapping[str, Any]] = [each.where for each in registrations if each.where is not None]
    where: Mapping[str, Any] | None = None
    if len(filters) == len(registrations):
        where = filters[0] if len(filters) == 1 else {"$or": filters}
    names = {name for each in registrations for name in each.selection.collections or ()}
    topics = {topic for each in registrations for topic in each.topics}
    has_all = any(each.selection.collections is None for each in registrations)
    return {
        "names": [EVERY_COLLECTION] if has_all else sorted(names),
        "topics": sorted(topics) or None,
        "tables": any(each.tables for each in registrations) or (has_all and any(map(is_table_name, names))),
        "where": where,
        "snapshot": any(each.snapshot for each in registrations),
    }


def check_handler(function: object) -> None:
    """Refuse what `Worker` can't call: a coroutine or a generator would never run."""
    if not callable(function) or any(look(function) for look in _LOOKS):
        raise TypeError(
            f"a handler must be a plain function, got {_found(function)}; AsyncWorker takes coroutine functions"
        )


def async_check_handler(function: object) -> None:
    """Refuse what `AsyncWorker` can't await."""
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"a handler must be a coroutine function, got {_found(function)}; Worker takes plain functions")


def _found(function: object) -> str:
    if not inspect.isfunction(function):
        return short_repr(function)
    is_plain = not any(look(function) for look in _LOOKS)
    kind = "coroutine function" if inspect.iscoroutinefunction(function) else "function" if is_plain else "generator"
    return f"the {kind} {_name_of(function)}"


def _taken(function: Callable[..., Any]) -> list[str]:
    """Return the names of the parameters that the worker passes."""
    parameters = inspect.signature(function).parameters.values()
    names = [each.replace(annotation=each.empty) for each in parameters]
    needed = [
        each.name for each in parameters if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    others = [each for each in parameters if each.default is each.empty and each.kind is each.KEYWORD_ONLY]
    if needed not in _SIGNATURES or others:
        known, found = ", ".join(f"({', '.join(each)})" for each in _SIGNATURES), ", ".join(map(str, names))
        raise TypeError(
            f"{_name_of(function)}({found}) is not a handler: its parameters must be one of {known}; "
            "with tx, its effect and its position commit together"
        )
    return needed


def _name_of(function: Callable[..., Any]) -> str:
    name: str = getattr(function, "__qualname__", type(function).__qualname__)
    return name.rpartition("<locals>.")[2]


def check_result(result: object) -> None:
    """Refuse what a handler returned, if that is work which nobody will do."""
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(
            f"the handler returned {type(result).__name__}, which nothing runs: AsyncWorker awaits coroutine functions"
        )
