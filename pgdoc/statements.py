"""The SQL of the document calls, put together once for each table and kind of call."""

from __future__ import annotations

from functools import lru_cache

from pgdoc.sql import statement

__all__ = ["call_statement", "first_condition", "read_statement", "write_statement"]


_NO_CLAUSES = dict.fromkeys(("change", "first", "condition", "order", "skip_locked"), "")


@lru_cache(maxsize=1024)
def write_statement(name: str, table: str, *, carry: bool, versioned: bool = False, **clauses: str) -> bytes:
    """Return a write of `documents.sql`.

    Args:
        name: of its block.
        table: the collection's table, quoted.
        carry: whether it takes the message with the writer's metadata along, as its first parameter.
        versioned: whether it asks for a version, after the id.
        **clauses: what else the block has a place for, as SQL: `change`, an expression over `data` that gives the new
            data; `first`, the data of a new document; `condition` and `order`, over `id` and `data`; `skip_locked`.
    """
    clauses["order"] = f"ORDER BY {clauses['order']}" if clauses.get("order") else ""
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


def first_condition(table: str, *, condition: str, order: str, skip_locked: str = "") -> str:
    """Return the condition that only the first document meets of those that meet `condition`; it is locked."""
    order = f"ORDER BY {order}" if order else ""
    return statement("documents", "first").format(
        table=table, condition=condition, order=order, skip_locked=skip_locked
    )


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
