"""What the checks of `pgdoc doctor` look at: a connection, and what is known about the server and the role."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pgdoc.cli.doctor.commands import as_identifier, reset_setting
from pgdoc.cli.render import render_delay
from pgdoc.database.examination import look_only
from pgdoc.sql import statement

if TYPE_CHECKING:
    import psycopg

__all__ = ["Examination", "ServerSetting", "begin_examination", "render_seconds"]

_SETTINGS: Final = [
    "archive_mode",
    "autovacuum_freeze_max_age",
    "cluster_name",
    "default_transaction_read_only",
    "effective_wal_level",
    "exit_on_error",
    "hot_standby_feedback",
    "idle_in_transaction_session_timeout",
    "idle_replication_slot_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "max_connections",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "max_wal_senders",
    "output_plugin_libraries",
    "primary_conninfo",
    "primary_slot_name",
    "statement_timeout",
    "sync_replication_slots",
    "synchronized_standby_slots",
    "synchronous_standby_names",
    "tcp_keepalives_idle",
    "transaction_timeout",
    "wal_level",
    "wal_sender_timeout",
]

_UNIT_S: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class ServerSetting(NamedTuple):
    """A setting as a new session of this role has it.

    Attributes:
        value: in its unit, as `pg_settings.setting`.
        unit: of the value; `None` if it has none.
        shown: as SHOW prints it.
        source: where the value comes from, as `pg_settings.source`.
    """

    value: str
    unit: str | None
    shown: str
    source: str

    @property
    def seconds(self) -> float:
        """A time, in seconds."""
        return float(self.value) * _UNIT_S.get(self.unit or "ms", 1e-3)


@dataclass(frozen=True)
class Examination:
    """One run of the checks.

    Attributes:
        dsn: as the user gave it.
        schema: whose tables, indexes and streams are checked.
        log_url: of the log whose groups are checked; empty for none.
        settings: those that this role may see, and this server has.
        role: of the session; `reads_stats` and `reads_settings` say whether it sees what others do.
        may_replicate: whether it has REPLICATION.
    """

    connection: psycopg.Connection[Any]
    dsn: str
    schema: str
    log_url: str
    settings: dict[str, ServerSetting]
    role: str
    is_superuser: bool
    may_replicate: bool
    reads_stats: bool
    reads_settings: bool
    in_recovery: bool

    @property
    def version(self) -> int:
        """The major version of PostgreSQL."""
        return self.connection.info.server_version // 10_000

    @property
    def database(self) -> str:
        """The name of the database."""
        return self.connection.info.dbname

    @property
    def quoted_role(self) -> str:
        """The role as SQL."""
        return as_identifier(self.role)

    def rows(self, name: str, *params: Any) -> list[Any]:
        """Run a block of `doctor.sql`."""
        return self.connection.execute(statement("doctor", name).encode(), params or None).fetchall()

    def rows_of(self, file: str, name: str, *params: Any) -> list[Any]:
        """Run a block of another file, where `%%` stands for `%` even without parameters."""
        return self.connection.execute(statement(file, name).encode(), params).fetchall()

    def text_of(self, setting: str) -> str:
        """Return a setting as the server prints it; empty if it has none, or the role may not see it."""
        found = self.settings.get(setting)
        return "" if found is None else found.shown

    def seconds_of(self, setting: str) -> float:
        """Return a time in seconds; 0 if the server has no such setting."""
        found = self.settings.get(setting)
        return 0.0 if found is None else found.seconds

    def reset(self, setting: str) -> list[str]:
        """Return the commands that take a setting back."""
        return reset_setting(setting, self.settings[setting].source, self.role, self.database)

    @property
    def has_slots_that_stay(self) -> bool:
        """Whether a consumer or a bookmark of this database keeps WAL."""
        return any(slot.is_ours and slot.is_here for slot in self.rows("slots"))


def begin_examination(connection: psycopg.Connection[Any], dsn: str, schema: str, log_url: str = "") -> Examination:
    """Find out what the role may see."""
    # Before `look_only` sets time limits of its own, which would hide those of the role.
    rows = connection.execute(statement("doctor", "settings").encode(), [_SETTINGS]).fetchall()
    with look_only(connection):
        (role,) = connection.execute(statement("doctor", "role").encode()).fetchall()
    settings = {row.name: ServerSetting(row.setting, row.unit, row.shown, row.source) for row in rows}
    return Examination(connection, dsn, schema, log_url, settings, **role._asdict())


def render_seconds(seconds: float) -> str:
    """Return a time in the largest unit that it fills."""
    return render_delay(timedelta(seconds=seconds))
