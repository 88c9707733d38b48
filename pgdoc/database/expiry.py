"""Delete documents that have expired: one pass over a schema, and the thread of a store that makes them.

Nothing that a store's user calls depends on the thread: it has its own connection while it works, and logs its errors.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import psycopg

from pgdoc.database.catalog import FIND_FOREIGN_OWNER, FIND_REVISION, check_owner, check_revision
from pgdoc.database.conninfo import with_application_name, with_timeout
from pgdoc.database.errors import connection_error, map_error, one_line
from pgdoc.database.rights import Caller
from pgdoc.errors import PgdocError
from pgdoc.runtime.deadline import BoundedConnection, deadline_scope
from pgdoc.runtime.fork import remember
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

__all__ = ["HAS_WORK", "INTERVAL_S", "Expired", "Sweeper", "connect_sweeper", "read_backlog", "sweep"]

logger = logging.getLogger("pgdoc.expiry")

INTERVAL_S: Final = 60.0
"""How long a store waits between two passes, as MongoDB does. Stores take turns: see `pgdoc.claim_expiry`."""

HAS_WORK: Final = statement("expiry", "has_work").encode()

_BATCH: Final = 100
_BEGINNING: Final = "-infinity"
_CLOSE_S: Final = 2.0


@dataclass(slots=True)
class Expired:
    """What a pass did for one index.

    Attributes:
        deleted: how many documents it deleted.
        problem: why it could not, or not all; `None` if nothing is left that had expired when it began.
        is_turn: whether it was this session's turn; otherwise another one deletes, or did so less than a minute ago.
    """

    index_oid: int
    collection: str
    index: str
    deleted: int = 0
    problem: str | None = None
    is_turn: bool = True


@dataclass(frozen=True, slots=True)
class Backlog:
    """What has expired by an index and is still there; each number is counted up to 10,001.

    Attributes:
        late_s: for how many seconds the first of them has been due; `None` if there is none.
        ignored: how many documents have a value at the path, and no time.
    """

    due: int
    late_s: float | None
    ignored: int


class _Stopping(Protocol):
    def __call__(self) -> bool: ...


def sweep(
    connection: psycopg.Connection[Any],
    schema: str,
    *,
    names: Collection[str] = (),
    takes_turns: bool = True,
    is_stopping: _Stopping = lambda: False,
) -> Iterator[Expired]:
    """Delete what has expired in a schema, in batches of one transaction each; yield the result of each index.

    Args:
        connection: in autocommit mode.
        schema: the schema of the collections.
        names: only these collections, whose owners the caller trusts; empty for all, without those whose owner could
            have code run with the rights of this session.
        takes_turns: leave an index to another session that deletes, or did so less than a minute ago.
        is_stopping: whether to end after the present batch.
    """
    for oid, collection, index, obstacle in connection.execute(_sql("expiring"), [schema]).fetchall():
        if names and collection not in names:
            continue
        result = Expired(oid, collection, index)
        if obstacle is not None and not names:
            result.problem = obstacle
        else:
            with _noting_errors(connection, schema, result):
                _sweep_index(connection, result, takes_turns=takes_turns, trusting=bool(names), is_stopping=is_stopping)
        yield result
        if is_stopping():
            return


def _sweep_index(
    connection: psycopg.Connection[Any],
    result: Expired,
    *,
    takes_turns: bool,
    trusting: bool,
    is_stopping: _Stopping,
) -> None:
    after, renews = _BEGINNING, not takes_turns
    while not is_stopping():
        with connection.transaction():
            connection.execute(b"SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            rows = connection.execute(_sql("batch"), [result.index_oid, _BATCH, after, renews, trusting]).fetchall()
        ((result.is_turn, met, deleted, latest),) = rows
        result.deleted += deleted
        if not result.is_turn or (met < _BATCH and deleted == met):
            return
        if deleted < met:
            result.problem = "a trigger or a rule of the table keeps documents"
            if met < _BATCH or latest == after:
                return
        after, renews = latest, True


@contextlib.contextmanager
def _noting_errors(connection: psycopg.Connection[Any], schema: str, result: Expired) -> Iterator[None]:
    """Note why the documents of one index can't be deleted, and go on with the next one."""
    try:
        yield
    except psycopg.Error as exc:
        if exc.sqlstate is None:
            raise
        result.problem = one_line(exc)
        if isinstance(exc, psycopg.errors.InsufficientPrivilege):
            result.problem += f". {Caller(connection.info.user, schema).to_write()}"


def read_backlog(connection: psycopg.Connection[Any], index_oid: int) -> Backlog:
    """Count what has expired by an index, and the values that are no time."""
    ((due, late_s, ignored),) = connection.execute(_sql("backlog"), [index_oid]).fetchall()
    return Backlog(due, late_s, ignored)


def connect_sweeper(conninfo: str, purpose: str) -> psycopg.Connection[Any]:
    """Open a connection for passes; the enclosing `deadline_scope` bounds its waits.

    Raises:
        ServerUnreachable: no connection could be made.
        DatabaseError: the conninfo is not valid, or the server refused it.
        PgdocError: the catalog is missing, of another revision, or not to be trusted.
    """
    try:
        connection = BoundedConnection.connect(
            with_application_name(with_timeout(conninfo), purpose), autocommit=True, prepare_threshold=None
        )
    except psycopg.Error as exc:
        raise connection_error(exc) from exc
    try:
        check_owner(connection.execute(FIND_FOREIGN_OWNER).fetchone())
        check_revision(_find_revision(connection))
    except BaseException:
        connection.close()
        raise
    return connection


def _find_revision(connection: psycopg.Connection[Any]) -> str | None:
    try:
        row = connection.execute(FIND_REVISION).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return None
    except psycopg.Error as exc:
        raise map_error(exc, "the pgdoc catalog") from exc
    return row[0] if row else None


class Sweeper:
    """The thread of a store that deletes expired documents, once a minute.

    A store starts it when it finds an index by which documents expire, and whose documents its role may delete. The
    thread keeps no connection between two passes, and nothing of the store, which stops it when it is closed or
    collected.
    """

    def __init__(self, conninfo: str, schema: str) -> None:
        self._conninfo = conninfo
        self._schema = schema
        self._lock = threading.Lock()  # guards `_thread`
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._known: set[tuple[str, str]] = set()  # problems that were logged; only the thread uses it
        remember(self)

    @property
    def is_running(self) -> bool:
        """Whether the thread was started, and not stopped."""
        return self._thread is not None

    def start(self) -> None:
        """Start the thread unless it runs, or the store is closed."""
        with self._lock:  # `stop` sets `_closing` before it takes the lock
            if self._thread is None and not self._closing.is_set():
                thread = threading.Thread(target=self._run, name="pgdoc-expiry", daemon=True)
                try:
                    thread.start()
                except RuntimeError as exc:  # the process has too many threads, or is at its end
                    logger.warning("expired documents stay at the moment: %s", exc)
                else:
                    self._thread = thread

    def begin_to_stop(self) -> None:
        """Let the thread end, and start no other."""
        self._closing.set()

    def stop(self) -> None:
        """End the thread; it gives up a statement that the server does not answer within a tenth of a second."""
        self.begin_to_stop()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread() and os.getpid() == self._process:
            thread.join(_CLOSE_S)

    def after_fork(self) -> None:
        """Forget the parent's thread. A store that the child can use starts its own."""
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = None
        self._process = os.getpid()

    def _run(self) -> None:
        # At a random moment of the first minute, so that processes that start together do not ask together.
        wait_s = random.uniform(0, INTERVAL_S)  # noqa: S311 (no secret)
        with deadline_scope(closing=self._closing):
            while not self._closing.wait(wait_s):
                self._pass(self._closing.is_set)
                wait_s = INTERVAL_S

    def _pass(self, is_stopping: Callable[[], bool]) -> None:
        try:
            with contextlib.closing(connect_sweeper(self._conninfo, f"expiry {self._schema}")) as connection:
                for result in sweep(connection, self._schema, is_stopping=is_stopping):
                    self._log(result)
        except (psycopg.Error, PgdocError) as exc:
            if not is_stopping():
                logger.warning("expired documents stay at the moment: %s", one_line(exc))
        except Exception:  # a bug must not end the thread: the next pass may succeed
            logger.exception("deleting expired documents failed")

    def _log(self, result: Expired) -> None:
        """Log what was deleted; a problem that stays is a warning once."""
        if result.deleted:
            logger.info(
                'deleted %d documents of collection "%s.%s", which have expired by index "%s"',
                result.deleted,
                self._schema,
                result.collection,
                result.index,
            )
        if result.problem is not None:
            key = (result.collection, f"{result.index}: {result.problem}")
            level = logging.DEBUG if key in self._known else logging.WARNING
            self._known.add(key)
            logger.log(
                level,
                'documents of collection "%s.%s" have expired by index "%s" and may stay: %s',
                self._schema,
                result.collection,
                result.index,
                result.problem,
            )


def _sql(name: str) -> bytes:
    return statement("expiry", name).encode()
