"""Commits that wait for a synchronous standby."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import psycopg

from tests.integration.own_server.words import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


def set_standby_names(conninfo: str, names: str) -> None:
    """Set `synchronous_standby_names` (nobody has a real one), and wait until commits do as it says.

    A session that shows the new value proves nothing: its commits wait once the checkpointer has noticed.
    """
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        admin.execute("SELECT pg_reload_conf()")
    wait_until(lambda: is_released(conninfo, wait_s=0.05) == (not names))


@contextlib.contextmanager
def no_standby(conninfo: str) -> Iterator[None]:
    """Let all commits of the server wait during the block, until they are canceled."""
    try:
        set_standby_names(conninfo, "nobody")
        yield
    finally:
        set_standby_names(conninfo, "")


def is_released(conninfo: str, prefix: str = "committer", *, wait_s: float) -> bool:
    """Commit a transaction; return whether its commit was released before it was canceled."""
    notices: list[str] = []
    done = threading.Event()
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))

        def cancel() -> None:
            while not done.wait(wait_s):  # a request can come too early, or get lost
                with contextlib.suppress(psycopg.Error):
                    connection.cancel()

        thread = threading.Thread(target=cancel)
        thread.start()
        try:
            connection.execute("SELECT pg_logical_emit_message(true, %s, '')", [prefix])
        finally:
            done.set()
            thread.join()
    return not any("synchronous replication" in notice for notice in notices)
