"""Opens streams and creates consumers, and reports collections, consumers and schemas that do not exist."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from pgdoc.cli.arguments import invalid_where
from pgdoc.cli.stores import DEFAULT_SCHEMA
from pgdoc.database.table_errors import not_added
from pgdoc.errors import (
    CollectionNotFound,
    ConsumerBusy,
    HistoryLost,
    PgdocError,
    PublicationIncomplete,
    ReplicaIdentityChanged,
    StreamError,
)
from pgdoc.model.names import check_consumer
from pgdoc.model.table_names import is_table_name
from pgdoc.sql import statement

if TYPE_CHECKING:
    import pgdoc

__all__ = [
    "create_consumer",
    "explain_missing",
    "has_schema",
    "missing_collections",
    "open_stream",
    "schema_not_found",
]


def open_stream(
    store: pgdoc.Store, schema: str, names: list[str], options: dict[str, Any], *, create: bool
) -> pgdoc.ChangeStream:
    """Open a stream without waiting for a consumer that another process has open.

    Without `create`, everything that the command line names must exist, so that a typo creates nothing.
    """
    start, consumer = options["resume_after"], options["consumer"]
    is_new = consumer is not None and not _has_consumer(store, consumer)
    if not create:
        _check_names(store, schema, [] if start else names, consumer if is_new else None)
    elif not start and (consumer is None or is_new) and missing_collections(store, names):
        _check_streams(store)
    try:
        with invalid_where():
            return store.watch(*names, **options, wait=False)
    except ConsumerBusy as exc:
        raise _busy(consumer, exc) from exc
    except HistoryLost as exc:
        if start is None or (consumer is not None and not is_new):
            raise
        raise _out_of_reach(start, exc) from exc
    except CollectionNotFound as exc:
        absent = missing_collections(store, names)
        if create or not absent:
            raise
        raise explain_missing(store, schema, absent[0], ", or pass --create to create it") from exc
    except PgdocError:
        raise
    except ValueError as exc:  # the only one that options of this command can cause
        advice = "pass a token to --from, or leave out --from or --snapshot"
        raise typer.BadParameter(
            f"an LSN does not record the progress of a snapshot: {advice}", param_hint="'--from'"
        ) from exc


def create_consumer(  # noqa: PLR0913 (what the command line names)
    store: pgdoc.Store, schema: str, name: str, names: list[str], options: dict[str, Any], *, create: bool
) -> bool:
    """Create a consumer without opening it; return whether it was created now.

    Without `create`, the collections of a new consumer must exist, so that a typo creates nothing.
    """
    if not _has_consumer(store, name):
        if not create:
            _check_schema(store, schema)
            _check_collections(store, schema, names)
        elif missing_collections(store, names):
            _check_streams(store)
    with invalid_where():
        return store.create_consumer(name, *names, **options)


def _check_names(store: pgdoc.Store, schema: str, names: list[str], new_consumer: str | None) -> None:
    _check_schema(store, schema)
    if new_consumer is None:
        return  # opening the stream reports a missing collection
    _check_collections(store, schema, names)
    raise StreamError(
        f'consumer "{new_consumer}" does not exist: check the name (`pgdoc consumers` lists them), or pass --create'
    )


def _check_schema(store: pgdoc.Store, schema: str) -> None:
    if not has_schema(store, schema):
        raise schema_not_found(schema, ", or pass --create")


def _check_collections(store: pgdoc.Store, schema: str, names: list[str]) -> None:
    for name in missing_collections(store, names):
        if is_table_name(name):
            raise not_added(name)
        raise explain_missing(store, schema, name, ", or pass --create to create it")


def _has_consumer(store: pgdoc.Store, name: str) -> bool:
    check_consumer(name)
    return any(each.name == name for each in store.consumers())


def _check_streams(store: pgdoc.Store) -> None:
    """Raise the error of a server where streams do not work, before a collection is created there."""
    with suppress(ReplicaIdentityChanged, PublicationIncomplete), store.watch():  # faults of other collections
        pass


def _busy(consumer: str, error: ConsumerBusy) -> ConsumerBusy:
    session = "" if error.owner_pid is None else f" (its session has pid {error.owner_pid})"
    return ConsumerBusy(
        f'consumer "{consumer}" is open elsewhere{session}: end the program that has it open, or use another consumer',
        owner_pid=error.owner_pid,
    )


def _out_of_reach(start: str, error: HistoryLost) -> HistoryLost:
    oldest = error.oldest_available
    found = "no history is kept" if oldest is None else f"the oldest position that is kept is {oldest}"
    return HistoryLost(
        f"a stream can't resume at {start}: {found}. Start without --from, and with --snapshot if you need the "
        "documents that exist; `pgdoc history` shows how far back a stream can resume",
        oldest_available=oldest,
    )


def explain_missing(store: pgdoc.Store, schema: str, name: str, advice: str = "") -> CollectionNotFound:
    """Return the error for a collection that does not exist: a wrong name, a wrong schema, or a table of that name."""
    try:
        store[name].get("any id")
    except CollectionNotFound as found:
        if not str(found).startswith(f'collection "{schema}.{name}" does not exist'):
            return found  # a table that is not a collection, which --create could not create either
    if not has_schema(store, schema):
        return schema_not_found(schema, advice)
    option = "" if schema == DEFAULT_SCHEMA else f" --schema {schema}"
    check = f"check the name (`pgdoc collections{option}` lists all)"
    return CollectionNotFound(f'collection "{schema}.{name}" does not exist: {check}{advice}')


def missing_collections(store: pgdoc.Store, names: list[str]) -> list[str]:
    """Return the names, sorted, of which there is no collection or watched table."""
    tables = [table.name for table in store.tables()] if any(map(is_table_name, names)) else []
    return sorted(set(names).difference(store.collections(), tables, {"*"})) if names else []


def has_schema(store: pgdoc.Store, schema: str) -> bool:
    """Return whether the schema exists; the default one counts as existing, since the first collection creates it."""
    if schema == DEFAULT_SCHEMA:
        return True
    with store.transaction() as tx:
        row = tx.connection.execute(statement("catalog", "schema_exists").encode(), [schema]).fetchone()
    return row is not None and bool(row[0])


def schema_not_found(schema: str, advice: str = "") -> CollectionNotFound:
    """Return the error for a schema that does not exist."""
    return CollectionNotFound(f'schema "{schema}" does not exist: check the name{advice}')
