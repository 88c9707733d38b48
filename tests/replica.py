"""The replica law: the events of a stream, applied to an empty dict, give exactly the table.

`programs` generates what four concurrent writers do and where the stream is cut; `run` runs a program and checks the
law.
"""

from __future__ import annotations

import json
import random
import threading
from collections import defaultdict
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import psycopg
from hypothesis import strategies as st
from psycopg import sql
from psycopg.types.json import Jsonb

import pgdoc
from pgdoc import Document, EventType, Store
from pgdoc.changes.diff import UpdateDescription, diff
from pgdoc.errors import DatabaseError, DuplicateDocument, InvalidUpdate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pgdoc import ChangeEvent, ResumeToken, Transaction

COLLECTIONS = ("orders", "Users-2")
END = "end"
WRITERS = 4
PATIENCE_S = 60.0
_NO_CHANGE = UpdateDescription({}, [], [], {})
_DEADLOCK = "40P01"
_QUICK_DEADLOCKS = "options='-c deadlock_timeout=20ms'"


class Step(NamedTuple):
    """One SQL statement or one call on a collection."""

    action: str
    collection: str
    key: str
    data: dict[str, Any]


class Savepoint(NamedTuple):
    """Steps in a savepoint, which is released or rolled back."""

    steps: list[Step]
    keep: bool


class Work(NamedTuple):
    """A transaction, which is committed or rolled back."""

    steps: list[Step | Savepoint]
    keep: bool
    metadata: dict[str, Any]


class Cut(NamedTuple):
    """One opening of the stream: how it is cut first, how many events it reads, and its buffer limits."""

    how: str
    events: int
    buffer_size: int
    buffer_bytes: int


class Program(NamedTuple):
    """The transactions of each writer, and the cuts of the stream."""

    writers: list[list[Work]]
    cuts: list[Cut]


# Documents and programs
# ----------------------------------------------------------------------------------------------------

_names = st.sampled_from(["a", "b", "a.b", "", "0", "01", "q\"u'o", "🦉", "é", "%s", "\\n", "$set", " "])
_leaves = st.sampled_from([None, True, False, 0, 1, -7, 2**53 + 1, 10**30, 0.5, "", "text", 'say "hi"', "🦉\n\t\\"])
_values = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3), max_leaves=5
)
_small = st.dictionaries(_names, _values, max_size=4)


def _documents(sizes: list[int]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate documents of one byte and more; large ones do not compress, so they are stored in TOAST."""
    noise = st.builds(_noise, st.sampled_from(sizes), st.integers(0, 9))
    padded = st.builds(lambda data, pad: data | {"pad": pad}, _small, noise)
    repeated = st.builds(lambda data: data | {"same": "x" * 20_000}, _small)
    return st.one_of(_small, _small, padded, repeated)


def _noise(size: int, seed: int) -> str:
    return random.Random(seed).randbytes(size // 2).hex()


def programs(*, works: int = 10, cuts: int = 6, sizes: tuple[int, ...] = (3_000, 40_000)) -> st.SearchStrategy[Program]:
    """Generate programs.

    Args:
        works: The most transactions per writer.
        cuts: The most cuts of the stream.
        sizes: The sizes of large documents, in bytes.
    """
    keys = st.sampled_from(["1", "2", "3", "a'b\"c", "🦉", "x" * 1000])
    steps = st.builds(
        Step, st.sampled_from(sorted(_ACTIONS)), st.sampled_from(COLLECTIONS), keys, _documents(list(sizes))
    )
    savepoints = st.builds(Savepoint, st.lists(steps, min_size=1, max_size=3), st.booleans())
    mostly = st.sampled_from([True, True, True, False])
    metadata: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.builds(lambda value: {"user": value}, _leaves)
    work = st.builds(Work, st.lists(steps | steps | savepoints, min_size=2, max_size=6), mostly, metadata)
    cut = st.builds(
        Cut,
        st.sampled_from(["close", "text", "store", "kill"]),
        st.integers(1, 40),
        st.sampled_from([1, 3, 20, 10_000]),
        st.sampled_from([1, 1 << 16, 64 << 20]),
    )
    writers = st.lists(st.lists(work, min_size=works // 2, max_size=works), min_size=WRITERS, max_size=WRITERS)
    return st.builds(Program, writers, st.lists(cut, min_size=cuts // 2, max_size=cuts))


# Writers ------------------------------------------------------------------------------------------------------------


def _insert(tx: Transaction, step: Step) -> None:
    with suppress(DuplicateDocument):
        tx[step.collection].insert(step.key, step.data)


def _insert_many(tx: Transaction, step: Step) -> None:
    tx[step.collection].insert_many((pgdoc.new_id(), step.data | {"n": n}) for n in range(5))


def _update(tx: Transaction, step: Step) -> None:
    with suppress(InvalidUpdate):
        changes = {"$set": {"a.n": 1, "set": step.data}, "$inc": {"count": 1}, "$unset": {"é": ""}}
        tx[step.collection].update(step.key, changes, upsert=len(step.data) > 1)


def _replace(tx: Transaction, step: Step) -> None:
    tx[step.collection].replace(step.key, step.data, upsert=len(step.data) > 1)


def _delete(tx: Transaction, step: Step) -> None:
    tx[step.collection].delete(step.key)


def _copy(tx: Transaction, step: Step) -> None:
    query = sql.SQL("COPY {} (id, data) FROM STDIN").format(sql.Identifier(step.collection))
    with tx.connection.cursor() as cursor, cursor.copy(query) as copy:
        for n in range(4):
            copy.write_row((f"copied {pgdoc.new_id()}", json.dumps(step.data | {"n": n})))


def _statement(text: str) -> Any:
    def execute(tx: Transaction, step: Step) -> None:
        query = sql.SQL(text).format(table=sql.Identifier(step.collection), other=sql.Identifier(COLLECTIONS[0]))
        tx.connection.execute(query, {"id": step.key, "data": Jsonb(step.data), "path": [*step.data, "a"][:1]})

    return execute


_ACTIONS = {
    "insert": _insert,
    "insert_many": _insert_many,
    "update": _update,
    "replace": _replace,
    "delete": _delete,
    "copy": _copy,
    "sql insert": _statement("INSERT INTO {table} (id, data) VALUES (%(id)s, %(data)s) ON CONFLICT DO NOTHING"),
    "sql rows": _statement(
        "INSERT INTO {table} (id, data) SELECT 'row ' || n, %(data)s FROM generate_series(1, 5) AS n ON CONFLICT (id) "
        "DO UPDATE SET data = excluded.data"
    ),
    "sql part": _statement("UPDATE {table} SET data = jsonb_set(data, %(path)s, '[1]') WHERE id = %(id)s"),
    "sql many": _statement("UPDATE {table} SET data = data || '{{\"many\": 1}}' WHERE id < %(id)s"),
    "sql touch": _statement("UPDATE {table} SET updated_at = updated_at WHERE id = %(id)s"),
    "sql whole": _statement(
        "UPDATE {table} SET data = %(data)s, replaced_version = version + 1 WHERE id >= %(id)s AND id < 'row'"
    ),
    "sql delete": _statement("DELETE FROM {table} WHERE id >= %(id)s AND id LIKE 'row%%'"),
    "truncate": _statement("TRUNCATE {other}"),
}


def _write(store: Store, works: list[Work], metadata_by_xid: dict[int, dict[str, Any]]) -> None:
    """Run a writer's transactions; one that fails with a deadlock counts as rolled back."""
    for work in works:
        try:
            with store.transaction(metadata=work.metadata) as tx:
                for step in work.steps:
                    _do(tx, step)
                row = tx.connection.execute("SELECT pg_current_xact_id_if_assigned()::text::bigint").fetchone()
                if not work.keep:
                    raise psycopg.Rollback
        except psycopg.errors.DeadlockDetected:
            continue
        except DatabaseError as exc:
            if exc.sqlstate != _DEADLOCK:
                raise
            continue
        if work.keep and row and row[0] is not None:
            metadata_by_xid[row[0]] = work.metadata


def _do(tx: Transaction, step: Step | Savepoint) -> None:
    if isinstance(step, Step):
        _ACTIONS[step.action](tx, step)
        return
    with tx.connection.transaction(force_rollback=not step.keep):
        for inner in step.steps:
            _do(tx, inner)


class Writers:
    """A context manager that runs all writers of a program concurrently, then inserts the end mark."""

    def __init__(self, dsn: str, schema: str, works: list[list[Work]]) -> None:
        self.metadata_by_xid: dict[int, dict[str, Any]] = {}
        self._errors: list[BaseException] = []
        self._conninfo = f"{dsn} {_QUICK_DEADLOCKS[:-1]} -c search_path={schema}'"
        self._schema = schema
        self._works = works
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._thread.join()
        if self._errors:
            raise self._errors[0]

    def _run(self) -> None:
        with Store(self._conninfo, schema=self._schema) as store:
            threads = [threading.Thread(target=self._write, args=(store, works)) for works in self._works]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            store[END].insert(END, {})

    def _write(self, store: Store, works: list[Work]) -> None:
        try:
            _write(store, works, self.metadata_by_xid)
        except BaseException as exc:  # noqa: BLE001 (raised where the threads are joined)
            self._errors.append(exc)


# The stream ---------------------------------------------------------------------------------------------------------


def follow(dsn: str, schema: str, start: ResumeToken, cuts: Iterable[Cut]) -> Iterator[ChangeEvent]:
    """Yield all events after `start` up to the end mark, from streams that are cut and resumed."""
    token: ResumeToken | str = start
    with ExitStack() as stack, psycopg.connect(dsn, autocommit=True) as admin:
        store = stack.enter_context(Store(dsn, schema=schema))
        for cut in [*cuts, Cut("close", 1 << 60, 10_000, 64 << 20)]:
            if cut.how == "store":
                store.close()
                store = stack.enter_context(Store(dsn, schema=schema))
            with store.watch(resume_after=token, buffer_size=cut.buffer_size, buffer_bytes=cut.buffer_bytes) as stream:
                if cut.how == "kill":
                    _kill_walsenders(admin)
                for _ in range(cut.events):
                    event = stream.next(timeout=PATIENCE_S)
                    assert event is not None, f"no event within {PATIENCE_S:.0f} s"
                    if event.collection == END:
                        return
                    yield event
                token = str(stream.resume_token) if cut.how == "text" else stream.resume_token


def _kill_walsenders(admin: psycopg.Connection) -> None:
    admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE backend_type = 'walsender' AND datname = current_database()"
    )


# The law ------------------------------------------------------------------------------------------------------------


class Replica:
    """The documents that the events produce; checks every invariant between consecutive events."""

    def __init__(self) -> None:
        self.collections: defaultdict[str, dict[str, Document]] = defaultdict(dict)
        self.metadata_by_xid: dict[int, dict[str, Any]] = {}
        self._token: ResumeToken | None = None
        self._transaction = (0, None)

    def apply(self, event: ChangeEvent) -> None:
        """Check and apply the next event."""
        assert self._token is None or self._token < event.resume_token, (
            "the resume token is not after that of the previous event"
        )
        self._check_transaction(event)
        self._token = event.resume_token
        if event.document_id is None:
            self._apply_to_all(event)
            return
        documents = self.collections[event.collection]
        held = documents.pop(event.document_id, None)
        before, after = event.full_document_before_change, event.full_document
        assert held == before, "the before image differs from the after image of the previous change"
        if after is not None:
            assert after.version == (held.version if held else 0) + 1
            assert after.id == event.document_id
            documents[event.document_id] = after
        self._check_diff(event, before, after)

    def _apply_to_all(self, event: ChangeEvent) -> None:
        documents = self.collections.pop(event.collection, {})
        if event.event_type is EventType.CREATE:
            assert not documents, "a create event for a collection that exists"
        elif event.event_type is EventType.RENAME:
            assert event.renamed_to is not None
            assert not self.collections[event.renamed_to], "a rename event to the name of another collection"
            self.collections[event.renamed_to] = documents
        else:
            assert event.event_type in {EventType.TRUNCATE, EventType.DROP, EventType.INVALIDATE}

    def _check_transaction(self, event: ChangeEvent) -> None:
        """Check that the changes of a transaction are consecutive and have equal metadata."""
        if self._token is not None and self._token.lsn == event.resume_token.lsn:
            assert self.metadata_by_xid[event.transaction_id] == event.metadata
        else:
            assert event.transaction_id not in self.metadata_by_xid, "the events of a transaction are not consecutive"
            self.metadata_by_xid[event.transaction_id] = event.metadata

    def _check_diff(self, event: ChangeEvent, before: Document | None, after: Document | None) -> None:
        description = event.update_description
        if event.event_type is not EventType.UPDATE:
            assert description is None
            return
        assert before is not None
        assert after is not None
        assert description is not None
        assert diff(description.apply(before.data), after.data) == _NO_CHANGE


def table(dsn: str, schema: str, collection: str) -> dict[str, Document]:
    """Read a collection with plain SQL."""
    query = sql.SQL("SELECT id, data::text, version, created_at, updated_at FROM {}")
    with psycopg.connect(dsn, options="-c timezone=UTC") as connection:
        rows = connection.execute(query.format(sql.Identifier(schema, collection))).fetchall()
    return {row[0]: Document(row[0], json.loads(row[1]), *row[2:]) for row in rows}


def run(dsn: str, schema: str, program: Program) -> int:
    """Run a program and check the law; return the number of events."""
    replica = Replica()
    count = 0
    with Store(dsn, schema=schema) as store, store.watch(*COLLECTIONS) as stream:
        start = stream.resume_token
    with Writers(dsn, schema, program.writers) as writers:
        for event in follow(dsn, schema, start, program.cuts):
            replica.apply(event)
            count += 1
    for name in COLLECTIONS:
        assert replica.collections[name] == table(dsn, schema, name)
    for xid, metadata in replica.metadata_by_xid.items():
        assert writers.metadata_by_xid[xid] == metadata
    return count
