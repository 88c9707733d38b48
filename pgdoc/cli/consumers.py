"""Durable consumers as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from pgdoc.cli.render import render_bytes, render_delay

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc import ConsumerStatus

__all__ = ["consumers_table"]


def _state_of_slot(consumer: ConsumerStatus) -> str:
    if consumer.unreadable is not None:
        return f"can't read {consumer.unreadable}"
    return consumer.wal_status or "gone"


def consumers_table(consumers: Iterable[ConsumerStatus]) -> Table:
    """Return a table with one row per consumer."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("consumer", "schema", "open", "behind", "lag", "WAL kept", "slot"):
        table.add_column(heading, justify="right" if heading in {"behind", "lag", "WAL kept"} else "left")
    for consumer in consumers:
        table.add_row(
            escape(consumer.name),
            escape(consumer.schema),
            "no" if consumer.owner_pid is None else f"pid {consumer.owner_pid}",
            render_delay(consumer.lag),
            render_bytes(consumer.lag_bytes),
            render_bytes(consumer.retained_bytes),
            _state_of_slot(consumer),
        )
    return table
