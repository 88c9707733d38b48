"""The commands of `pgdoc`."""

import errno
import os
import shlex
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

import pgdoc
from pgdoc.cli.arguments import (
    PLUGINS,
    Dsn,
    Json,
    PlainCommand,
    Schema,
    UnusedSchema,
    invalid_where,
    read_filter,
    read_plugin,
    refuse_names_with_all,
)
from pgdoc.cli.consumers import consumers_app
from pgdoc.cli.dead_letters import dead_letters_app
from pgdoc.cli.demo import run_demo
from pgdoc.cli.doctor.command import doctor_command
from pgdoc.cli.grants import grant_command
from pgdoc.cli.groups import groups_app
from pgdoc.cli.invocation import own_command
from pgdoc.cli.metrics import metrics_command
from pgdoc.cli.opening import explain_missing, has_schema, missing_collections, open_stream, schema_not_found
from pgdoc.cli.output import print_events, print_fields, print_json, print_json_lines
from pgdoc.cli.publishing import Topics, add_publish_command
from pgdoc.cli.relay import relay_command
from pgdoc.cli.remote import refuse_store_options, watch_log
from pgdoc.cli.render import printable
from pgdoc.cli.sizes import read_size
from pgdoc.cli.stores import DEFAULT_SCHEMA, open_store
from pgdoc.cli.tables import tables_app
from pgdoc.cli.termination import exit_at_sigterm
from pgdoc.cli.transfer import ID_FIELD, dump_documents, load_documents
from pgdoc.cli.ttl import ttl_app
from pgdoc.cli.upgrade import upgrade_app
from pgdoc.cli.worker import worker_command
from pgdoc.errors import CollectionNotFound, PgdocError, ServerUnreachable
from pgdoc.model.names import check_name
from pgdoc.model.table_names import is_table_name, titled
from pgdoc.server import LocalServer

__all__ = ["app", "run_cli"]

app = typer.Typer(
    name="pgdoc",
    help="A document store on PostgreSQL whose changes can be watched.",
    no_args_is_help=True,
    rich_markup_mode=None,  # no boxes
    pretty_exceptions_enable=False,
)

app.add_typer(consumers_app, name="consumers")
app.add_typer(dead_letters_app, name="dead-letters")
for name, commands in (("groups", groups_app), ("tables", tables_app), ("ttl", ttl_app), ("upgrade", upgrade_app)):
    app.add_typer(commands, name=name)
app.command("metrics")(metrics_command)
app.command("grant", cls=PlainCommand)(grant_command)
app.command("worker", cls=PlainCommand)(worker_command)
app.command("relay", cls=PlainCommand)(relay_command)
add_publish_command(app)

_POLL_S = 1.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_cli(arguments: list[str] | None = None) -> int:
    """Run one command and report its errors on stderr.

    Returns:
        The exit code: 0 for success, 1 for failure, 2 for invalid arguments, 130 after Ctrl-C.
    """
    try:
        app(arguments, prog_name="pgdoc")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except PgdocError as error:
        sys.stderr.write(f"pgdoc: {printable(' '.join(str(error).split()))}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.errno not in _FULL:
            raise  # a bug; a closed pipe does not get here
        sys.stderr.write(f"pgdoc: writing failed ({os.strerror(error.errno)}): free space, or write somewhere else\n")
        return 1
    return 0


@app.callback(invoke_without_command=True)
def root_options(
    *, version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")] = False
) -> None:
    """A document store on PostgreSQL whose changes can be watched."""
    if version:
        typer.echo(f"pgdoc {metadata.version('pgdoc')}")
        raise typer.Exit


@app.command("init")
def init_command(dsn: Dsn = "", schema: UnusedSchema = DEFAULT_SCHEMA) -> None:
    """Create the catalog of a database, or upgrade it."""
    with open_store("init", dsn, schema) as store:
        store.migrate()
    typer.echo("The database is ready.")


@app.command("up")
def up_command(
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Keep the data in this folder. By default, the data is deleted at the end."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="Listen on 127.0.0.1 at this port; 0 selects a free one. By default, only on a Unix socket.",
        ),
    ] = None,
    schema: Annotated[
        str, typer.Option("--schema", metavar="NAME", help="The schema in the `pgdoc watch` command that is printed.")
    ] = DEFAULT_SCHEMA,
) -> None:
    """Run a private PostgreSQL server until Ctrl-C.

    The server is ready for development: it has the catalog, and is set up for change streams.
    """
    check_name(schema, "schema")
    exit_at_sigterm()
    with LocalServer(folder, port=port) as server:
        with open_store("up", server.conninfo, schema) as store:
            store.migrate()
        option = "" if schema == DEFAULT_SCHEMA else f" --schema {schema} --create"
        typer.echo(f"PostgreSQL is running. Its data is in {server.folder}. Ctrl-C stops it.\n")
        typer.echo(f"  export PGDOC_DSN={shlex.quote(server.conninfo)}\n")
        typer.echo(f"Then, in another terminal: {own_command()} watch{option}")
        while not server.has_exited:
            time.sleep(_POLL_S)
        raise ServerUnreachable(f"the server exited: run `pgdoc up` again; its log ends with: {server.log_tail(3)}")


@app.command("demo")
def demo_command(
    dsn: Annotated[
        str,
        typer.Option(
            metavar="DSN", help="Use this database. By default, the demo starts a private server and removes it."
        ),
    ] = "",
    schema: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Use this schema. With --dsn it must be new, and is dropped at the end."),
    ] = None,
    plugin: Annotated[
        str,
        typer.Option(
            metavar="|".join(PLUGINS),
            parser=read_plugin,
            autocompletion=lambda: list(PLUGINS),
            help="The output plugin of the streams.",
        ),
    ] = "auto",
) -> None:
    """Show on real documents that no change is lost.

    The demo leaves nothing behind.
    """
    raise typer.Exit(run_demo(dsn, plugin, schema))


@app.command("watch", cls=PlainCommand)
def watch_command(  # noqa: PLR0913 (its options)
    collections: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COLLECTION",
            help="The collections to watch, and the tables as SCHEMA.TABLE (see `pgdoc tables`). By default, all "
            "collections.",
        ),
    ] = None,
    *,
    tables: Annotated[bool, typer.Option("--tables", help="Without names, watch all watched tables, too.")] = False,
    topic: Topics = None,
    create: Annotated[
        bool, typer.Option("--create", help="Create the collections and the consumer that do not exist.")
    ] = False,
    resume_after: Annotated[
        str | None, typer.Option("--from", metavar="TOKEN", help="Continue after this token, or from this LSN.")
    ] = None,
    from_relay: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="PGDOC_FROM_RELAY",
            help="Read the log that `pgdoc relay` writes, such as nats://host/ORDERS, instead of the server. "
            "`--from beginning` begins with its oldest event.",
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --from-relay: share the log's partitions with the other members of this group, and continue "
            "after what it has printed.",
        ),
    ] = None,
    consumer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Open this durable consumer, and continue from its stored position. --create creates a new one, "
            "which keeps WAL on the server until `pgdoc consumers drop NAME`.",
        ),
    ] = None,
    where: Annotated[
        Any,
        typer.Option(
            metavar="JSON",
            parser=read_filter,
            help='Print only events that match this filter, such as {"event_type": "insert"}.',
        ),
    ] = None,
    snapshot: Annotated[bool, typer.Option("--snapshot", help="Begin with the documents that exist.")] = False,
    tokens: Annotated[
        bool,
        typer.Option("--tokens", help="Print each event's resume token on a line below it. --json always has tokens."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one event per line, as JSON.")] = False,
    dsn: Dsn = "",
    schema: Schema = DEFAULT_SCHEMA,
) -> None:
    """Print each change as it happens, until Ctrl-C.

    Each event begins with the local time of its commit and ends with how long after the commit it arrived. A stream
    that resumes (--from, or a consumer that exists) creates no collections.
    """
    names = collections or []
    refuse_names_with_all(names, tables=tables)
    if from_relay is not None:
        refuse_store_options({"--tables": tables, "--create": create, "--consumer": consumer, "--snapshot": snapshot})
        watch_log(
            from_relay,
            names,
            topics=topic,
            where=where,
            resume_after=resume_after,
            group=group,
            json=json,
            tokens=tokens,
        )
        return
    if group is not None:
        raise typer.BadParameter("a group reads a log: give --from-relay too", param_hint="'--group'")
    options = {
        "tables": tables,
        "topics": topic,
        "where": where,
        "snapshot": snapshot,
        "resume_after": resume_after,
        "consumer": consumer,
    }
    with (
        open_store("watch", dsn, schema, auto_create=create) as store,
        open_stream(store, schema, names, options, create=create) as stream,
    ):
        everything = ["all collections and tables"] if tables else [] if topic else ["all collections"]
        typer.echo(f"watching {', '.join([*(names or everything), *(topic or ())])}; Ctrl-C stops", err=True)
        for missing in missing_collections(store, names):  # possible only if the stream resumes
            found = "is not watched" if is_table_name(missing) else "does not exist"
            typer.echo(
                f"pgdoc: {titled(missing, schema)} {found}, and a stream that resumes does not create it", err=True
            )
        if json:
            print_json_lines(stream)
        else:
            print_events(stream, shows_tokens=tokens)


@app.command("collections")
def collections_command(*, json: Json = False, dsn: Dsn = "", schema: Schema = DEFAULT_SCHEMA) -> None:
    """List the collections, one per line."""
    with open_store("collections", dsn, schema) as store:
        _note_missing_schema(store, schema)
        for name in store.collections():
            if json:
                print_json({"schema": schema, "name": name})
            else:
                typer.echo(name)


@app.command("status")
def status_command(*, json: Json = False, dsn: Dsn = "", schema: Schema = DEFAULT_SCHEMA) -> None:
    """Show the state of the server and of the catalog."""
    with open_store("status", dsn, schema) as store:
        _note_missing_schema(store, schema)
        (print_json if json else print_fields)(store.status())


@app.command("history")
def history_command(*, json: Json = False, dsn: Dsn = "", schema: UnusedSchema = DEFAULT_SCHEMA) -> None:
    """Show how far back a stream can resume."""
    with open_store("history", dsn, schema) as store:
        (print_json if json else print_fields)(store.history())


app.command("doctor")(doctor_command)


@app.command("load", cls=PlainCommand)
def load_command(
    file: Annotated[
        typer.FileBinaryRead, typer.Argument(metavar="FILE", help="One JSON object per line; - reads stdin.")
    ],
    collection: Annotated[str, typer.Argument(metavar="COLLECTION", help="Created if it does not exist.")],
    id_field: Annotated[
        str,
        typer.Option(
            "--id",
            metavar="FIELD",
            help="The field with the id. The field _id is taken out of the data; if it is missing, an id is generated.",
        ),
    ] = ID_FIELD,
    dsn: Dsn = "",
    schema: Schema = DEFAULT_SCHEMA,
) -> None:
    """Insert the documents of a file, all or none."""
    with open_store("load", dsn, schema) as store:
        count = load_documents(file, store, schema, collection, id_field)
    typer.echo(f"Loaded {count:,} document{'' if count == 1 else 's'} into {collection}.", err=True)


@app.command("limit", cls=PlainCommand)
def limit_command(
    collection: Annotated[str, typer.Argument(metavar="COLLECTION", help="An existing collection.")],
    size: Annotated[str, typer.Argument(metavar="SIZE", help="Bytes, or as in 64MiB; none for no limit.")],
    dsn: Dsn = "",
    schema: Schema = DEFAULT_SCHEMA,
) -> None:
    """Limit the JSON text of each document of a collection.

    New collections have a limit of 64MiB.
    """
    most = read_size(size)
    with open_store("limit", dsn, schema, auto_create=False) as store:
        store[collection].set_limits(max_size=most)
    typer.echo(f"Documents of {collection} have {'no limit' if most is None else f'at most {most:,} bytes'} now.")


@app.command("dump", cls=PlainCommand)
def dump_command(
    collection: Annotated[str, typer.Argument(metavar="COLLECTION", help="The collection to read.")],
    where: Annotated[
        Any,
        typer.Option(
            metavar="JSON", parser=read_filter, help='Write only documents that match, such as {"status": "new"}.'
        ),
    ] = None,
    dsn: Dsn = "",
    schema: Schema = DEFAULT_SCHEMA,
) -> None:
    """Write the documents of a collection, one per line.

    The output on stdout is what `pgdoc load` reads.
    """
    with open_store("dump", dsn, schema, auto_create=False, decimals=True) as store:
        try:
            with invalid_where():
                dump_documents(store, collection, where)
        except CollectionNotFound as exc:
            raise explain_missing(store, schema, collection) from exc


def _note_missing_schema(store: pgdoc.Store, schema: str) -> None:
    if not has_schema(store, schema):
        typer.echo(f"pgdoc: {schema_not_found(schema)}", err=True)
