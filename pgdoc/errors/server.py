"""Errors of the server, of the connection to it, and of the catalog."""

from __future__ import annotations

from pgdoc.errors.base import PgdocError


class ServerError(PgdocError):
    """There is a problem with the server, or with the connection to it; each subclass names one."""


class ServerUnreachable(ServerError):  # noqa: N818
    """No connection could be made, or it was lost: try again, and check the conninfo if that does not help.

    A write whose connection was lost may or may not be committed, so this error is not `retryable`: a read can be
    repeated at once, a write only if repeating it does no harm. An open stream reconnects by itself.
    """

    resumable = True


class TransactionLost(ServerUnreachable):
    """The connection of an open transaction or bulk was lost, so nothing of it is stored: run it again from the begin.

    Every further call in it fails. `store.run` repeats a transaction.
    """

    retryable = True


class CommitUnknown(ServerUnreachable):
    """The connection was lost during a commit, which may or may not have happened: look, before you repeat it.

    A transaction is stored whole or not at all, so one document that it wrote shows which.
    """


class PoolExhausted(ServerError):  # noqa: N818
    """All connections of the store are in use: exhaust or close iterators, shorten transactions, raise `pool_size`.

    Attributes:
        holders: what holds them, such as `find on collection "docs.orders"`, once per connection.
    """

    resumable = True
    retryable = True

    def __init__(self, message: str, *, holders: tuple[str, ...]) -> None:
        super().__init__(message)
        self.holders = holders


class UnsupportedServer(ServerError):  # noqa: N818
    """The server is older than PostgreSQL 15, or the database's encoding is not UTF-8: use another one.

    Or a pooler before it allows no transactions (`pool_mode = statement`), or keeps pgdoc from turning off
    `gin_fuzzy_search_limit`, which the role or the database sets. Or `replication_conninfo` leads to another database.
    """


class ServerNotFound(ServerError):  # noqa: N818
    """`LocalServer` found no PostgreSQL 15 or newer on this machine: install one, or name its `bin_dir`."""


class ServerStartFailed(ServerError):  # noqa: N818
    """`LocalServer` did not start, or is not running: read the log in the message, or call `start()`."""


class ReplicationUnavailable(ServerError):  # noqa: N818
    """Documents work on this server, but streams do not; each subclass names a reason. `pgdoc doctor` checks all."""


class WalLevelTooLow(ReplicationUnavailable):
    """`wal_level` is not `logical`: set it, and restart the server."""


class PluginMissing(ReplicationUnavailable):
    """The output plugin is not installed on the server: install it, or use `plugin="auto"`."""


class PluginNotAllowed(ReplicationUnavailable):
    """`output_plugin_libraries` does not list the output plugin: add it, or use `plugin="auto"`."""


class PublicationIncomplete(ReplicationUnavailable):
    """The publication "pgdoc" does not send every change, and the role may not repair it.

    Run the statement in the message as the owner of the publication.
    """


class ReplicationNotPermitted(ReplicationUnavailable):
    """The role lacks REPLICATION, or `pg_hba.conf` refuses the connection: grant it, or add a line there."""


class SlotsExhausted(ReplicationUnavailable):
    """The server has no free replication slot or walsender.

    Close streams and drop unused slots, or raise `max_replication_slots` or `max_wal_senders`.
    """

    resumable = True
    retryable = True


class DirectRouteNeeded(ReplicationUnavailable):
    """The connection goes through a pooler, which has no session for a stream or for building an index.

    Give the server's own host and port as `replication_conninfo`.
    """


class DatabaseError(ServerError):
    """The server reported an error that no other class describes; `sqlstate` says which.

    Attributes:
        sqlstate: the five characters of PostgreSQL's appendix A; `None` if there is no code.
    """

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class SerializationFailure(DatabaseError):  # noqa: N818 (the name in PostgreSQL)
    """Another transaction came in between, and nothing was stored: run the call or the whole transaction again.

    `sqlstate` is `40001` for a serialization failure, `40P01` for a deadlock, and `PGD04` if a collection was dropped
    and created again. `store.run` repeats a transaction.
    """

    retryable = True


class UpgradePrepared(ServerError):  # noqa: N818
    """The database is prepared for an upgrade of PostgreSQL: its collections take no writes, and no consumer opens.

    Run `pgdoc upgrade finish` after the upgrade, or `pgdoc upgrade prepare --cancel`.
    """


class UpgradeRefused(ServerError):  # noqa: N818
    """`pgdoc upgrade` stops before anything could be lost; each finding says what to do.

    Attributes:
        findings: what is in the way, one text each.
    """

    def __init__(self, message: str, *, findings: tuple[str, ...] = ()) -> None:
        super().__init__(": ".join([message, "; ".join(findings)]) if findings else message)
        self.findings = findings


class TableRefused(ServerError):  # noqa: N818
    """A table can't be watched as it is.

    Attributes:
        table: its schema and name, such as `public.orders`.
        reason: why.
        cure: what to do about it; `None` if nothing helps.
    """

    def __init__(self, table: str, reason: str, cure: str | None = None) -> None:
        super().__init__(f'table "{table}" can\'t be watched: {reason}' + (f": {cure}" if cure else ""))
        self.table = table
        self.reason = reason
        self.cure = cure


class CatalogError(PgdocError):
    """The `pgdoc` schema of the database does not work with this version of pgdoc."""


class CatalogMissing(CatalogError):  # noqa: N818
    """The database has no pgdoc catalog: create it with `pgdoc init` or `store.migrate()`."""


class CatalogNotTrusted(CatalogError):  # noqa: N818
    """A superuser connects, but a role that is none owns the catalog: connect as that role, or as another one.

    The owner of a function decides what it does, and it would do that with the superuser's rights.
    """


class CatalogVersionMismatch(CatalogError):  # noqa: N818
    """The catalog is older or newer than this version of pgdoc: run `pgdoc init`, or install a newer pgdoc.

    Attributes:
        found_version: the revision in the database.
        needed_version: the revision that this version of pgdoc needs.
    """

    def __init__(self, message: str, *, found_version: str, needed_version: str) -> None:
        super().__init__(message)
        self.found_version = found_version
        self.needed_version = needed_version


class RegistryUnbound(CatalogError):  # noqa: N818
    """The database is a copy, or was restored from a dump, and its registry of collections belongs to the original.

    Run `pgdoc init` as the catalog's owner, or `SELECT pgdoc.rebind()`.
    """
