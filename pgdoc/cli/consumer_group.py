"""What the commands of `pgdoc consumers` share: the options that may stand before or after the subcommand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import typer

from pgdoc.cli.output import make_table, print_json, print_table
from pgdoc.cli.render import render_bytes, render_delay
from pgdoc.cli.stores import open_store
from pgdoc.model.names import check_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from rich.table import Table

    import pgdoc
    from pgdoc import ConsumerStatus

__all__ = ["ConsumerGroup", "consumers_table", "print_consumers"]


@dataclass(frozen=True)
class ConsumerGroup:
    """The options of a command; those after the subcommand come first.

    Attributes:
        schema: only consumers of this one; `None` for any.
    """

    dsn: str
    schema: str | None
    json: bool

    def with_options(self, dsn: str, schema: str | None, *, json: bool) -> ConsumerGroup:
        """Return these options under those of a subcommand."""
        wanted = self.schema if schema is None else schema
        if wanted is not None:
            check_name(wanted, "schema")
        return replace(self, dsn=dsn or self.dsn, schema=wanted, json=json or self.json)

    def open_store(self) -> AbstractContextManager[pgdoc.Store]:
        """Open the store of the command."""
        return open_store("consumers", self.dsn)

    def consumers_of(self, store: pgdoc.Store) -> list[ConsumerStatus]:
        """Return the consumers that the command concerns."""
        return [consumer for consumer in store.consumers() if self.schema in {None, consumer.schema}]

    def has(self, store: pgdoc.Store, name: str) -> bool:
        """Return whether there is such a consumer."""
        return any(consumer.name == name for consumer in self.consumers_of(store))

    def unknown(self, name: str) -> typer.Exit:
        """Report a consumer that does not exist; return what to raise."""
        place = "" if self.schema is None else f" in schema {self.schema}"
        typer.echo(f"pgdoc: there is no consumer {name}{place}: `pgdoc consumers` lists them", err=True)
        return typer.Exit(1)


def print_consumers(consumers: Iterable[ConsumerStatus], *, json: bool) -> None:
    """Print the consumers as a table, or each as a line of JSON."""
    if not json:
        print_table(consumers_table(consumers))
        return
    for consumer in consumers:
        print_json(consumer)


def _state_of_slot(consumer: ConsumerStatus) -> str:
    if consumer.unreadable is not None:
        return f"can't read {consumer.unreadable}"
    reason = f" ({consumer.invalidation_reason})" if consumer.invalidation_reason else ""
    return f"{consumer.wal_status or 'gone'}{reason}"


def consumers_table(consumers: Iterable[ConsumerStatus]) -> Table:
    """Return a table with one row per consumer."""
    headings = ("consumer", "schema", "open", "behind", "lag", "WAL kept", "slot")
    return make_table(headings, map(_cells, consumers), right=("behind", "lag", "WAL kept"))


def _cells(consumer: ConsumerStatus) -> tuple[str, ...]:
    return (
        consumer.name,
        consumer.schema,
        "no" if consumer.owner_pid is None else f"pid {consumer.owner_pid}",
        render_delay(consumer.lag),
        render_bytes(consumer.lag_bytes),
        render_bytes(consumer.retained_bytes),
        _state_of_slot(consumer),
    )
