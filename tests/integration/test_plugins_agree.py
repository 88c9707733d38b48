"""wal2json and pgoutput give exactly the same events for the same WAL."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings

import pgdoc
from pgdoc import Store
from tests import replica
from tests.plugins import PATIENCE_S, Workload, compare

if TYPE_CHECKING:
    from pgdoc import ResumeToken

pytestmark = pytest.mark.usefixtures("both_plugins")

_numbers = itertools.count(1)


def now(dsn: str, schema: str) -> ResumeToken:
    with Store(dsn, schema=schema) as store, store.watch() as stream:
        return stream.resume_token


@pytest.mark.parametrize("seed", range(4))
def test_of_everything_that_sql_can_do(shared_dsn: str, schema: str, seed: int) -> None:
    with psycopg.connect(shared_dsn, autocommit=True) as connection:
        start = now(shared_dsn, schema)
        workload = Workload(connection, schema, seed)
        workload.prepare()
        for _ in range(60):
            workload.transaction()
        workload.end()
    events = [json.loads(event) for event in compare(shared_dsn, schema, start)]
    assert {event["event_type"] for event in events} >= {"insert", "update", "truncate", "create", "drop", "message"}
    assert any(event["metadata"] for event in events)


@settings(
    derandomize=True,
    phases=[Phase.generate],
    max_examples=4,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(program=replica.programs())
def test_of_four_writers_at_once(shared_dsn: str, program: replica.Program) -> None:
    schema = f"agree_{next(_numbers)}"
    with Store(shared_dsn, schema=schema) as store:
        for name in replica.COLLECTIONS:
            store.create_collection(name)
    start = now(shared_dsn, schema)
    with replica.Writers(shared_dsn, schema, program.writers):
        pass
    compare(shared_dsn, schema, start)


def test_of_a_transaction_that_the_server_spills_to_disk(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        start = now(shared_dsn, schema)
        orders = store.create_collection("orders")
        with store.transaction(metadata={"user": "zoë"}) as tx:
            tx["orders"].insert_many((f"o-{n}", {"n": n, "pad": "x" * 300}) for n in range(4_000))
            tx.connection.execute(f"UPDATE {schema}.orders SET data = data || '{{\"paid\": true}}'".encode())
            tx.connection.execute(f"UPDATE {schema}.orders SET updated_at = now()".encode())
        orders.delete("o-1")
        store.create_collection("end")
    assert len(compare(f"{shared_dsn} options='-c logical_decoding_work_mem=64kB'", schema, start)) == 1 + 3 * 4_000 + 1


def test_a_token_of_one_goes_on_with_the_other(shared_dsn: str, schema: str) -> None:
    """The tokens lie inside a COPY, inside a TRUNCATE, and between the rows of a savepoint."""
    with psycopg.connect(shared_dsn, autocommit=True) as connection:
        workload = Workload(connection, schema, 7)
        workload.prepare()
        start = now(shared_dsn, schema)
        tables = ", ".join(f"{schema}.{name}" for name in ("plain", "b", '"C-3"', "a"))
        connection.execute(f"TRUNCATE {tables}".encode())
        with connection.transaction(), connection.cursor() as cursor:
            with cursor.copy(f"COPY {schema}.a (id, data) FROM STDIN".encode()) as copy:
                for n in range(5):
                    copy.write_row((f"copied-{n}", "{}"))
            with connection.transaction():
                connection.execute('SELECT pgdoc.set_metadata(\'{"user": "bob"}\')')
                connection.execute(f"INSERT INTO {schema}.b (id, data) VALUES ('b', '{{}}')".encode())
        connection.execute(f"TRUNCATE {tables}".encode())
        workload.end()
    expected = [json.loads(event)["resume_token"] for event in compare(shared_dsn, schema, start)]
    stores = [Store(shared_dsn, schema=schema, plugin=plugin) for plugin in ("pgoutput", "wal2json")]
    place, given = str(start), []
    for store in itertools.cycle(stores):
        with store.watch(resume_after=place) as stream:
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            if event.collection == "end":
                break
            place = str(event.resume_token)
            given.append(place)
    for store in stores:
        store.close()
    assert given == expected
    assert len(set(given)) == 3 + 5 + 1 + 3


def test_a_position_advances_although_no_change_is_sent(shared_dsn: str, schema: str) -> None:
    """For transactions that change no collection, pgoutput sends nothing, wal2json sends begin and commit."""
    for plugin in ("pgoutput", "wal2json"):
        with (
            Store(shared_dsn, schema=schema, plugin=plugin) as store,
            store.watch() as stream,
            psycopg.connect(shared_dsn, autocommit=True) as connection,
        ):
            connection.execute("CREATE TABLE IF NOT EXISTS elsewhere AS SELECT generate_series(1, 1000)")
            row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
            assert row is not None
            deadline = PATIENCE_S
            while stream.resume_token.lsn < pgdoc.Lsn.parse(row[0]):
                assert deadline > 0
                assert stream.next(timeout=0.1) is None
                deadline -= 0.1
            connection.execute("DROP TABLE elsewhere")
