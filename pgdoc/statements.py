"""The SQL of the document calls, put together once for each table and kind of call."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CHANGING", "CLAIMING", "call_statement", "first_statement", "read_statement", "write_statement"]


CHANGING: Final = "FOR NO KEY UPDATE"
CLAIMING: Final = "FOR NO KEY UPDATE SKIP LOCKED"
"""How the first document is locked."""

_NO_CLAUSES = dict.fromkeys(("change", "first", "condition"), "")


@lru_cache(maxsize=1024)
def write_statement(name: str, table: str, *, carry: bool, versioned: bool = False, **clauses: str) -> bytes:
    """Return a write of `documents.sql`.

    Args:
        name: of its block.
        table: the collection's table, quoted.
        carry: whether it takes the message with the writer's metadata along, as its first parameter.
        versioned: whether it asks for a version, after the id.
        **clauses: what else the block has a place for, as SQL: `change`, an expression over `data` that gives the new
            data; `first`, the data of a new document, or the SELECT of the first one; `condition`, over `id` and
            `data`.
    """
    carried = statement("documents", "carry")
    return (
        statement("documents", name)
        .format(
            table=table,
            carry=carried if carry else "",
            with_carry=f"{carried}," if carry else "WITH",
            and_carry=", carried" if carry else "",
            from_carry="FROM carried" if carry else "",
            using_carry="USING carried" if carry else "",
            and_version="AND version = %s" if versioned else "",
            **{**_NO_CLAUSES, **clauses},
        )
        .strip()
        .encode()
    )


def first_statement(table: str, conditions: Sequence[str], *, order: str, lock: str, in_turn: bool) -> str:
    """Return the SELECT of the first document, locked; after the first condition each takes its parameters twice.

    Args:
        table: the collection's table, quoted.
        conditions: SQL conditions over `id` and `data`, of which a document meets one at most.
        order: what to sort by, as SQL; empty for any order.
        lock: the clause FOR UPDATE, or one like it.
        in_turn: whether all documents of one condition come before those of the next; then each takes its parameters
            once.
    """
    order = f"ORDER BY {order}" if order else ""
    one = statement("documents", "one")
    first, *rest = conditions
    if not in_turn:  # else the order's index might be read to its end for them; OFFSET 0 would lock them all
        rest = [f"({part}) AND id = ANY (ARRAY(SELECT id FROM {table} WHERE {part}))" for part in rest]
    texts = [one.format(table=table, condition=part, order=order, lock=lock) for part in (first, *rest)]
    if not rest:
        return texts[0]
    branches = " UNION ALL ".join(f"SELECT * FROM ({text}) AS branch" for text in texts)
    return f"SELECT * FROM ({branches}) AS branches {'' if in_turn else order} LIMIT 1"


def call_statement(name: str, *, carry: bool) -> bytes:
    """Return a call of `catalog.sql` on a collection.

    Args:
        name: of its block.
        carry: whether it takes the message with the writer's metadata along, as its first parameter.
    """
    call = statement("catalog", name)
    return (f"{statement('documents', 'carry')} {call} FROM carried" if carry else call).encode()


@lru_cache(maxsize=1024)
def read_statement(name: str, table: str, *, change: str = "") -> bytes:
    """Return a read of `documents.sql`.

    Args:
        name: of its block.
        table: the collection's table, quoted.
        change: as for `write_statement`.
    """
    return statement("documents", name).format(table=table, change=change).encode()
