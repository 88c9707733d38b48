"""`pgdoc dead-letters`: list the events that handlers of workers could not process, and retry or drop them."""

from datetime import UTC, datetime
from typing import Annotated

import typer

import pgdoc
from pgdoc import DeadLetter
from pgdoc.cli.arguments import ConsumerSchema, Dsn, Json, PlainCommand
from pgdoc.cli.letter_group import LetterGroup
from pgdoc.cli.letter_printing import print_letter, print_letters, target_of
from pgdoc.cli.output import print_json
from pgdoc.cli.render import printable, render_delay

__all__ = ["dead_letters_app"]

dead_letters_app = typer.Typer(
    help="List, retry or drop the events that handlers of workers could not process.", rich_markup_mode=None
)

LetterIds = Annotated[list[int] | None, typer.Argument(metavar="ID", help="The letters.")]
OfConsumer = Annotated[str | None, typer.Option("--consumer", metavar="NAME", help="Only those of this consumer.")]
OfHandler = Annotated[str | None, typer.Option("--handler", metavar="NAME", help="Only those of this handler.")]
OfCollection = Annotated[
    str | None, typer.Option("--collection", metavar="NAME", help="Only those of this collection or table.")
]
OfDocument = Annotated[str | None, typer.Option("--document", metavar="ID", help="Only those of this document.")]
InState = Annotated[
    str | None, typer.Option("--state", metavar="STATE", help="Only those in this state: dead, parked or due.")
]
Everything = Annotated[bool, typer.Option("--all", help="All there are.")]


@dead_letters_app.callback(invoke_without_command=True)
def dead_letters_command(
    context: typer.Context, *, json: Json = False, dsn: Dsn = "", schema: ConsumerSchema = None
) -> None:
    """List, retry or drop the events that handlers of workers could not process."""
    context.obj = LetterGroup(dsn, schema, json=json)
    if context.invoked_subcommand is None:
        list_letters_command(context)


@dead_letters_app.command("list")
def list_letters_command(  # noqa: PLR0913 (its options)
    context: typer.Context,
    *,
    consumer: OfConsumer = None,
    handler: OfHandler = None,
    state: InState = None,
    collection: OfCollection = None,
    document: OfDocument = None,
    after: Annotated[int | None, typer.Option("--after", metavar="ID", help="Only those with a higher id.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most this many.")] = 100,
    json: Json = False,
    dsn: Dsn = "",
    schema: ConsumerSchema = None,
) -> None:
    """List the letters, in the order in which they are tried again.

    For each: its state, its handler, its event and the error.
    """
    group = context.obj.with_options(dsn, schema, json=json)
    filters = {
        "consumer": consumer,
        "handler": handler,
        "state": state,
        "collection": collection,
        "document_id": document,
    }
    with group.open_store() as store:
        print_letters(group.letters_of(store, filters, after, limit), limit, json=group.json)


@dead_letters_app.command("show", cls=PlainCommand)
def show_letter_command(
    context: typer.Context,
    letter: Annotated[int, typer.Argument(metavar="ID", help="The letter.")],
    *,
    json: Json = False,
    dsn: Dsn = "",
    schema: ConsumerSchema = None,
) -> None:
    """Show a letter with its event, and the traceback of the error."""
    group = context.obj.with_options(dsn, schema, json=json)
    with group.open_store() as store:
        (found,) = group.known(store, [letter])
    print_letter(found, json=group.json)


@dead_letters_app.command("retry", cls=PlainCommand)
def retry_letters_command(  # noqa: PLR0913 (its options)
    context: typer.Context,
    letters: LetterIds = None,
    *,
    consumer: OfConsumer = None,
    handler: OfHandler = None,
    collection: OfCollection = None,
    document: OfDocument = None,
    everything: Everything = False,
    json: Json = False,
    dsn: Dsn = "",
    schema: ConsumerSchema = None,
) -> None:
    """Let the worker that has their consumer try letters again, in the order of their document."""
    group = context.obj.with_options(dsn, schema, json=json)
    filters = {"consumer": consumer, "handler": handler, "collection": collection, "document_id": document}
    group.check_choice(letters, filters, everything=everything)
    with group.open_store() as store:
        known = group.known(store, letters or [])
        count = group.change(store, store.retry_dead_letters, letters, filters)
    if group.json:
        print_json({"due": count})
        return
    if count:
        typer.echo(f"{_counted(count)} due now: the worker that has the consumer tries again.")
    else:
        typer.echo("No letter is due now: none of these is dead.")
    for letter in known:
        if letter.state != "dead":
            behind = ", and waits for a dead letter of its document" if letter.state == "parked" else ""
            typer.echo(f"Letter {letter.id} was {letter.state} already{behind}.")


@dead_letters_app.command("drop", cls=PlainCommand)
def drop_letters_command(  # noqa: PLR0913 (its options)
    context: typer.Context,
    letters: LetterIds = None,
    *,
    consumer: OfConsumer = None,
    handler: OfHandler = None,
    state: InState = None,
    collection: OfCollection = None,
    document: OfDocument = None,
    everything: Everything = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
    dsn: Dsn = "",
    schema: ConsumerSchema = None,
) -> None:
    """Delete letters: their handler never processes these events.

    The exit code is 1 if you do not agree.
    """
    group = context.obj.with_options(dsn, schema, json=json)
    filters = {
        "consumer": consumer,
        "handler": handler,
        "state": state,
        "collection": collection,
        "document_id": document,
    }
    group.check_choice(letters, filters, everything=everything)
    if group.json and not yes:
        raise typer.BadParameter("it can't ask: add --yes", param_hint="'--json'")
    with group.open_store() as store:
        known = group.known(store, letters or [])
        if not yes:
            _confirm(store, group, known, filters)
        count = group.change(store, store.drop_dead_letters, letters, filters)
    if group.json:
        print_json({"dropped": count})
    else:
        typer.echo(f"Dropped {count} letter{'' if count == 1 else 's'}.")


def _counted(count: int) -> str:
    return f"{count} dead letter{' is' if count == 1 else 's are'}"


def _confirm(store: pgdoc.Store, group: LetterGroup, known: list[DeadLetter], filters: dict[str, str | None]) -> None:
    """Show what is to be dropped, the first of many, and ask."""
    shown = known or list(group.letters_of(store, filters, None, _SHOWN + 1))
    if not shown:
        return
    for letter in shown[:_SHOWN]:
        age = render_delay(datetime.now(UTC) - letter.stored_at)
        kind = letter.event_type or "change"
        line = f"{letter.id} {letter.state} {letter.handler} {kind} {target_of(letter)}, {age} old"
        typer.echo(printable(line))
    if len(shown) > _SHOWN:
        typer.echo("... and more")
    what = "it" if len(shown) == 1 else "all of them"
    typer.confirm(f"Drop {what}, so that the handler never processes the event?", abort=True)


_SHOWN = 10
