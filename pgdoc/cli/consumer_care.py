"""`pgdoc consumers prune`, which drops those that nobody opens, and `recreate`, which lets one begin anew."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

import pgdoc
from pgdoc import ConsumerStatus
from pgdoc.cli.arguments import ConsumerSchema, Dsn, Json, PlainCommand
from pgdoc.cli.consumer_group import ConsumerGroup
from pgdoc.cli.output import print_json
from pgdoc.cli.render import render_bytes, render_delay
from pgdoc.cli.spans import read_span
from pgdoc.errors import ConsumerBusy

__all__ = ["add_care_commands"]

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def add_care_commands(app: typer.Typer) -> None:
    """Add the commands to those of `pgdoc consumers`."""
    app.command("prune", cls=PlainCommand)(prune_command)
    app.command("recreate", cls=PlainCommand)(recreate_command)


def prune_command(  # noqa: PLR0913 (its options)
    context: typer.Context,
    *,
    older_than: Annotated[
        Any,
        typer.Option(
            "--older-than", metavar="SPAN", parser=read_span, help="For how long nobody has had them open, as in 7d."
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be dropped.")] = False,
    yes: Yes = False,
    json: Json = False,
    dsn: Dsn = "",
    schema: ConsumerSchema = None,
) -> None:
    """Drop the consumers that nobody has had open for long, with their replication slots.

    A consumer that is opened meanwhile stays. The exit code is 1 if you do not agree.
    """
    group = context.obj.with_options(dsn, schema, json=json)
    if group.json and not (dry_run or yes):
        raise typer.BadParameter("it can't ask: add --yes or --dry-run", param_hint="'--json'")
    with group.open_store() as store:
        unused = _unused(group.consumers_of(store), older_than)
        if not group.json:
            _list_unused(unused, older_than)
        if unused and not dry_run and not yes:
            typer.confirm(f"Drop {'it' if len(unused) == 1 else f'all {len(unused)}'}?", abort=True)
        for consumer in unused:
            _prune(store, consumer, older_than, group, dry_run=dry_run)


def _unused(consumers: list[ConsumerStatus], span: timedelta) -> list[ConsumerStatus]:
    now = datetime.now(UTC)
    return [
        consumer
        for consumer in consumers
        if consumer.owner_pid is None and consumer.last_open_at is not None and now - consumer.last_open_at >= span
    ]


def _list_unused(unused: list[ConsumerStatus], span: timedelta) -> None:
    if not unused:
        typer.echo(f"Every consumer was open in the last {render_delay(span)}.")
    for consumer in unused:
        age = render_delay(datetime.now(UTC) - (consumer.last_open_at or consumer.created_at))
        kept = render_bytes(consumer.retained_bytes)
        typer.echo(f"{consumer.name} (schema {consumer.schema}): not open for {age}, retains {kept} of WAL")


def _prune(
    store: pgdoc.Store, consumer: ConsumerStatus, span: timedelta, group: ConsumerGroup, *, dry_run: bool
) -> None:
    """Drop one consumer, unless it was opened since it was listed."""
    try:
        is_dropped = not dry_run and store.drop_consumer(consumer.name, unused_for=span)
    except pgdoc.ConsumerBusy:
        is_dropped = False
    if group.json:
        last = consumer.last_open_at
        print_json({"name": consumer.name, "schema": consumer.schema, "last_open_at": last, "dropped": is_dropped})
    elif is_dropped:
        typer.echo(f"Dropped consumer {consumer.name}.")
    elif not dry_run:
        typer.echo(f"Kept consumer {consumer.name}: it was opened meanwhile.")


def recreate_command(  # noqa: PLR0913 (its options)
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The consumer.")],
    *,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="Begin with the documents that exist, when opened with snapshot=True.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
    dsn: Dsn = "",
    schema: ConsumerSchema = None,
) -> None:
    """Let a consumer begin anew from now: one that lost its position, or meets what it can't read.

    It gets no event from before that. Nobody may have it open.
    """
    group = context.obj.with_options(dsn, schema, json=json)
    with group.open_store() as store:
        found = next((each for each in group.consumers_of(store) if each.name == name), None)
        if found is None:
            raise group.unknown(name)
        if found.owner_pid is not None:
            raise ConsumerBusy(
                f'consumer "{name}" is open (its session has pid {found.owner_pid}): close it first',
                owner_pid=found.owner_pid,
            )
        if not yes and found.wal_status not in {None, "lost"}:
            if group.json:
                raise typer.BadParameter("it can't ask: add --yes", param_hint="'--json'")
            typer.confirm(f"{_consequence(found)} Recreate it?", abort=True)
        lsn = store.recreate_consumer(name, snapshot=snapshot)
    if group.json:
        print_json({"name": name, "begins_at": lsn, "was_at": found.place, "snapshot": snapshot})
        return
    rest = "begins with the documents that exist, opened with snapshot=True" if snapshot else f"begins at {lsn}"
    typer.echo(f"Consumer {name} {rest}, and gets no event from before that: rebuild what it feeds.")


def _consequence(found: ConsumerStatus) -> str:
    behind = render_bytes(found.lag_bytes)
    return f"Consumer {found.name} can still go on: it is {behind} behind, and would never get the events in between."
