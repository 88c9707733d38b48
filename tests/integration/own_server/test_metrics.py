"""The metrics of a server: each one is provoked, scraped over HTTP and read as Prometheus reads it."""

from __future__ import annotations

import logging
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgdoc import Store
from pgdoc.telemetry.catalogue import BY_NAME
from pgdoc.telemetry.database import DatabaseMetrics
from pgdoc.telemetry.exposition import Exposition
from tests.integration.own_server.consumers import NAME, drop_bookmarks, drop_slot, insert, slot, status, take
from tests.integration.own_server.words import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc.server import LocalServer
    from tests.proxy import Proxy

LABELS = {"schema": "docs", "consumer": NAME}


class Scraped:
    """What Prometheus got from one scrape; checks that the table of metrics has all of it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        for sample in self._samples:
            assert set(sample.labels) == set(BY_NAME[sample.name].labels)
        assert len({(each.name, *sorted(each.labels.items())) for each in self._samples}) == len(self._samples)

    def __getitem__(self, name: str) -> float:
        (value,) = self.all(name)
        return value

    def all(self, name: str, **labels: str) -> list[float]:
        assert name in BY_NAME
        return [
            sample.value for sample in self._samples if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def labels(self, name: str) -> list[dict[str, str]]:
        return [sample.labels for sample in self._samples if sample.name == name]

    def reason(self) -> str:
        (labels,) = self.labels("pgdoc_slot_invalid")
        return labels["reason"]


@contextmanager
def serving(dsn: str, schema: str | None = None) -> Iterator[Callable[[], Scraped]]:
    """Serve the metrics; yield what scrapes them."""
    with closing(Exposition(DatabaseMetrics(dsn, schema))) as exposition, exposition.listen("127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02], name="tests-metrics")
        thread.start()
        try:
            yield lambda: Scraped(fetch(server.url))
        finally:
            server.shutdown()
            thread.join()


def fetch(url: str, accept: str = "") -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=30) as answer:  # noqa: S310
        return str(answer.read().decode())


@pytest.fixture
def scrape(dsn: str) -> Iterator[Callable[[], Scraped]]:
    with serving(dsn) as scrape:
        yield scrape


def test_an_open_consumer_is_owned_and_waits_for_nothing(
    store: Store, owner: psycopg.Connection, scrape: Callable[[], Scraped]
) -> None:
    with store.watch(consumer=NAME):
        found = scrape()
        assert found["pgdoc_up"] == 1
        assert found.all("pgdoc_scrape_ok") == [1, 1, 1, 1, 1]
        assert set(found.all("pgdoc_scrape_errors_total")) == {0}
        assert found["pgdoc_consumer_owned"] == 1
        assert found["pgdoc_consumer_oldest_unacked_seconds"] == 0
        assert 0 <= found["pgdoc_consumer_owner_silent_seconds"] < 60
        assert found["pgdoc_consumer_recreated_total"] == 0
        assert found["pgdoc_consumer_unreadable_transactions"] == 0
        assert found.reason() == "none"
        assert found["pgdoc_slot_invalid"] == 0
        assert found["pgdoc_slot_retained_bytes"] > 0
        assert found["pgdoc_slot_safe_wal_bytes"] > 0
        assert 0 < found["pgdoc_slot_catalog_xmin_age"] < 100_000
        assert found["pgdoc_max_slot_wal_keep_bytes"] == 4 << 30
        assert found["pgdoc_in_recovery"] == 0
        (labels,) = found.labels("pgdoc_consumer_owned")
        assert labels == LABELS | {"database": owner.info.dbname}
        is_new = owner.info.server_version >= 170000
        assert len(found.all("pgdoc_slot_failover")) == is_new
    assert found.labels("pgdoc_slot_synced") == []


def test_dead_letters_are_counted_by_handler_and_state(
    dsn: str, store: Store, owner: psycopg.Connection, scrape: Callable[[], Scraped]
) -> None:
    put = (
        "INSERT INTO pgdoc.dead_letters "
        "(consumer, handler, state, event_type, collection, token, changed_at, stored_at) "
        "VALUES (%s, 'charge', %s, 'truncate', 'orders', '0/1.1.1', now(), now() - '1 hour'::interval)"
    )
    assert scrape().labels("pgdoc_dead_letters") == []
    store.watch(consumer=NAME).close()
    for consumer, state in ((NAME, "dead"), (NAME, "dead"), (NAME, "parked"), ("gone", "due")):
        owner.execute(put, [consumer, state])

    found = scrape()
    of_charge = LABELS | {"handler": "charge"}
    assert found.all("pgdoc_dead_letters", **of_charge, state="dead") == [2]
    assert found.all("pgdoc_dead_letters", **of_charge, state="parked") == [1]
    assert found.all("pgdoc_dead_letters", schema="", consumer="gone", state="due") == [1]
    assert min(found.all("pgdoc_dead_letters_oldest_seconds")) >= 3600
    with serving(dsn, "docs") as scrape_schema:
        assert {labels["consumer"] for labels in scrape_schema().labels("pgdoc_dead_letters")} == {NAME}


def test_a_consumer_that_nobody_has_open_grows_old(store: Store, scrape: Callable[[], Scraped]) -> None:
    store.watch(consumer=NAME).close()
    first = scrape()
    assert first["pgdoc_consumer_owned"] == 0
    assert first.labels("pgdoc_consumer_owner_silent_seconds") == []
    assert status(store).owner_silent is None
    wait_until(
        lambda: scrape()["pgdoc_consumer_oldest_unacked_seconds"] > first["pgdoc_consumer_oldest_unacked_seconds"]
    )


def test_an_old_event_that_is_not_acknowledged_is_seen(
    store: Store, scrape: Callable[[], Scraped], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.consumers.owned_slot.HEARTBEAT_S", 0.1)
    with store["orders"].watch(consumer=NAME) as stream:
        insert(store, 1)
        (event,) = take(stream, 1)
        wait_until(lambda: scrape()["pgdoc_consumer_oldest_unacked_seconds"] > 0.5)
        found = scrape()
        assert found["pgdoc_consumer_owned"] == 1
        assert found["pgdoc_consumer_lag_bytes"] > 0
        stream.ack(event)
        wait_until(lambda: scrape()["pgdoc_consumer_oldest_unacked_seconds"] == 0)


def test_an_owner_that_hangs_is_silent(
    dsn: str, store: Store, owner: psycopg.Connection, scrape: Callable[[], Scraped]
) -> None:
    with store.watch(consumer=NAME), psycopg.connect(dsn, autocommit=True) as hanging:
        assert scrape()["pgdoc_consumer_owner_silent_seconds"] < 60
        owner.execute(
            "UPDATE pgdoc.owners o SET pid = a.pid, backend_start = a.backend_start, renewed_at = '2020-01-01'"
            " FROM pg_stat_activity a WHERE a.pid = %s",
            [hanging.info.backend_pid],
        )
        before = scrape()["pgdoc_consumer_owner_silent_seconds"]
        wait_until(lambda: scrape()["pgdoc_consumer_owner_silent_seconds"] > before + 0.2)


@pytest.fixture
def lose_wal(owner: psycopg.Connection) -> Iterator[Callable[[], None]]:
    def lose() -> None:
        owner.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
        owner.execute("SELECT pg_reload_conf()")
        for _ in range(5):
            owner.execute("SELECT pg_logical_emit_message(true, 'noise', '')")
            owner.execute("SELECT pg_switch_wal()")

    yield lose
    owner.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
    owner.execute("SELECT pg_reload_conf()")


def test_a_slot_runs_out_of_wal_and_is_lost(
    store: Store, owner: psycopg.Connection, scrape: Callable[[], Scraped], lose_wal: Callable[[], None]
) -> None:
    store.watch(consumer=NAME).close()
    lose_wal()
    wait_until(lambda: scrape()["pgdoc_slot_safe_wal_bytes"] < 0)
    found = scrape()
    assert found["pgdoc_slot_invalid"] == 0
    assert found["pgdoc_slot_retained_bytes"] > 16 << 20
    assert found["pgdoc_max_slot_wal_keep_bytes"] == 16 << 20
    owner.execute("CHECKPOINT")
    wait_until(lambda: scrape()["pgdoc_slot_invalid"] == 1)
    found = scrape()
    assert found.reason() == ("wal_removed" if owner.info.server_version >= 170000 else "lost")
    assert found["pgdoc_slot_retained_bytes"] == 0
    assert found.labels("pgdoc_slot_safe_wal_bytes") == []
    assert found["pgdoc_history_bookmarks"] == 0
    assert found["pgdoc_history_retained_bytes"] == 0
    assert found.labels("pgdoc_history_oldest_seconds") == []


def test_a_slot_that_was_dropped_is_gone_and_a_consumer_that_begins_again_is_counted(
    store: Store, owner: psycopg.Connection, scrape: Callable[[], Scraped], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.streams.bookmarks._INTERVAL_S", 60.0)
    store.watch(consumer=NAME).close()
    insert(store, 1)
    for count in (1, 2):
        drop_slot(owner)
        drop_bookmarks(owner)
        found = scrape()
        assert (found.reason(), found["pgdoc_slot_invalid"]) == ("gone", 1)
        assert found.labels("pgdoc_slot_retained_bytes") == []
        store.watch(consumer=NAME, on_lost="recreate").close()
        assert scrape()["pgdoc_consumer_recreated_total"] == count
    assert scrape().reason() == "none"


def test_a_transaction_that_stops_a_consumer_is_counted(
    store: Store, owner: psycopg.Connection, scrape: Callable[[], Scraped]
) -> None:
    store.watch(consumer=NAME).close()
    owner.execute(
        "INSERT INTO pgdoc.unreadable (consumer, commit_lsn, lsn, collections, problem)"
        " SELECT %s, pg_current_wal_lsn(), pg_current_wal_lsn(), '{orders}', 'too large'",
        [NAME],
    )
    assert scrape()["pgdoc_consumer_unreadable_transactions"] == 1
    owner.execute("UPDATE pgdoc.unreadable SET skipped_at = now()")
    assert scrape()["pgdoc_consumer_unreadable_transactions"] == 0


def test_the_slots_of_streams_and_of_history_are_counted(store: Store, scrape: Callable[[], Scraped]) -> None:
    before = scrape()
    assert before["pgdoc_reader_slots"] == before["pgdoc_reader_slots_retained_bytes"] == 0
    with store["orders"].watch():
        found = scrape()
        assert found["pgdoc_reader_slots"] == 1
        assert found["pgdoc_reader_slots_retained_bytes"] > 0
        assert found["pgdoc_history_bookmarks"] == 1
        assert found["pgdoc_history_retained_bytes"] > 0
        assert found["pgdoc_history_oldest_seconds"] < 60
        assert found["pgdoc_free_replication_slots"] < before["pgdoc_free_replication_slots"]
        assert found["pgdoc_free_walsenders"] == before["pgdoc_free_walsenders"] - 1


def test_a_transaction_that_stays_open_is_seen(
    dsn: str, owner: psycopg.Connection, scrape: Callable[[], Scraped]
) -> None:
    assert scrape()["pgdoc_oldest_write_transaction_seconds"] == 0
    with psycopg.connect(dsn) as writing:
        writing.execute("SELECT pg_current_xact_id()")
        wait_until(lambda: scrape()["pgdoc_oldest_write_transaction_seconds"] > 0.1)
        writing.rollback()
    owner.execute("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'left'")
    try:
        wait_until(lambda: scrape()["pgdoc_oldest_write_transaction_seconds"] > 0.1)
    finally:
        owner.execute("ROLLBACK PREPARED 'left'")


def test_slots_of_others_show_only_how_much_they_hold_back(
    store: Store, owner: psycopg.Connection, admin: psycopg.Connection, scrape: Callable[[], Scraped]
) -> None:
    ((oid,),) = owner.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchall()
    for name in (f"pgdoc_{oid}_evil", f"pgdocb_{oid}_0_a", f"pgdoc_1{oid}_billing", "other"):
        admin.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
    insert(store, 1)
    found = scrape()
    assert found["pgdoc_other_slots_retained_bytes"] > 0
    assert found["pgdoc_history_bookmarks"] == 0
    assert found.labels("pgdoc_slot_retained_bytes") == []
    assert "evil" not in found.text
    assert "other" not in {label for each in found._samples for label in each.labels.values()}


def test_a_slot_without_a_consumer_is_there_without_a_schema(
    owner: psycopg.Connection, scrape: Callable[[], Scraped]
) -> None:
    owner.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot(owner)])
    (labels,) = scrape().labels("pgdoc_slot_retained_bytes")
    owner.execute("SELECT pg_drop_replication_slot(%s)", [slot(owner)])
    assert labels == LABELS | {"database": owner.info.dbname, "schema": ""}


def test_a_schema_limits_the_consumers(dsn: str, store: Store) -> None:
    store.watch(consumer=NAME).close()
    with Store(dsn, schema="other") as other:
        other["orders"].insert("1", {})
        other.watch(consumer="theirs").close()
    with serving(dsn, "docs") as scrape:
        found = scrape()
        for name in ("pgdoc_consumer_owned", "pgdoc_slot_invalid", "pgdoc_slot_retained_bytes"):
            assert [each["consumer"] for each in found.labels(name)] == [NAME]
    with serving(dsn) as scrape:
        assert {each["consumer"] for each in scrape().labels("pgdoc_slot_retained_bytes")} == {NAME, "theirs"}


@contextmanager
def role(owner: psycopg.Connection, *, grants: str = "") -> Iterator[str]:
    """Create a role that may log in, and nothing else but what it is granted."""
    owner.execute(f"CREATE ROLE watcher LOGIN PASSWORD 'secret'; {grants}".encode())
    try:
        yield make_conninfo(owner.info.dsn, user="watcher", password="secret")  # noqa: S106
    finally:
        owner.execute("DROP OWNED BY watcher; DROP ROLE watcher")


def test_pg_monitor_is_enough(store: Store, owner: psycopg.Connection) -> None:
    hostile = (
        "GRANT pg_monitor TO watcher; ALTER ROLE watcher SET default_transaction_isolation = 'serializable';"
        "ALTER ROLE watcher SET default_transaction_deferrable = on; ALTER ROLE watcher SET search_path = docs;"
        "ALTER ROLE watcher SET extra_float_digits = -10; ALTER ROLE watcher SET intervalstyle = 'sql_standard'"
    )
    with store.watch(consumer=NAME), role(owner, grants=hostile) as conninfo, serving(conninfo) as scrape:
        found = scrape()
        assert found.all("pgdoc_scrape_ok") == [1, 1, 1, 1, 1]
        assert found["pgdoc_consumer_owned"] == 1
        assert found["pgdoc_slot_retained_bytes"] > 0
        assert found["pgdoc_oldest_write_transaction_seconds"] == 0


def test_a_role_without_rights_says_what_it_could_not_see(
    store: Store, owner: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pgdoc.metrics")
    with store.watch(consumer=NAME), role(owner) as conninfo, serving(conninfo) as scrape:
        found = scrape()
        scrape()
        ok = {labels["part"]: found.all("pgdoc_scrape_ok", **labels)[0] for labels in found.labels("pgdoc_scrape_ok")}
        assert ok == {"server": 1, "slots": 1, "consumers": 0, "dead_letters": 0, "sessions": 0}
        assert found.labels("pgdoc_consumer_owned") == []
        assert found.labels("pgdoc_slot_retained_bytes")[0]["schema"] == ""
        assert found.labels("pgdoc_oldest_write_transaction_seconds") == []
        owner.execute("GRANT pg_monitor TO watcher")
        assert scrape().all("pgdoc_scrape_ok") == [1, 1, 1, 1, 1]
    said = [record.getMessage() for record in caplog.records if record.name == "pgdoc.metrics"]
    grant = 'run GRANT pg_monitor TO "watcher"'
    assert said == [
        f"the metrics of consumers are missing: permission denied for function consumer_metrics: {grant}",
        f"the metrics of dead_letters are missing: permission denied for function dead_letter_metrics: {grant}",
        f"the metrics of sessions are missing: the role may not see the sessions of other roles: {grant}",
        "the metrics of consumers are complete again",
        "the metrics of dead_letters are complete again",
        "the metrics of sessions are complete again",
    ]


def test_the_advice_quotes_the_name_of_the_role(dsn: str, owner: psycopg.Connection) -> None:
    name = sql.Identifier('x"; DROP TABLE t; --')
    owner.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(name))
    metrics = DatabaseMetrics(make_conninfo(dsn, user='x"; DROP TABLE t; --', password="secret"))  # noqa: S106
    try:
        metrics.scrape()
        for problem in (metrics.problems["consumers"], metrics.problems["sessions"]):
            assert problem.endswith('run GRANT pg_monitor TO "x""; DROP TABLE t; --"')
    finally:
        metrics.close()
        owner.execute(sql.SQL("DROP ROLE {}").format(name))


def test_members_of_pg_monitor_see_no_id_of_a_document(store: Store, owner: psycopg.Connection) -> None:
    store.watch(consumer=NAME, snapshot=True).close()
    with role(owner, grants="GRANT pg_monitor TO watcher") as conninfo, psycopg.connect(conninfo) as watcher:
        assert len(watcher.execute("SELECT * FROM pgdoc.consumer_metrics()").fetchall()) == 1
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            watcher.execute("SELECT * FROM pgdoc.consumers")
        watcher.rollback()
        assert watcher.execute("SELECT * FROM pgdoc.dead_letter_metrics()").fetchall() == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            watcher.execute("SELECT * FROM pgdoc.dead_letters")


def test_a_locked_table_takes_nothing_else_along(
    store: Store, owner: psycopg.Connection, scrape: Callable[[], Scraped]
) -> None:
    store.watch(consumer=NAME).close()
    owner.execute("BEGIN")
    owner.execute("LOCK TABLE pgdoc.consumers")
    found = scrape()
    owner.execute("ROLLBACK")
    assert found["pgdoc_up"] == 1
    assert found.all("pgdoc_scrape_ok", part="consumers") == [0]
    assert found.all("pgdoc_scrape_errors_total", part="consumers") == [1]
    assert found["pgdoc_slot_retained_bytes"] > 0
    assert scrape().all("pgdoc_scrape_ok", part="consumers") == [1]


def test_a_database_without_a_catalog_says_what_to_do(
    cluster: LocalServer, admin: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    name = 'a "b\\c"\nd'
    admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        with serving(cluster.conninfo_for(name)) as scrape:
            found = scrape()
            assert found.labels("pgdoc_up") == [{"database": name}]
            assert found.all("pgdoc_scrape_ok", part="consumers") == [0]
    finally:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    assert "the database has no pgdoc catalog: create it with `pgdoc init`" in caplog.text


def test_a_superuser_runs_no_function_of_another_role(
    cluster: LocalServer, admin: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    admin.execute("CREATE DATABASE trap")
    admin.execute("CREATE ROLE trapper")
    try:
        with psycopg.connect(cluster.conninfo_for("trap"), autocommit=True) as connection:
            connection.execute(
                "CREATE SCHEMA pgdoc AUTHORIZATION trapper; CREATE TABLE pgdoc.ran ();"
                "CREATE FUNCTION pgdoc.consumer_metrics() RETURNS void LANGUAGE sql"
                " AS 'SELECT pg_sleep(1000)'; ALTER FUNCTION pgdoc.consumer_metrics OWNER TO trapper"
            )
        with serving(cluster.conninfo_for("trap")) as scrape:
            found = scrape()
            assert found.all("pgdoc_scrape_ok", part="consumers") == [0]
        assert 'role "trapper" owns the pgdoc catalog' in caplog.text
    finally:
        admin.execute("DROP DATABASE trap WITH (FORCE)")
        admin.execute("DROP ROLE trapper")


def test_a_server_that_is_down_is_a_value_and_the_same_exporter_goes_on(
    cluster: LocalServer, proxied_dsn: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pgdoc.metrics")
    with serving(proxied_dsn) as scrape:
        assert scrape()["pgdoc_up"] == 1
        proxy.refuse()
        proxy.cut()
        down = scrape()
        assert (down["pgdoc_up"], down.all("pgdoc_scrape_errors_total", part="connection")) == (0, [1])
        assert down.labels("pgdoc_in_recovery") == []
        scrape()
        proxy.accept()
        assert scrape()["pgdoc_up"] == 1
        cluster.restart()  # the connection is lost between two scrapes, which costs none
        assert scrape()["pgdoc_up"] == 1
    assert caplog.text.count("the metrics of connection are missing") == 1
    assert caplog.text.count("the metrics of connection are complete again") == 1


def test_a_silent_server_does_not_hang_a_scrape(
    proxied_dsn: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(proxied_dsn) as scrape:
        assert scrape()["pgdoc_up"] == 1
        proxy.stall()
        with monkeypatch.context() as patch:
            patch.setattr("pgdoc.telemetry.database._STATEMENT_S", 0.2)
            assert scrape()["pgdoc_up"] == 0
        proxy.resume()
        wait_until(lambda: scrape()["pgdoc_up"] == 1)


def test_a_connection_that_fell_silent_is_made_again_in_the_same_scrape(
    proxied_dsn: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(proxied_dsn) as scrape:
        assert scrape()["pgdoc_up"] == 1
        proxy.vanish()
        monkeypatch.setattr("pgdoc.telemetry.database._STATEMENT_S", 1.0)
        monkeypatch.setattr("pgdoc.telemetry.database.LIMIT_S", 20.0)
        wait_until(lambda: scrape()["pgdoc_up"] == 1)


def test_scrapes_at_the_same_time_share_one_connection(
    dsn: str, owner: psycopg.Connection, proxied_dsn: str, proxy: Proxy
) -> None:
    with serving(proxied_dsn) as scrape:
        scrape()
        proxy.stall()
        results: list[float] = []
        threads = [threading.Thread(target=lambda: results.append(scrape()["pgdoc_up"])) for _ in range(10)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        proxy.resume()
        for thread in threads:
            thread.join()
        assert results == [1.0] * 10
        ((sessions,),) = owner.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgdoc metrics'"
        ).fetchall()
        assert sessions == 1


def test_prometheus_gets_the_format_that_it_prefers(dsn: str) -> None:
    with closing(Exposition(DatabaseMetrics(dsn))) as exposition, exposition.listen("localhost", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        try:
            text = fetch(server.url, "application/openmetrics-text; version=1.0.0")
            families = {family.name: family for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
            assert families["pgdoc_scrape_errors"].type == "counter"
            with pytest.raises(urllib.error.HTTPError, match="404"):
                fetch(server.url.replace("/metrics", "/other"))
        finally:
            server.shutdown()
            thread.join()


def test_the_session_of_a_pooler_keeps_its_settings(dsn: str) -> None:
    metrics = DatabaseMetrics(dsn)
    with closing(metrics):
        metrics.scrape()
        connection = metrics._connection
        assert connection is not None
        for setting, value in (("statement_timeout", "0"), ("lock_timeout", "0"), ("transaction_read_only", "off")):
            assert connection.execute(f"SHOW {setting}".encode()).fetchone() == (value,)


def test_the_statements_read_no_document_and_lock_no_table_of_the_user(
    dsn: str, store: Store, owner: psycopg.Connection
) -> None:
    insert(store, 1)
    store.watch(consumer=NAME).close()
    scans = "SELECT seq_scan + coalesce(idx_scan, 0) AS scans FROM pg_stat_user_tables WHERE relname = 'orders'"
    owner.execute("SELECT pg_stat_force_next_flush()")
    before = owner.execute(scans.encode()).fetchone()
    with closing(DatabaseMetrics(dsn)) as metrics:
        for _ in range(3):
            metrics.scrape()
        connection = metrics._connection
        assert connection is not None
        connection.execute("SELECT pg_stat_force_next_flush()")
    owner.execute("SELECT pg_stat_clear_snapshot()")
    assert owner.execute(scans.encode()).fetchone() == before
