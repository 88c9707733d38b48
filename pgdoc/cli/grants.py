"""`pgdoc grant`: print or run the SQL that gives a role its rights."""

from __future__ import annotations

import json as json_module
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any, Final

import psycopg
import typer
from psycopg.rows import namedtuple_row

from pgdoc.cli.arguments import Dsn, Schema  # noqa: TC001 (Typer reads them)
from pgdoc.cli.render import printable
from pgdoc.cli.stores import DEFAULT_SCHEMA, conninfo_of_command, explain_missing_dsn
from pgdoc.database.catalog import check_server
from pgdoc.database.conninfo import connect_bounded
from pgdoc.database.errors import connection_error, is_connection_loss, map_error, one_line
from pgdoc.database.grants import PURPOSES, fact_queries, plan_grant, read_facts
from pgdoc.errors import DatabaseError
from pgdoc.model.names import check_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgdoc.database.grants import GrantFacts, GrantPlan, GrantStep

__all__ = ["grant_command"]

_BEGIN: Final = (b"SET LOCAL search_path = pg_catalog, pg_temp", b"SET LOCAL lock_timeout = '10s'")
_NOT_GRANTED: Final = "01007"
"""The SQLSTATE of the warning with which PostgreSQL leaves out a privilege that the role may not pass on."""

_MOST_ROUNDS: Final = 3


def _read_purpose(text: str) -> str:
    if text not in PURPOSES:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(PURPOSES)}")
    return text


def grant_command(  # noqa: PLR0913 (its options)
    role: Annotated[
        str, typer.Argument(metavar="ROLE", help="The role, as it is written in pg_roles, without quotes.")
    ],
    purpose: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="|".join(PURPOSES),
            parser=_read_purpose,
            autocompletion=lambda: list(PURPOSES),
            help="What the role is to do.",
        ),
    ],
    *,
    creator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A role that will create collections in the schema, so that these are granted, too. Roles that own a "
            "collection there or may create one are found.",
        ),
    ] = None,
    complete: Annotated[bool, typer.Option("--all", help="Also print or run what the role has already.")] = False,
    run: Annotated[bool, typer.Option("--run", help="Run the SQL in one transaction, and say what was run.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    dsn: Dsn = "",
    schema: Schema = DEFAULT_SCHEMA,
) -> None:
    """Print the SQL that gives a role its rights, or run it.

    Only what the role lacks is printed. `docs/reference/roles.md` says what each role can do.
    """
    check_name(schema, "schema")
    done: list[GrantStep] = []
    with closing(_connect(dsn)) as connection:
        plan = _plan(connection, role, purpose, schema, creator or (), complete=complete)
        script = plan.script()
        for _ in range(_MOST_ROUNDS if run else 0):
            if not plan.steps:
                break
            _run_steps(connection, plan.steps)
            done += plan.steps
            # What another session created meanwhile needs another round.
            plan = _plan(connection, role, purpose, schema, creator or ())
    if json:
        typer.echo(_as_json(plan, done if run else plan.steps, ran=run))
    elif run:
        for line in _report(plan, done):
            typer.echo(printable(line))
    else:
        typer.echo(script)


def _connect(dsn: str) -> psycopg.Connection[Any]:
    try:
        connection = connect_bounded(
            conninfo_of_command("grant", dsn),
            autocommit=True,
            row_factory=namedtuple_row,
            prepare_threshold=None,
        )
    except psycopg.Error as exc:
        error = connection_error(exc)
        raise (error if dsn else explain_missing_dsn(error)) from exc
    try:
        check_server(connection.info.server_version, connection.info.parameter_status("server_encoding"))
    except BaseException:
        connection.close()
        raise
    return connection


def _plan(  # noqa: PLR0913 (as the command)
    connection: psycopg.Connection[Any],
    role: str,
    purpose: str,
    schema: str,
    creators: Sequence[str],
    *,
    complete: bool = False,
) -> GrantPlan:
    facts = _find_facts(connection, role, schema, creators)
    return plan_grant(role, purpose, schema, facts, complete=complete)


def _find_facts(connection: psycopg.Connection[Any], role: str, schema: str, creators: Sequence[str]) -> GrantFacts:
    queries, params = fact_queries(role, schema, creators)
    try:
        with connection.transaction():
            connection.execute(_BEGIN[0])
            found = {name: connection.execute(query, params).fetchall() for name, query in queries}
    except psycopg.Error as exc:
        raise map_error(exc, f'the rights of role "{role}"') from exc
    return read_facts(found, role, creators)


def _run_steps(connection: psycopg.Connection[Any], steps: Sequence[GrantStep]) -> None:
    """Run all or none.

    Raises:
        DatabaseError: the role of the connection may not run one of them.
    """
    refused: list[str] = []

    def note(notice: psycopg.errors.Diagnostic) -> None:
        if notice.sqlstate == _NOT_GRANTED:
            refused.append(notice.message_primary or "")

    connection.add_notice_handler(note)
    step = steps[0]
    try:
        with connection.transaction():
            for setting in _BEGIN:
                connection.execute(setting)
            for step in steps:
                connection.execute(step.sql.encode())
                if refused:
                    raise _may_not(connection, step, refused[0])
    except psycopg.errors.InsufficientPrivilege as exc:
        raise _may_not(connection, step, one_line(exc)) from exc
    except psycopg.Error as exc:
        if is_connection_loss(exc):
            raise map_error(exc, "the grant") from exc
        found = f"{step.sql}: {one_line(exc)}"
        raise DatabaseError(f"{found}. Nothing was granted: run the command again", sqlstate=exc.sqlstate) from exc
    finally:
        connection.remove_notice_handler(note)


def _may_not(connection: psycopg.Connection[Any], step: GrantStep, text: str) -> DatabaseError:
    return DatabaseError(
        f'role "{connection.info.user}" may not run {step.sql}, which needs {step.needs} ({text}). Nothing was '
        "granted: run this statement as such a role, and the command again; without --run it prints all statements",
        sqlstate="42501",
    )


def _report(plan: GrantPlan, done: Sequence[GrantStep]) -> Iterator[str]:
    for step in done:
        yield f"ran  {step.sql}"
    found = f'role "{plan.role}" {plan.meaning}'
    yield f"Now {found}." if done else f"{found} already: nothing was run."
    for note in plan.notes:
        yield f"note  {note}"


def _as_json(plan: GrantPlan, steps: Sequence[GrantStep], *, ran: bool) -> str:
    return json_module.dumps(
        {
            "role": plan.role,
            "as": plan.purpose,
            "database": plan.database,
            "schema": plan.schema,
            "ran": ran,
            "statements": [{"sql": step.sql, "needs": step.needs} for step in steps],
            "notes": list(plan.notes),
        }
    )
