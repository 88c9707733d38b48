"""Document calls through PgBouncer in transaction mode, where each may run in any session of the server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgdoc import AsyncStore, Store
from pgdoc.cli import doctor
from pgdoc.errors import UnsupportedServer
from tests.document_tour import take_tour
from tests.hostile_settings import set_for, together
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import IndexProgress

SETTINGS = b"SELECT name, setting, source FROM pg_settings ORDER BY name"
OF_THE_CLIENT = {"application_name", "client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings"}
"""PgBouncer sets these for each client, and reports them to it."""


@pytest.fixture
def other_client(pooled_dsn: str) -> Iterator[psycopg.Connection]:
    """Another program, in the same session of the server."""
    with psycopg.connect(pooled_dsn, autocommit=True, prepare_threshold=None) as connection:
        yield connection


@pytest.fixture
def expected(dsn: str) -> list[Any]:
    with Store(dsn, schema="expected") as store:
        return take_tour(store)


def settings_seen_by(client: psycopg.Connection) -> dict[str, tuple[str, str]]:
    rows = client.execute(SETTINGS).fetchall()
    return {name: (setting, source) for name, setting, source in rows if name not in OF_THE_CLIENT}


def set_for_database(dsn: str, settings: dict[str, str]) -> None:
    with psycopg.connect(dsn, autocommit=True) as owner:
        database = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
        set_for(owner, sql.SQL("DATABASE {}").format(database), settings)


def test_answers_through_a_pooler_are_those_of_a_direct_connection(
    dsn: str, pooled_dsn: str, expected: list[Any]
) -> None:
    with Store(pooled_dsn, schema="tour", replication_conninfo=dsn) as store:
        assert take_tour(store) == expected


def test_hostile_settings_behind_a_pooler_change_no_answer(dsn: str, pooled_dsn: str, expected: list[Any]) -> None:
    refused = {"jit", "gin_fuzzy_search_limit"}  # `pgdoc doctor` says what to do
    refused |= {"exit_on_error"}  # PgBouncer follows the error with one of its own
    settings = {name: value for name, value in together().items() if name not in refused}
    set_for_database(dsn, settings | {"jit": "off"})
    with Store(make_conninfo(pooled_dsn, client_encoding="LATIN1"), schema="tour", replication_conninfo=dsn) as store:
        assert take_tour(store) == expected


def test_no_setting_reaches_another_client(dsn: str, pooled_dsn: str, other_client: psycopg.Connection) -> None:
    other_client.execute("LOAD 'plpgsql'")  # which brings settings of its own
    pid = other_client.execute("SELECT pg_backend_pid()").fetchall()
    before = settings_seen_by(other_client)
    with Store(pooled_dsn, replication_conninfo=dsn) as store:
        take_tour(store)
        with store.transaction() as tx:
            tx["docs"].count()
    assert settings_seen_by(other_client) == before
    assert other_client.execute("SELECT pg_backend_pid()").fetchall() == pid


def test_indexes_are_built_where_each_statement_has_another_session(dsn: str, widely_pooled_dsn: str) -> None:
    with Store(widely_pooled_dsn, replication_conninfo=dsn) as store, psycopg.connect(dsn, autocommit=True) as owner:
        docs = store["docs"]
        docs.insert_many((str(number), {"n": number, "m": [number]}) for number in range(500))
        seen: list[IndexProgress] = []
        with ThreadPoolExecutor(3) as threads:
            names = set(threads.map(docs.create_index, ("n", "m", "n")))
        docs.create_index("n", "m", progress=seen.append)
        assert {index.name for index in docs.indexes()} > names
        assert seen[-1].phase == "ready"
        docs.set_limits(max_size=10_000)
        assert all(docs.drop_index(name) for name in names)
        assert owner.execute("SELECT task FROM pgdoc.sessions WHERE task LIKE 'indexes of %'").fetchall() == []
        assert owner.execute("SELECT FROM pg_index WHERE NOT indisvalid").fetchall() == []


def test_clients_with_other_encodings_share_a_session(dsn: str, pooled_dsn: str) -> None:
    latin = make_conninfo(pooled_dsn, client_encoding="LATIN1")
    with (
        Store(latin, replication_conninfo=dsn) as store,
        psycopg.connect(latin, autocommit=True, prepare_threshold=None) as other,
    ):
        for n in range(3):
            store["docs"].insert_many([(f"é-{n}", {"name": "Zürich", "sign": "€"})])
            query = "SELECT data->>'name' FROM docs.docs WHERE id = %s"
            assert other.execute(query, [f"é-{n}"]).fetchall() == [("Zürich",)]
            found = store["docs"].get(f"é-{n}")
            assert found is not None
            assert found.data == {"name": "Zürich", "sign": "€"}


def test_a_transaction_behind_a_pooler_has_the_settings_that_the_pooler_refuses(dsn: str, pooled_dsn: str) -> None:
    shown = b"SELECT current_setting('jit'), current_setting('client_connection_check_interval')"
    with Store(pooled_dsn, replication_conninfo=dsn) as store:
        for isolation in (None, "serializable"):
            with store.transaction(isolation=isolation) as tx:
                assert tx.connection.execute(shown).fetchall() == [("off", "10s")]
        with store._connections.connection() as connection:
            assert connection.execute(shown).fetchall() == [("on", "0")]


def test_settings_that_the_role_has_behind_a_pooler_are_left_alone(dsn: str, pooled_dsn: str) -> None:
    set_for_database(dsn, {"jit": "off", "client_connection_check_interval": "3s"})
    with Store(pooled_dsn, replication_conninfo=dsn) as store, store.transaction() as tx:
        assert store._connections.begin_with == []
        assert tx.connection.execute("SHOW client_connection_check_interval").fetchall() == [("3s",)]


def test_a_limit_of_gin_indexes_behind_a_pooler_is_refused(dsn: str, pooled_dsn: str) -> None:
    set_for_database(dsn, {"gin_fuzzy_search_limit": "1"})
    with (
        Store(pooled_dsn, replication_conninfo=dsn) as store,
        pytest.raises(UnsupportedServer, match=r"gin_fuzzy_search_limit is 1 .* ALTER ROLE"),
    ):
        store["docs"].count()


def test_each_call_takes_one_round_trip(dsn: str, pooled_dsn: str) -> None:
    port = int(str(conninfo_to_dict(pooled_dsn)["port"]))
    with Proxy("127.0.0.1", port) as proxy:
        through = make_conninfo(pooled_dsn, port=proxy.port)
        with Store(through, replication_conninfo=dsn, pool_size=1) as store:
            store["docs"].insert("a", {"n": 1})
            store["docs"].indexes()
            store["docs"].count({"n": 1})
            for call, trips in (
                (lambda: store["docs"].get("a"), 1),
                (lambda: store["docs"].insert("b", {}), 1),
                (lambda: store["docs"].update("a", {"$inc": {"n": 1}}), 1),
                (lambda: store["docs"].count({"n": 2}), 1),
                (lambda: list(store["docs"].find({"n": 2})), 1),
                (lambda: store["docs"].delete("b"), 1),
                (lambda: _transact(store), 4),  # begin with all settings, insert, update, commit
            ):
                before = proxy.round_trips
                call()
                assert proxy.round_trips - before == trips


def _transact(store: Store) -> None:
    with store.transaction({"by": "test"}) as tx:
        tx["docs"].insert("c", {})
        tx["docs"].update("c", {"$set": {"n": 1}})


def test_doctor_prints_what_a_role_needs_behind_a_pooler(dsn: str, pooled_dsn: str) -> None:
    def texts(conninfo: str) -> list[str]:
        found = doctor.examine_server(conninfo, only=["settings"])
        return [f"{each.verdict}: {each.text}: {''.join(each.fix)}" for each in found]

    user = conninfo_to_dict(pooled_dsn)["user"]
    with_jit, unnoticed = texts(pooled_dsn)
    assert with_jit.startswith("warn: jit is on, ")
    assert f"ALTER ROLE {user} SET jit = 'off'" in with_jit.replace('"', "")
    assert f"ALTER ROLE {user} SET client_connection_check_interval = '10s'" in unnoticed.replace('"', "")
    assert texts(dsn) == ["ok: sessions have the settings that document calls need: "]
    set_for_database(dsn, {"gin_fuzzy_search_limit": "1"})
    assert texts(dsn)[0].startswith("ok")


def test_doctor_finds_a_limit_of_gin_indexes_behind_a_pooler(dsn: str, pooled_dsn: str) -> None:
    set_for_database(dsn, {"gin_fuzzy_search_limit": "1"})
    (found,) = doctor.examine_server(pooled_dsn, only=["settings"])
    assert found.verdict == "wrong"
    assert "gin_fuzzy_search_limit is 1" in found.text


async def test_an_async_store_works_through_a_pooler(dsn: str, pooled_dsn: str) -> None:
    async with AsyncStore(pooled_dsn, replication_conninfo=dsn) as store:
        await store["docs"].insert_many([(f"é-{n}", {"n": n}) for n in range(250)])
        assert [document.data["n"] async for document in store["docs"].find(sort="n")] == list(range(250))
        async with store.transaction() as tx:
            assert await tx["docs"].update_many({}, {"$inc": {"n": 1}}) == 250


def test_a_consumer_is_waited_for_through_a_pooler(dsn: str, pooled_dsn: str) -> None:
    with Store(pooled_dsn, replication_conninfo=dsn) as store:
        with store["orders"].watch(consumer="pooled") as stream:
            for number in range(3):
                store["orders"].insert(str(number), {})
                with store.transaction() as tx:
                    tx["others"].insert(str(number), {})
                lsn = tx.lsn()
                assert stream.next(timeout=20) is not None
                assert stream.try_next() is None
                store.wait_for("pooled", lsn)
                stream.wait_for(lsn)
        assert store.drop_consumer("pooled")
