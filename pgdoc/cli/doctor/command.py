"""The command `pgdoc doctor`."""

from typing import Annotated

import typer

from pgdoc.cli.arguments import Dsn, Json, Schema
from pgdoc.cli.doctor.printing import print_finding
from pgdoc.cli.doctor.run import examine_server
from pgdoc.cli.output import print_json
from pgdoc.cli.stores import DEFAULT_SCHEMA

__all__ = ["doctor_command"]


def doctor_command(
    *,
    json: Json = False,
    from_relay: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="PGDOC_FROM_RELAY",
            help="Check the groups that read this log, too, such as nats://host/ORDERS.",
        ),
    ] = "",
    dsn: Dsn = "",
    schema: Schema = DEFAULT_SCHEMA,
) -> None:
    """Report what is wrong or may go wrong, and the commands that mend it.

    Nothing is changed. The exit code is 1 if anything is wrong.
    """
    show = print_json if json else print_finding
    verdicts = []
    for finding in examine_server(dsn, schema, log_url=from_relay):
        verdicts.append(finding.verdict)
        show(finding)
    raise typer.Exit(int("wrong" in verdicts))
