"""The command line names a consumer that met an unreadable change, and lets it pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc import Store
from pgdoc.cli.doctor import examine_server
from pgdoc.errors import UnreadableChange
from tests.commands import pgdoc_command
from tests.poison import insert_poison, make_poisonous

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTHING_LEFT = (
    "pgdoc: consumer billing has nothing to pass: it has met no change that it can't read, or was already told to "
    "pass it"
)


@pytest.fixture
def error(dsn: str) -> Iterator[UnreadableChange]:
    """What the consumer `billing` has met."""
    with Store(dsn) as store, psycopg.connect(dsn, autocommit=True) as owner:
        store.create_collection("orders")
        make_poisonous(owner, "files")
        with store.watch("files", consumer="billing") as stream:
            insert_poison(owner, "files")
            owner.execute("INSERT INTO docs.files (id, data) VALUES ('end', '{}')")
            with pytest.raises(UnreadableChange) as caught:
                stream.next(timeout=20)
        yield caught.value
        store.drop_consumer("billing")


def test_doctor_names_the_consumer_and_skip_lets_it_go_on(dsn: str, error: UnreadableChange) -> None:
    (found,) = [each for each in examine_server(dsn) if each.id == "consumer-unreadable"]
    assert (found.verdict, found.object, found.value) == ("wrong", "billing", error.commit_lsn)
    assert found.fix == ("pgdoc consumers skip billing",)
    assert error.commit_lsn in pgdoc_command("consumers", "--dsn", dsn).stdout

    done = pgdoc_command("consumers", "skip", "billing", "--dsn", dsn)
    expected = f"Consumer billing will pass the transaction that commits at {error.commit_lsn}.\n"
    assert (done.returncode, done.stdout) == (0, expected)
    again = pgdoc_command("consumers", "skip", "billing", "--dsn", dsn)
    assert (again.returncode, again.stderr.splitlines()) == (1, [NOTHING_LEFT])
    missing = pgdoc_command("consumers", "skip", "bill", "--dsn", dsn)
    assert missing.stderr == "pgdoc: consumer bill does not exist: `pgdoc consumers` lists them\n"
    with Store(dsn) as store, store.watch("files", consumer="billing") as stream:
        event = stream.next(timeout=20)
        assert event is not None
        assert event.document_id == "end"
