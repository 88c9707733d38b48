"""A process of a role that may only connect, or also create tables, and does what it can against the others:
`python -m tests.faulty_day.vandal PLAN`.

It writes the name of each attack that it has made to a file. What it creates begins with `vandal`, and no stream counts
it: every other event must arrive as if it were not there.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc import PgdocError, Store
from tests.faulty_day.plan import COLLECTIONS, POISONOUS, SCHEMA, VandalPlan, from_argument
from tests.faulty_day.process import is_set, set_up_process
from tests.security import attacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import Collection

logger = logging.getLogger("vandal")

_PAUSE_S = 0.3
_SIX = (
    "id text PRIMARY KEY, data jsonb NOT NULL, version bigint NOT NULL DEFAULT 1, "
    "replaced_version bigint NOT NULL DEFAULT 1, created_at timestamptz NOT NULL DEFAULT now(), "
    "updated_at timestamptz NOT NULL DEFAULT now()"
)
_FILL = "INSERT INTO {t} (id, data) SELECT n, '{{}}' FROM generate_series(1, 9) n"
_ODD: tuple[tuple[str, ...], ...] = (
    (f"CREATE TABLE {{t}} ({_SIX})", _FILL, "UPDATE {t} SET data = '{{\"a\": 1}}'", "DELETE FROM {t}"),
    (
        f"CREATE TABLE {{t}} ({_SIX}) PARTITION BY HASH (id)",
        "CREATE TABLE {t}_1 PARTITION OF {t} FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        "ALTER TABLE {t}_1 REPLICA IDENTITY FULL",
        _FILL,
        "UPDATE {t} SET version = 7",
    ),
    (
        "CREATE TABLE {t} (id int, data text, version text, replaced_version bool, created_at date, updated_at int)",
        "ALTER TABLE {t} REPLICA IDENTITY FULL",
        "INSERT INTO {t} DEFAULT VALUES",
        "UPDATE {t} SET data = 'x'",
        "DELETE FROM {t}",
    ),
    (
        f"CREATE TABLE {{t}} ({_SIX}, more int)",
        "ALTER TABLE {t} REPLICA IDENTITY FULL",
        _FILL,
        "ALTER TABLE {t} RENAME COLUMN data TO datum",
        "UPDATE {t} SET version = 7",
        "TRUNCATE {t}",
    ),
    (f"CREATE TABLE {{t}} ({_SIX}, g int GENERATED ALWAYS AS (length(id)) STORED)", _FILL, "DELETE FROM {t}"),
)
_REGISTERED = (
    f"CREATE TABLE {{t}} ({_SIX}, g int GENERATED ALWAYS AS (length(id)) STORED)",
    "SELECT pgdoc.register('{t}')",
    _FILL,
    "UPDATE {t} SET data = '{{\"a\": 1}}'",
    "ALTER TABLE {t} RENAME TO {n}_renamed",
    "DELETE FROM {t}_renamed WHERE id < '5'",
)
_REFUSED = (
    "ALTER TABLE {t}_renamed ADD COLUMN v int GENERATED ALWAYS AS (length(id)) VIRTUAL",
    "ALTER TABLE {t}_renamed REPLICA IDENTITY NOTHING",
    "ALTER TABLE {t}_renamed RENAME COLUMN data TO datum",
)
_UNREGISTERED = (
    "SELECT pgdoc.unregister('{t}_renamed')",
    "UPDATE {t}_renamed SET data = '{{\"a\": 2}}'",
    "SELECT pgdoc.register('{t}_renamed')",
)
_CALLS: tuple[Callable[[Collection], object], ...] = (
    lambda x: x.delete_many({}),
    lambda x: x.insert("vandal", {}),
    lambda x: x.create_index("a"),
    lambda x: x.watch(consumer="vandal"),
)
# Better matches than the functions of pg_catalog for calls that don't say which one they mean.
_HOSTILE = (
    "CREATE OR REPLACE FUNCTION public.{f} RETURNS {r} LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile'; END $$",
    (
        ("hashtextextended(text, integer)", "bigint"),
        ("quote_ident(varchar)", "text"),
        ("to_regclass(varchar)", "regclass"),
        ("format(text, oid, text)", "text"),
        ("pg_current_wal_insert_lsn(integer DEFAULT 0)", "pg_lsn"),
    ),
)


def _on(statement: str, name: str) -> bytes:
    return statement.format(t=f"{SCHEMA}.{name}", n=name).encode()


class Vandal:
    """One process; each attack has sessions of its own."""

    def __init__(self, plan: VandalPlan) -> None:
        self._plan = plan
        self._dice = random.Random(plan.seed)
        self._done = Path(plan.folder, f"{plan.name}.attacks")

    @property
    def attacks(self) -> dict[str, Callable[[], None]]:
        """What the role can try, by name."""
        low = {
            "forge messages": self._forge,
            "take advisory locks": self._take_locks,
            "keep a transaction and table locks open": self._stay_open,
            "call functions": self._call,
            "use the library": self._use_library,
        }
        creator = {
            "make odd tables": self._make_odd_tables,
            "register and change tables": self._register,
            "write a row that can't be sent": self._write_poison,
            "replace functions": self._replace_functions,
        }
        return low | (creator if self._plan.creates else {})

    def run(self) -> None:
        """Attack until the flag `stop` is set: everything once, then at random. Repeat what a fault interrupts."""
        due = self._dice.sample(sorted(self.attacks), len(self.attacks))
        while due or not is_set(self._plan.folder, "stop"):
            name = due.pop() if due else self._dice.choice(sorted(self.attacks))
            try:
                self.attacks[name]()
            except (psycopg.Error, PgdocError) as exc:
                logger.info("%s: %s", name, exc)
                due.insert(0, name)
            else:
                with self._done.open("a") as file:
                    file.write(f"{name}\n")
            time.sleep(self._dice.uniform(0, _PAUSE_S))

    def _connect(self, **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self._plan.conninfo, autocommit=True, connect_timeout=5, **options)

    def _forge(self) -> None:
        with self._connect() as connection:
            attacks.forge_messages(connection, schema=SCHEMA, names=COLLECTIONS)

    def _take_locks(self) -> None:
        with self._connect() as connection:
            attacks.take_advisory_locks(connection, None)
            time.sleep(self._dice.uniform(0, 1))

    def _stay_open(self) -> None:
        with self._connect() as connection, connection.transaction(force_rollback=True):
            connection.execute("SELECT pg_current_xact_id()")
            attacks.lock_what_it_may(connection, "pgdoc")
            attacks.lock_what_it_may(connection, SCHEMA)
            time.sleep(self._dice.uniform(0, 1))

    def _write_poison(self) -> None:
        with self._connect() as connection:
            connection.execute(_on("DROP TABLE IF EXISTS {t}", POISONOUS))
            connection.execute(_on(f"CREATE TABLE {{t}} ({_SIX}, extra public.unprintable)", POISONOUS))
            connection.execute(_on("INSERT INTO {t} (id, data, extra) VALUES ('1', '{{}}', '7')", POISONOUS))

    def _call(self) -> None:
        with self._connect() as connection, connection.transaction(force_rollback=self._dice.random() < 0.5):
            attacks.call_every_function(connection, [], most=4)

    def _use_library(self) -> None:
        with Store(self._plan.conninfo, schema=SCHEMA) as store:
            for call in _CALLS:
                with contextlib.suppress(PgdocError):
                    call(store[self._dice.choice(COLLECTIONS)])
                    raise AssertionError("a role without rights used a collection of others")
            with contextlib.suppress(PgdocError):
                store.drop_collection(self._dice.choice(COLLECTIONS))
                raise AssertionError("a role without rights dropped a collection")

    def _make_odd_tables(self) -> None:
        name = self._name()
        with self._connect() as connection:
            with connection.transaction() if self._dice.random() < 0.5 else contextlib.nullcontext():
                for statement in self._dice.choice(_ODD):
                    connection.execute(_on(statement, name))
            self._drop(connection, name)

    def _register(self) -> None:
        name = self._name()
        with self._connect() as connection:
            for statement in _REGISTERED:
                connection.execute(_on(statement, name))
            for statement in _REFUSED:
                with contextlib.suppress(psycopg.DatabaseError):
                    connection.execute(_on(statement, name))
            for statement in _UNREGISTERED:
                connection.execute(_on(statement, name))
            self._drop(connection, name)

    def _name(self) -> str:
        return f"vandal_{self._dice.randrange(10**6)}"

    def _drop(self, connection: psycopg.Connection[Any], name: str) -> None:
        if self._dice.random() < 0.7:
            connection.execute(_on("DROP TABLE IF EXISTS {t}, {t}_renamed", name))

    def _replace_functions(self) -> None:
        text, functions = _HOSTILE
        with self._connect() as connection:
            for function, returns in functions:
                connection.execute(text.format(f=function, r=returns).encode())


def main() -> None:
    set_up_process()
    Vandal(from_argument(VandalPlan)).run()


if __name__ == "__main__":
    main()
