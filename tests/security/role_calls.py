"""Every call of the library, and the commands that matter, as the rows of the table in `docs/reference/roles.md`.

Each call returns only if it worked.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

import pgdoc
from pgdoc.cli.app import run_cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from pgdoc import Store

PATIENCE_S = 30.0


class RefusedError(pgdoc.PgdocError):
    """A command ended with another exit code than 0; the text is what it printed."""


@dataclass
class Scene:
    """One role in a database where `owner` has the collection `orders`, and the watched table `items`."""

    role: str
    dsn: str
    schema: str
    store: Store
    owner: Store
    superuser: psycopg.Connection[Any]
    folder: Path
    capsys: pytest.CaptureFixture[str]
    number: int = 0

    @property
    def orders(self) -> Any:
        return self.store["orders"]

    def new_name(self) -> str:
        """A name that no other call has used."""
        self.number += 1
        return f"made_{self.number}"

    def existing(self) -> str:
        """A collection of the owner for this call alone."""
        name = self.new_name()
        self.owner.create_collection(name)
        return name

    def cli(self, *arguments: str, dsn: str = "") -> str:
        """Run a command as the role; return what it printed."""
        self.capsys.readouterr()
        code = run_cli([*arguments, "--dsn", dsn or self.dsn, "--schema", self.schema])
        printed = self.capsys.readouterr()
        if code:
            raise RefusedError(printed.err + printed.out)
        return printed.out


def _insert(scene: Scene) -> None:
    scene.orders.insert(pgdoc.new_id(), {"a": 1})


def _explain(scene: Scene) -> None:
    assert scene.orders.explain({"a": 1})


def _drop_index(scene: Scene) -> None:
    scene.owner["orders"].create_index("b", name="of_b")
    assert scene.orders.drop_index("of_b")


def _get_in_transaction(scene: Scene) -> None:
    with scene.store.transaction() as tx:
        assert tx["orders"].get("o-1") is not None


def _insert_in_transaction(scene: Scene) -> None:
    with scene.store.transaction(metadata={"user": "bob"}) as tx:
        tx["orders"].insert(pgdoc.new_id(), {})


def _run(scene: Scene) -> None:
    scene.store.run(lambda tx: tx["orders"].insert(pgdoc.new_id(), {}))


def _publish_in_transaction(scene: Scene) -> None:
    with scene.store.transaction() as tx:
        tx.publish("order.shipped", {})


def _bulk(scene: Scene, *, ordered: bool = True) -> None:
    with scene.store.bulk(ordered=ordered) as bulk:
        bulk["orders"].insert(pgdoc.new_id(), {})


def _add_table(scene: Scene) -> None:
    name = scene.new_name()
    with psycopg.connect(scene.owner._conninfo, autocommit=True) as owner:
        owner.execute(f'CREATE TABLE "{scene.schema}".{name} (id int PRIMARY KEY)'.encode())
    assert scene.store.add_table(f"{scene.schema}.{name}")


def _remove_table(scene: Scene) -> None:
    scene.owner.add_table(f"{scene.schema}.items")
    try:
        assert scene.store.remove_table(f"{scene.schema}.items")
    finally:
        scene.owner.add_table(f"{scene.schema}.items")


def _read_one(scene: Scene, *names: str, write: str | None = "orders", **options: Any) -> pgdoc.ChangeEvent:
    with scene.store.watch(*names, **options) as stream:
        if write is not None:
            scene.owner[write].insert(pgdoc.new_id(), {})
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        return event


def _holds(result: pgdoc.LiveQuery | pgdoc.LiveAggregate[Any] | pgdoc.Mirror) -> None:
    """Open and close a result that is kept up to date; it has read the documents when it is open."""
    with result:
        assert result.resume_token is not None


def _watch_after(scene: Scene) -> None:
    lsn = scene.superuser.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    assert lsn is not None
    with scene.store.watch("orders") as stream:
        token = stream.resume_token
    scene.owner["orders"].insert(pgdoc.new_id(), {})
    assert _read_one(scene, "orders", write=None, resume_after=token)


def _watch_table(scene: Scene) -> None:
    event = _read_one(scene, f"{scene.schema}.items", write=None, snapshot=True)
    assert event.event_type is pgdoc.EventType.SNAPSHOT


def _consume(scene: Scene) -> None:
    _read_one(scene, "orders", consumer="of_role", wait=False)


def _ack(scene: Scene) -> None:
    with scene.store["orders"].watch(consumer="of_role", wait=False, auto_ack=False) as stream:
        scene.owner["orders"].insert(pgdoc.new_id(), {})
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        stream.ack(event)


def _checkpoint(scene: Scene) -> None:
    with scene.store["orders"].watch(consumer="of_role", wait=False) as stream:
        scene.owner["orders"].insert(pgdoc.new_id(), {})
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        with scene.store.transaction() as tx:
            stream.checkpoint(event, tx)


def _create_consumer(scene: Scene) -> None:
    assert scene.store.create_consumer("of_deploy", "orders")


def _create_consumer_by_command(scene: Scene) -> None:
    assert scene.cli("consumers", "create", "of_script", "orders") == "Created consumer of_script.\n"


class _Ends(logging.Handler):
    """Stops a worker that logs that it goes on after an error, and keeps what it said."""

    def __init__(self, worker: pgdoc.Worker) -> None:
        super().__init__(logging.ERROR)
        self._worker = worker
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        self._worker.stop()


def work(scene: Scene) -> list[str]:
    """Run a worker until its handler has had an event, or until it has logged an error; return the errors."""
    worker = pgdoc.Worker(scene.store)

    @worker.on("orders", consumer="of_worker", name="handle")
    def handle(event: pgdoc.ChangeEvent) -> None:
        assert event.collection == "orders"
        worker.stop()

    worker.declare()
    scene.owner["orders"].insert(pgdoc.new_id(), {})
    logger, ends = logging.getLogger("pgdoc.worker"), _Ends(worker)
    logger.addHandler(ends)
    try:
        worker.run()
    finally:
        logger.removeHandler(ends)
    return ends.said


def _drop_consumer(scene: Scene) -> None:
    scene.store.drop_consumer("of_nobody")


def _recreate(scene: Scene) -> None:
    """Of a consumer that the role has, if it can have one."""
    with contextlib.suppress(pgdoc.PgdocError):
        scene.store["orders"].watch(consumer="lost", wait=False).close()
    scene.store.recreate_consumer("lost")


def _skip(scene: Scene) -> None:
    """As after an `UnreadableChange`."""
    scene.superuser.execute(
        "INSERT INTO pgdoc.consumers (name, schema_name, epoch, place, system_id, timeline, database_oid) "
        "VALUES ('stuck', 'docs', 0, '{1,1,0,0}', 1, 1, 1)"
    )
    scene.superuser.execute(
        "INSERT INTO pgdoc.unreadable (consumer, commit_lsn, lsn, collections, problem) "
        "VALUES ('stuck', '0/1', '0/1', '{}', '')"
    )
    try:
        scene.store.skip("stuck", commit_lsn="0/1")
    finally:
        scene.superuser.execute("DELETE FROM pgdoc.consumers WHERE name = 'stuck'")


def _wait_for(scene: Scene) -> None:
    """For a position that a consumer of the role, if it can have one, has passed already."""
    with contextlib.suppress(pgdoc.PgdocError):
        scene.store["orders"].watch(consumer="waited_for", wait=False).close()
    scene.store.wait_for("waited_for", "0/1", timeout=PATIENCE_S)


def _migrate(scene: Scene) -> None:
    """As before an upgrade: the catalog is at an older revision."""
    revision = scene.superuser.execute("SELECT version_num FROM pgdoc.alembic_version").fetchone()
    scene.superuser.execute("UPDATE pgdoc.alembic_version SET version_num = '0010'")
    try:
        scene.store.migrate()
    finally:
        assert revision is not None
        scene.superuser.execute("UPDATE pgdoc.alembic_version SET version_num = %s", revision)


def _init(scene: Scene) -> None:
    scene.superuser.execute("DROP DATABASE IF EXISTS pgdoc_empty_for_roles")
    scene.superuser.execute("CREATE DATABASE pgdoc_empty_for_roles TEMPLATE template0")
    try:
        scene.cli("init", dsn=psycopg.conninfo.make_conninfo(scene.dsn, dbname="pgdoc_empty_for_roles"))
    finally:
        scene.superuser.execute("DROP DATABASE pgdoc_empty_for_roles WITH (FORCE)")


def _load(scene: Scene) -> None:
    file = scene.folder / "documents.json"
    file.write_text(f'{{"_id": "{pgdoc.new_id()}"}}\n')
    scene.cli("load", str(file), "orders")


def _expire(scene: Scene) -> None:
    scene.cli("ttl", "run", "sessions", "--once")


def _watch_in_a_terminal(scene: Scene) -> None:
    """The command runs until Ctrl-C, so this opens what it opens."""
    from pgdoc.cli.opening import open_stream  # noqa: PLC0415 (one call)

    options = {"tables": False, "where": None, "snapshot": False, "resume_after": None, "consumer": None}
    with open_stream(scene.store, scene.schema, ["orders"], options, create=False):
        pass


def _grant_on(scene: Scene) -> None:
    scene.cli("grant", "pgdoc_nobody_yet", "--as", "writer", "--run")


CALLS: dict[str, Callable[[Scene], object]] = {
    "`collection.get`": lambda scene: scene.orders.get("o-1"),
    "`collection.find`": lambda scene: list(scene.orders.find({"a": {"$gt": 0}}, sort="a")),
    "`collection.find_one`": lambda scene: scene.orders.find_one({"a": 1}),
    "`collection.count`": lambda scene: scene.orders.count({"a": 1}),
    "`collection.distinct`": lambda scene: scene.orders.distinct("a"),
    "`collection.explain`": _explain,
    "`collection.indexes`": lambda scene: scene.orders.indexes(),
    "`collection.validate`": lambda scene: list(scene.orders.validate({"type": "object"})),
    "`collection.insert`": _insert,
    "`collection.insert_many`": lambda scene: scene.orders.insert_many([(pgdoc.new_id(), {})]),
    "`collection.update`": lambda scene: scene.orders.update("o-1", {"$inc": {"n": 1}}),
    "`collection.update_one`": lambda scene: scene.orders.update_one({"_id": "o-1"}, {"$inc": {"n": 1}}),
    "`collection.update_many`": lambda scene: scene.orders.update_many({"_id": "o-1"}, {"$inc": {"n": 1}}),
    "`collection.replace`": lambda scene: scene.orders.replace("o-1", {"a": 1}),
    "`collection.replace_one`": lambda scene: scene.orders.replace_one({"_id": "o-1"}, {"a": 1}),
    "`collection.delete`": lambda scene: scene.orders.delete("o-0"),
    "`collection.delete_one`": lambda scene: scene.orders.delete_one({"_id": "o-0"}),
    "`collection.delete_many`": lambda scene: scene.orders.delete_many({"_id": "o-0"}),
    "`collection.create_index`": lambda scene: scene.orders.create_index("a"),
    "`collection.drop_index`": _drop_index,
    "`collection.set_limits`": lambda scene: scene.orders.set_limits(max_size=1 << 20, json_schema={"type": "object"}),
    "`collection.insert` into a collection that does not exist": lambda scene: scene.store[scene.new_name()].insert(
        "1", {}
    ),
    "`collection.watch`": lambda scene: _read_one(scene, "orders"),
    "`collection.live`": lambda scene: _holds(scene.orders.live({"a": 1}, sort="-b", limit=2)),
    "`collection.live_count`": lambda scene: _holds(scene.orders.live_count({"a": 1})),
    "`collection.live_sum`": lambda scene: _holds(scene.orders.live_sum("a")),
    "`collection.live_average`": lambda scene: _holds(scene.orders.live_average("a")),
    "`collection.mirror`": lambda scene: _holds(scene.orders.mirror()),
    "`tx.get` in `store.transaction`": _get_in_transaction,
    "`tx.insert` in `store.transaction`": _insert_in_transaction,
    "`tx.publish` in `store.transaction`": _publish_in_transaction,
    "`store.run`": _run,
    "`store.bulk`": _bulk,
    "`store.bulk(ordered=False)`": lambda scene: _bulk(scene, ordered=False),
    "`store.publish`": lambda scene: scene.store.publish("order.shipped", {}),
    "`store.collections`": lambda scene: scene.store.collections(),
    "`store.create_collection`": lambda scene: scene.store.create_collection(scene.new_name()),
    "`store.rename_collection`": lambda scene: scene.store.rename_collection(scene.existing(), scene.new_name()),
    "`store.drop_collection`": lambda scene: scene.store.drop_collection(scene.existing()),
    "`store.tables`": lambda scene: scene.store.tables(),
    "`store.check_table`": lambda scene: scene.store.check_table(f"{scene.schema}.items"),
    "`store.add_table`, of a table that the owner owns": _add_table,
    "`store.remove_table`, of the same": _remove_table,
    "`store.watch`": _read_one,
    "`store.watch(snapshot=True)`": lambda scene: _read_one(scene, "orders", write=None, snapshot=True),
    "`store.watch(snapshot=True)` of a watched table": _watch_table,
    "`store.watch(resume_after=...)`": _watch_after,
    "`store.watch(consumer=...)`": _consume,
    "`store.live`": lambda scene: _holds(scene.store.live(f"{scene.schema}.items")),
    "`store.live_count`": lambda scene: _holds(scene.store.live_count(f"{scene.schema}.items")),
    "`store.live_sum`": lambda scene: _holds(scene.store.live_sum("orders", "a")),
    "`store.live_average`": lambda scene: _holds(scene.store.live_average("orders", "a")),
    "`store.mirror`": lambda scene: _holds(scene.store.mirror(f"{scene.schema}.items")),
    "`stream.ack`": _ack,
    "`stream.checkpoint` in a transaction of the same role": _checkpoint,
    "`store.consumers`": lambda scene: scene.store.consumers(),
    "`store.create_consumer`": _create_consumer,
    "`store.drop_consumer`": _drop_consumer,
    "`store.recreate_consumer`": _recreate,
    "`store.skip`": _skip,
    "`store.now`": lambda scene: scene.store.now(),
    "`store.wait_for`": _wait_for,
    "`worker.run` of a handler without a transaction": work,
    "`store.dead_letters`": lambda scene: scene.store.dead_letters(),
    "`store.retry_dead_letters`": lambda scene: scene.store.retry_dead_letters(consumer="audit"),
    "`store.drop_dead_letters`": lambda scene: scene.store.drop_dead_letters(consumer="audit"),
    "`store.history`": lambda scene: scene.store.history(),
    "`store.set_history`": lambda scene: scene.store.set_history(size=1 << 30),
    "`store.status`": lambda scene: scene.store.status(),
    "`store.migrate` of an older catalog": _migrate,
    "`pgdoc init` of a new database": _init,
    "`pgdoc collections`": lambda scene: scene.cli("collections"),
    "`pgdoc status`": lambda scene: scene.cli("status"),
    "`pgdoc history`": lambda scene: scene.cli("history"),
    "`pgdoc dump`": lambda scene: scene.cli("dump", "orders"),
    "`pgdoc load`": _load,
    "`pgdoc limit`": lambda scene: scene.cli("limit", "orders", "32MiB"),
    "`pgdoc ttl run --once`": _expire,
    "`pgdoc watch`": _watch_in_a_terminal,
    "`pgdoc tables list`": lambda scene: scene.cli("tables", "list"),
    "`pgdoc consumers list`": lambda scene: scene.cli("consumers", "list"),
    "`pgdoc consumers create`": _create_consumer_by_command,
    "`pgdoc consumers prune`": lambda scene: scene.cli("consumers", "prune", "--older-than", "7d"),
    "`pgdoc dead-letters list`": lambda scene: scene.cli("dead-letters", "list", "--consumer", "audit"),
    "`pgdoc dead-letters retry`": lambda scene: scene.cli("dead-letters", "retry", "--all"),
    "`pgdoc dead-letters drop`": lambda scene: scene.cli("dead-letters", "drop", "--all", "--yes"),
    "`pgdoc metrics --once`": lambda scene: scene.cli("metrics", "--once"),
    "`pgdoc upgrade prepare`": lambda scene: scene.cli("upgrade", "prepare", "--only", "--timeout", "1"),
    "`pgdoc grant`": lambda scene: scene.cli("grant", "pgdoc_nobody_yet", "--as", "writer"),
    "`pgdoc grant --run` of a right that the role may not pass on": _grant_on,
}
