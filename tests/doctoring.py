"""Provoke the findings of `pgdoc doctor`, and mend them with the commands that it advises.

A unit test looks for the calls of `finding` and `findings`: each kind of finding in the code needs one.
"""

from __future__ import annotations

import contextlib
import io
import shlex
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import make_conninfo

from pgdoc.cli.app import run_cli
from pgdoc.cli.doctor import Finding, examine_server
from tests.integration.own_server.words import wait_until

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


FAILOVER = ["failover"]


def findings(dsn: str, finding_id: str, **options: Any) -> list[Finding]:
    """Return the findings of a kind that are not `ok`, at least one; `options` are those of `left`."""
    found = left(dsn, finding_id, **options)
    assert found, f"no finding {finding_id}: {left(dsn, None, **options)}"
    return found


def finding(dsn: str, finding_id: str, **options: Any) -> Finding:
    """Return the one finding of a kind that is not `ok`."""
    (found,) = findings(dsn, finding_id, **options)
    return found


def left(
    dsn: str,
    finding_id: str | None,
    *,
    only: Collection[str] = (),
    schema: str = "docs",
    about: str | None = None,
    log_url: str = "",
) -> list[Finding]:
    """Return the findings of a kind that are not `ok`, or of all kinds."""
    return [
        each
        for each in examine_server(dsn, schema, only=only, log_url=log_url)
        if finding_id in {None, each.id} and each.verdict != "ok" and about in {None, each.object}
    ]


_CONFIRMED = ("pgdoc consumers recreate", "pgdoc dead-letters drop")


def mend(connection: psycopg.Connection, dsn: str, found: Finding) -> None:
    """Run the commands that a finding advises: SQL on the connection, others as in a shell."""
    assert found.fix, found
    for command in found.fix:
        if command.startswith("pgdoc "):
            output = io.StringIO()
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                confirmed = ["--yes"] if command.startswith(_CONFIRMED) else []
                words = shlex.split(command)[1:]
                end = words.index("--") if "--" in words else len(words)
                code = run_cli([*words[:end], *confirmed, "--dsn", dsn, *words[end:]])
            assert code == 0, output.getvalue()
        else:
            connection.execute(command.encode())


@contextlib.contextmanager
def standby(dsn: str, name: str, slot: str = "") -> Iterator[psycopg.Connection]:
    """Stream as a standby does."""
    conninfo = make_conninfo(dsn, application_name=name, replication="true", dbname="")
    with contextlib.closing(psycopg.connect(conninfo, autocommit=True)) as connection:
        ((_, _, at, _),) = connection.execute("IDENTIFY_SYSTEM").fetchall()
        through = f"SLOT {slot} " if slot else ""
        connection.pgconn.exec_(f"START_REPLICATION {through}PHYSICAL {at.decode()}".encode())
        with psycopg.connect(dsn, autocommit=True) as watching:
            streaming = "SELECT FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'"
            wait_until(lambda: bool(watching.execute(streaming, [name]).fetchall()))
        yield connection


def mends_failover(connection: psycopg.Connection, dsn: str, finding_id: str, about: str | None = None) -> None:
    for each in findings(dsn, finding_id, only=FAILOVER, about=about):
        mend(connection, dsn, each)
    wait_until(lambda: not left(dsn, finding_id, only=FAILOVER, about=about))
