"""`run`: run the test and return its outcome."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
from psycopg.conninfo import make_conninfo

from pgdoc import Store
from tests.faulty_day import notebook
from tests.faulty_day.faults import Faults
from tests.faulty_day.plan import (
    BOOKS,
    COLLECTIONS,
    END,
    MARKS,
    SCHEMA,
    SERVER_SETTINGS,
    SHOP,
    TABLES,
    ConsumerPlan,
    Day,
    ReaderPlan,
    StreamPlan,
    VandalPlan,
    Wanted,
    WriterPlan,
)
from tests.faulty_day.supervisor import Supervisor
from tests.faulty_day.vandal import Vandal
from tests.faulty_day.verdict import SLOT, Delivered, Reference, StreamReport, judge
from tests.fixtures.fix_server import local_server
from tests.poison import UNPRINTABLE_TYPE
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pgdoc.server import LocalServer

logger = logging.getLogger("day")

_LOOK_S = 0.1
_GRACE_S = 20.0
_LIMIT_KIB = 400 << 10
_STYLES = ("library", "library", "sql")
"""Those of the writers, one each."""
_HISTORY_BYTES = 20 << 30
_MANY_BOOKMARKS = "UPDATE pgdoc.settings SET history_bookmarks = 12"
_PREPARE = f"""
CREATE SCHEMA {BOOKS};
CREATE TABLE {BOOKS}.ledger (writer int, number bigint, PRIMARY KEY (writer, number));
CREATE TABLE {BOOKS}.audit (number bigserial PRIMARY KEY, consumer text NOT NULL, digest bigint NOT NULL);
CREATE INDEX ON {SCHEMA}.orders USING gin (data jsonb_path_ops);
CREATE INDEX ON {SCHEMA}.scratch USING gin (data jsonb_path_ops);
CREATE SCHEMA {SHOP};
CREATE SEQUENCE {SHOP}.numbers;
CREATE TABLE {SHOP}.items (id text PRIMARY KEY, by int, number int, n bigint, note text);
CREATE TABLE {SHOP}.papers (id text PRIMARY KEY, by int, number int, payload jsonb, n bigint);
SELECT pgdoc.add_table('{SHOP}.items'), pgdoc.add_table('{SHOP}.papers', 'payload');
CREATE ROLE stranger LOGIN;
CREATE ROLE creator LOGIN;
GRANT CREATE, USAGE ON SCHEMA {SCHEMA}, public TO creator;
GRANT EXECUTE ON FUNCTION pgdoc.enter_collection(regclass) TO creator;
"""
_LEFT = """
SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE slot_name NOT LIKE 'pgdocb\\_%'
UNION ALL
SELECT backend_type || ' ' || pid || ': ' || query FROM pg_stat_activity
WHERE backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid()
"""


@dataclass
class Outcome:
    """The result of one run."""

    phases_s: dict[str, float] = field(default_factory=dict)
    transactions: int = 0
    events: int = 0
    delivered: int = 0
    losses: int = 0
    repeats: int = 0
    consumer_repeats: int = 0
    oldest_repeat_s: float = 0.0
    restarts: int = 0
    largest_kib: int = 0
    longest_stop_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    attacks: Counter[str] = field(default_factory=Counter)
    reports: list[StreamReport] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.phases_s.items())
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        attacks = ", ".join(f"{kind} {count}" for kind, count in sorted(self.attacks.items()))
        return (
            f"faulty day ({phases}): {self.transactions} transactions, {self.events} events, "
            f"{self.delivered} deliveries to {len(self.reports)} streams and consumers; "
            f"losses {self.losses}, repeats {self.repeats}, repeats allowed for at-least-once consumers "
            f"{self.consumer_repeats}, the oldest after {self.oldest_repeat_s:.0f} s; "
            f"client restarts {self.restarts}; largest process {self.largest_kib >> 10} MiB, "
            f"longest fast shutdown {self.longest_stop_s:.1f} s; faults: {kinds}; attacks: {attacks}"
        )

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Record how long the block takes."""
        began = time.monotonic()
        yield
        self.phases_s[name] = time.monotonic() - began

    def raise_if_wrong(self) -> None:
        """Fail with a list of all differences found."""
        idle = [] if self.transactions else ["the writers wrote nothing"]
        found = self.wrong + idle + [f"{report.name}: {line}" for report in self.reports for line in report.wrong]
        assert not found, f"{self}\n" + "\n".join(found)


def readers(direct: str, proxied: str, folder: Path) -> list[ReaderPlan]:
    """Return the plans of four processes with five streams each: sync and async, direct and through the proxy."""
    plans = []
    for name, conninfo, is_async in (
        ("sync", direct, False),
        ("async", direct, True),
        ("sync-proxied", proxied, False),
        ("async-proxied", proxied, True),
    ):
        streams = (
            StreamPlan(f"{name}-all", (), 10_000, 0.0),
            StreamPlan(f"{name}-stock", ("stock", TABLES[0]), 500, 0.0),
            StreamPlan(f"{name}-some", ("orders", "scratch", TABLES[0]), 7, 0.02, some=True),
            StreamPlan(f"{name}-slow", (), 50, 0.4),
            StreamPlan(f"{name}-very-slow", ("orders", TABLES[1]), 20, 3.0),
        )
        plans.append(ReaderPlan(conninfo, str(folder), name, is_async, streams))
    return plans


class _Testbed:
    """The server, the proxy and the processes of one run."""

    def __init__(self, day: Day, folder: Path, server: LocalServer, proxy: Proxy, supervisor: Supervisor) -> None:
        self.day, self.folder, self.server, self.proxy, self.supervisor = day, folder, server, proxy, supervisor
        self.largest_kib = 0
        self.vandals: list[VandalPlan] = []
        proxied = make_conninfo(server.conninfo, port=proxy.port)
        self.readers = readers(server.conninfo, proxied, folder)
        self.consumers = [
            ConsumerPlan(
                conninfo, str(folder), f"consumer_{how}", how, () if how == "ack" else ("orders", "stock", *TABLES)
            )
            for how, conninfo in zip(day.consumers, (server.conninfo, proxied, server.conninfo), strict=False)
        ]

    @property
    def notebooks(self) -> dict[str, Wanted]:
        """The name of each notebook, and which events belong in it."""
        streams = {stream.name: stream for plan in self.readers for stream in plan.streams}
        wanted = {name: Wanted(stream.collections, stream.some) for name, stream in streams.items()}
        return wanted | {plan.name: Wanted(plan.collections) for plan in self.consumers}

    def prepare(self) -> None:
        with Store(self.server.conninfo, schema=SCHEMA) as store:
            store.migrate()
            for name in (*COLLECTIONS, MARKS):
                store.create_collection(name)
            store.set_history(time=timedelta(seconds=600 + 2 * self.day.seconds), size=_HISTORY_BYTES)
        with psycopg.connect(self.server.conninfo, autocommit=True) as connection:
            connection.execute(_PREPARE)
            connection.execute(UNPRINTABLE_TYPE.encode())
            connection.execute(_MANY_BOOKMARKS)
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'wal2json')", [SLOT])

    def start_readers(self) -> None:
        """Start readers and consumers; return when every stream is open, before the first write."""
        for plan in self.readers:
            self.supervisor.start(plan.name, "reader", plan)
        for consumer in self.consumers:
            for twin in ("a", "b"):
                self.supervisor.start(f"{consumer.name}-{twin}", "consumer", consumer)
        streams = [stream.name for plan in self.readers for stream in plan.streams]
        self._wait("all streams open", lambda: all(self._ask(name, "token") for name in streams))
        self._wait("all consumers active", lambda: self._count_consumers() == len(self.consumers))

    def start_writers(self) -> None:
        rate = self.day.changes_per_s / len(_STYLES)
        for number, style in enumerate(_STYLES):
            seed = self.day.seed * 10 + number
            plan = WriterPlan(self.server.conninfo, str(self.folder), number, seed, style, rate, self.day.largest)
            self.supervisor.start(f"writer-{number}", "writer", plan)
        self._wait("the writers write", self._is_written)

    def start_vandals(self) -> None:
        for number, role in enumerate(("stranger", "creator")):
            conninfo = self.server.conninfo_for("postgres", user=role)
            seed, creates = self.day.seed * 10 + number, role == "creator"
            plan = VandalPlan(conninfo, str(self.folder), f"vandal-{role}", seed, creates)
            self.vandals.append(plan)
            self.supervisor.start(plan.name, "vandal", plan)

    def attacks(self) -> tuple[Counter[str], list[str]]:
        """Return how often the vandals made each attack, and a line for each that a vandal never made."""
        done: Counter[str] = Counter()
        missing = []
        for plan in self.vandals:
            file = self.folder / f"{plan.name}.attacks"
            made = Counter(file.read_text().splitlines() if file.exists() else [])
            missing += [f"{plan.name} never did: {name}" for name in Vandal(plan).attacks if name not in made]
            done += made
        return done, missing

    def break_things(self) -> Faults:
        """Cause faults until the time is over: every kind at least once, then random ones."""
        faults = Faults(self.server, self.proxy, self.supervisor, self.day)
        over = time.monotonic() + self.day.seconds
        wanted = [kind for kind in faults.kinds if self.consumers or "consumer" not in kind]
        due = faults.shuffled(wanted)
        try:
            while (due or time.monotonic() < over) and not self.supervisor.failed() and not self.errors():
                time.sleep(faults.pause_s())
                faults.strike(due.pop() if due else faults.weighted(wanted))
                self.largest_kib = max(self.largest_kib, self.supervisor.largest_kib())
        finally:
            faults.repair()
        return faults

    def end(self) -> list[str]:
        """Stop the writers, insert the end mark, and wait until all have read it; return what went wrong."""
        (self.folder / "stop").touch()
        names = self.supervisor.names
        writing = [name for name in names if name.startswith(("writer", "vandal"))]
        left = self.supervisor.wait(writing, self.day.patience_s)
        with Store(self.server.conninfo, schema=SCHEMA) as store:
            store[MARKS].insert(END, {})
        (self.folder / "hurry").touch()
        if self.day.cut_at_end:
            self.proxy.cut()
        left += self.supervisor.wait([plan.name for plan in self.readers], self.day.patience_s)
        with contextlib.suppress(TimeoutError):
            self._wait(
                "all consumers at the end mark", lambda: all(self._ask(plan.name, "done") for plan in self.consumers)
            )
        (self.folder / "over").touch()
        left += self.supervisor.wait([name for name in names if name.startswith("consumer")], self.day.patience_s)
        return left + self.supervisor.failed()

    def errors(self) -> list[str]:
        """Return the errors that streams have recorded so far."""
        return [f"{name}: {error}" for name in self.notebooks if (error := self._ask(name, "error"))]

    def _ask(self, name: str, column: str) -> object:
        rows = notebook.read(self.folder / f"{name}.sqlite", f"SELECT {column} FROM place")
        return rows[0][0] if rows else None

    def _is_written(self) -> bool:
        with psycopg.connect(self.server.conninfo) as connection:
            row = connection.execute(f"SELECT count(DISTINCT writer) FROM {BOOKS}.ledger").fetchone()
            return row == (len(_STYLES),)

    def _count_consumers(self) -> int:
        if not self.consumers:
            return 0
        with psycopg.connect(self.server.conninfo) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_replication_slots WHERE slot_name ~ '^pgdoc_[0-9]+_' AND active"
            ).fetchone()
            return int(row[0]) if row else 0

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.day.patience_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {self.day.patience_s:.0f} s; errors: {self.errors()}")
            assert not self.supervisor.failed(), self.supervisor.failed()
            time.sleep(_LOOK_S)


@contextlib.contextmanager
def _testbed(day: Day, folder: Path) -> Iterator[_Testbed]:
    with local_server(port=0, settings=SERVER_SETTINGS) as server:
        address = psycopg.conninfo.conninfo_to_dict(server.conninfo)
        with Proxy(str(address["host"]), int(str(address["port"]))) as proxy, Supervisor(folder) as supervisor:
            testbed = _Testbed(day, folder, server, proxy, supervisor)
            try:
                yield testbed
            finally:
                (folder / "server.log").write_text(server.log_tail(5_000))


def run(day: Day, folder: Path) -> Outcome:
    """Run the test with its own processes and server.

    Args:
        day: The duration, load and seed.
        folder: The folder for notebooks and logs.
    """
    outcome = Outcome()
    with _testbed(day, folder) as testbed:
        with outcome.phase("begin"):
            testbed.prepare()
            testbed.start_readers()
            testbed.start_writers()
            testbed.start_vandals()
        with outcome.phase("day"):
            faults = testbed.break_things()
        with outcome.phase("end"):
            outcome.wrong += testbed.end()
        outcome.faults, outcome.longest_stop_s = faults.counts, faults.longest_stop_s
        outcome.attacks, missing = testbed.attacks()
        outcome.wrong += missing
        outcome.restarts, outcome.largest_kib = testbed.supervisor.restarts, testbed.largest_kib
        if outcome.largest_kib > _LIMIT_KIB:
            outcome.wrong.append(f"a process used {outcome.largest_kib} KiB of memory, more than {_LIMIT_KIB}")
        with outcome.phase("verdict"):
            _judge(testbed, outcome)
            outcome.wrong += _leftovers(testbed)
    return outcome


def _judge(testbed: _Testbed, outcome: Outcome) -> None:
    conninfo = testbed.server.conninfo
    reference = Reference(conninfo)
    outcome.wrong += reference.check(conninfo)
    outcome.transactions, outcome.events = len(reference.transactions), len(reference.digests)
    audits = {plan.name: _audit(conninfo, plan.name) for plan in testbed.consumers if plan.how == "checkpoint"}
    for name, wanted in testbed.notebooks.items():
        may_repeat = name.startswith("consumer") and name not in audits
        report = judge(reference, testbed.folder / f"{name}.sqlite", wanted, repeats=may_repeat, audit=audits.get(name))
        outcome.reports.append(report)
        outcome.delivered += report.events
        outcome.losses += report.losses
        outcome.repeats += 0 if may_repeat else report.repeats
        outcome.oldest_repeat_s = max(outcome.oldest_repeat_s, report.furthest_repeat_s)
        outcome.consumer_repeats += report.repeats if may_repeat else 0


def _audit(conninfo: str, consumer: str) -> Delivered:
    """Return the events that a consumer wrote to the database with its checkpoints."""
    with psycopg.connect(conninfo) as connection:
        query = f"SELECT digest, 0, 0.0::float8 FROM {BOOKS}.audit WHERE consumer = %s ORDER BY number"
        return connection.execute(query, [consumer]).fetchall()


def _leftovers(testbed: _Testbed) -> list[str]:
    """Drop what the test created; return what streams and consumers left on the server after a grace period."""
    conninfo = testbed.server.conninfo
    testbed.proxy.cut()  # connections it holds open would look like leftover sessions
    if testbed.consumers:
        with Store(conninfo, schema=SCHEMA) as store:
            for plan in testbed.consumers:
                store.drop_consumer(plan.name)
    deadline = time.monotonic() + _GRACE_S
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("SELECT pg_drop_replication_slot(%s)", [SLOT])
        while (left := [row[0] for row in connection.execute(_LEFT)]) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
    return [f"left behind: {line}" for line in left]
