"""Waiting for a consumer on a standby, and while the standby is promoted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc import Lsn, Store
from pgdoc.errors import InvalidResumeToken, ServerUnreachable
from tests.background import Background
from tests.clusters import ask

if TYPE_CHECKING:
    from pgdoc import ChangeStream
    from tests.clusters import Clusters


def read(stream: ChangeStream, seen: set[str]) -> None:
    for event in stream:
        seen.add(str(event.document_id))


def test_a_standby_is_refused_and_a_promoted_one_is_followed(clusters: Clusters) -> None:
    seen: set[str] = set()
    with (
        Store(clusters.conninfo()) as store,
        Store(clusters.conninfo()) as other,
        Store(clusters.standby.conninfo) as of_standby,
        other["orders"].watch(consumer="mail") as stream,
    ):
        store["orders"].insert("0", {})
        assert stream.next(timeout=60) is not None
        stream.ack()
        oid = ask(clusters.primary, "SELECT oid FROM pg_database WHERE datname = current_database()")
        clusters.wait_for_synced(f"pgdoc_{oid}_mail")
        for call in (of_standby.now, lambda: of_standby.wait_for("mail")):
            with pytest.raises(ServerUnreachable, match="the server is a standby"):
                call()
        store["orders"].insert("1", {})
        lsn = store.now()
        clusters.wait_for_replay()
        waiting = Background(store.wait_for, "mail", lsn, None)
        with psycopg.connect(clusters.primary.conninfo, autocommit=True) as listening:
            listening.execute("LISTEN pgdoc_call_mail")
            waiting.__enter__()
            assert list(listening.notifies(timeout=60, stop_after=1))  # the wait has begun
        clusters.fail_over()
        with Background(read, stream, seen):
            try:
                waiting.__exit__()
                assert seen == {"1"}
                with pytest.raises(InvalidResumeToken, match="beyond the end of this server's WAL"):
                    store.wait_for("mail", Lsn(lsn + (1 << 40)))
                store["orders"].insert("2", {})
                store.wait_for("mail")
                assert seen == {"1", "2"}
            finally:
                stream.close()
