"""What the errors say on servers that are newer than the one that most tests run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import ConsumerStatus, HistoryLost, Lsn, Store
from pgdoc.cli.consumer_group import consumers_table
from pgdoc.sql import statement
from tests.integration.own_server.words import said, wait_until
from tests.upgrades import embedded_server

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "billing"


@pytest.fixture
def impatient_dsn(any_plugin: None) -> Iterator[str]:
    """A server that ends slots which nobody reads for a second."""
    server = embedded_server(idle_replication_slot_timeout="1s")
    with server:
        with Store(server.conninfo) as store:
            store.migrate()
        yield server.conninfo


def test_a_slot_that_nobody_read_for_too_long_names_the_limit_and_the_cure(impatient_dsn: str) -> None:
    with Store(impatient_dsn) as store, psycopg.connect(impatient_dsn, autocommit=True) as sql:
        with store["orders"].watch(consumer=NAME) as stream:
            store["orders"].insert("o-1", {})
            position = stream.resume_token.lsn
        store["orders"].insert("o-2", {})

        def status() -> ConsumerStatus:
            sql.execute("CHECKPOINT")  # it ends slots
            (status,) = store.consumers()
            return status

        wait_until(lambda: status().wal_status == "lost")
        assert status().invalidation_reason == "idle_timeout"
        (cell,) = consumers_table([status()]).columns[-1].cells
        assert cell == "lost (idle_timeout)"
        wait_until(lambda: status() and store.history().oldest is None)
        message = said(HistoryLost, lambda: store["orders"].watch(consumer=NAME))
        assert "was invalidated, because nobody read it for longer than idle_replication_slot_timeout, and " in message
        assert message.endswith("set idle_replication_slot_timeout to 0, or to longer than its consumer stays closed")
        message = said(HistoryLost, lambda: store["orders"].watch(resume_after=Lsn(position)))
        assert "as the server ends slots that nobody reads for its idle_replication_slot_timeout of 1s" in message


@pytest.mark.parametrize(
    ("wal_level", "effective", "taken_for"),
    [
        ("replica", None, "replica"),
        ("replica", "replica", "logical"),
        ("replica", "logical", "logical"),
        ("minimal", "minimal", "minimal"),
        ("logical", "logical", "logical"),
    ],
)
def test_a_server_whose_first_logical_slot_turns_decoding_on_is_taken_for_logical(
    bare_dsn: str, wal_level: str, effective: str | None, taken_for: str
) -> None:
    """PostgreSQL 19 has effective_wal_level; settings of this session stand in for the server's."""
    query = statement("replication", "preflight").replace("'effective_wal_level'", "'new.effective_wal_level'")
    query = query.replace("'wal_level'", "'new.wal_level'")
    with psycopg.connect(bare_dsn, row_factory=psycopg.rows.namedtuple_row) as sql:
        settings: dict[str, Any] = {"new.wal_level": wal_level, "new.effective_wal_level": effective}
        for name, value in settings.items():
            if value is not None:
                sql.execute("SELECT set_config(%s, %s, false)", [name, value])
        row: Any = sql.execute(query.encode()).fetchone()
        assert row.wal_level == taken_for
