"""The guard of document calls: a statement touches the table of a registered collection, or none."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pgdoc.database.errors import is_serialization_failure, one_line
from pgdoc.errors import CollectionNotFound, RegistryUnbound, SerializationFailure
from pgdoc.model.names import without_needless_quotes
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

__all__ = [
    "GuardedQuery",
    "TableTraits",
    "check_state",
    "explained",
    "guarded",
    "guarded_query",
    "missing",
    "replaced",
]

_SURE = {"PGD02", "42P01", "3F000"}


_TEXT_OF, _READABLE_TEXT_OF = "pg_catalog.text", "pgdoc.readable_text"


class GuardedQuery(NamedTuple):
    """A statement on a collection's table, in two parts: the guard comes between them.

    Attributes:
        plain: the parts of a statement that fails at a document that PostgreSQL can't print.
        safe: the parts of one that returns NULL for it, which takes a little longer; the same as `plain` if the
            statement returns no documents.
        writes: whether it needs the rights of a writer.
    """

    table: str
    plain: tuple[str, str]
    safe: tuple[str, str]
    writes: bool = False

    @property
    def prints(self) -> bool:
        """Whether the statement returns documents."""
        return self.plain != self.safe


class TableTraits(NamedTuple):
    """What the table of a collection has besides what pgdoc gave it.

    Attributes:
        may_drop: whether triggers, row policies or rules may keep a write from a row without an error.
        may_refuse: whether a unique index or a constraint, besides the primary key, may refuse a document.
    """

    may_drop: bool
    may_refuse: bool


def guarded_query(block: str, table: str, clauses: Mapping[str, Any]) -> GuardedQuery:
    """Fill in a block of SQL that has `{guard}` once. The clauses may contain any text, also this one."""
    before, guard, after = block.partition("{guard}")
    assert guard and "{guard}" not in after, block  # noqa: S101, PT018 (no statement goes without it)
    plain, safe = (
        (before.format(**given).lstrip(), after.format(**given).rstrip())
        for given in ({**clauses, "table": table, "text_of": text_of} for text_of in (_TEXT_OF, _READABLE_TEXT_OF))
    )
    return GuardedQuery(table, plain, safe)


def explained(query: GuardedQuery) -> GuardedQuery:
    """Return the statement that asks for the plan instead."""
    plain, safe = ((f"EXPLAIN {before}", after) for before, after in (query.plain, query.safe))
    return query._replace(plain=plain, safe=safe)


@lru_cache(maxsize=4096)
def guarded(query: GuardedQuery, oid: int, *, safe: bool = False) -> bytes:
    """Return the SQL of a statement that the server refuses with PGD02 or PGD04 unless its table has this oid."""
    before, after = query.safe if safe else query.plain
    guard = statement("documents", "guard").format(table=query.table, oid=oid)
    return f"{before}{guard}{after}".encode()


def check_state(state: str, table: str, subject: str) -> None:
    """Raise the reason why a table is not to be touched; `state` is as `find_table` of `catalog.sql` returns it.

    Raises:
        CollectionNotFound: it is not a collection.
        RegistryUnbound: this database can't tell.
        SerializationFailure: it is newer than what the transaction may see.
    """
    if state == "unbound":
        raise RegistryUnbound(
            f"{subject}: the registry of collections belongs to another database, because this one was upgraded, is a "
            "copy or was restored: as the catalog's owner, run `pgdoc upgrade finish` if it was prepared for an "
            "upgrade, else `pgdoc init`, or SELECT pgdoc.rebind()"
        )
    if state == "newer":
        raise SerializationFailure(
            f"{subject} is newer than this transaction's snapshot. Run the transaction again", sqlstate="40001"
        )
    if state not in {"collection", "missing"}:
        name = without_needless_quotes(table)
        raise CollectionNotFound(
            f"table {name} is not a collection: use another name, or make it one: SELECT pgdoc.register('{name}')"
        )


def missing(subject: str) -> CollectionNotFound:
    """Return the error for a collection that does not exist."""
    return CollectionNotFound(f"{subject} does not exist: create it with store.create_collection()")


def replaced(subject: str, exc: psycopg.Error | None = None) -> CollectionNotFound | SerializationFailure:
    """Return the error for a table that another one has replaced, where the call can't be repeated.

    `exc` is the error of the statement, which can have another reason.
    """
    if exc is not None and is_serialization_failure(exc):
        return SerializationFailure(
            f"{subject} was dropped or renamed, and another collection has its name now: run the transaction again",
            sqlstate=exc.sqlstate,
        )
    if exc is not None and exc.sqlstate not in _SURE:
        return CollectionNotFound(
            f"{subject}: {one_line(exc)}. If it was dropped, renamed or replaced by another table during this call or "
            "transaction, run it again"
        )
    return CollectionNotFound(
        f"{subject} was dropped, renamed or replaced by another table during this call or transaction: run it again"
    )
