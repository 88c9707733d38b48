"""The durable consumers of a database, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from pgdoc.cli.render import render_bytes, render_delay

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc import ConsumerStatus

__all__ = ["table"]


def table(consumers: Iterable[ConsumerStatus]) -> Table:
    """Give one row a consumer."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("consumer", "schema", "open", "behind", "lag", "WAL kept", "slot"):
        made.add_column(heading, justify="right" if heading in {"behind", "lag", "WAL kept"} else "left")
    for consumer in consumers:
        made.add_row(
            escape(consumer.name),
            escape(consumer.schema),
            "no" if consumer.owner_pid is None else f"pid {consumer.owner_pid}",
            render_delay(consumer.lag),
            render_bytes(consumer.lag_bytes),
            render_bytes(consumer.retained_bytes),
            consumer.wal_status or "gone",
        )
    return made
