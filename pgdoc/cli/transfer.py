"""Lines of JSON into a collection, and back: `pgdoc load` and `pgdoc dump`."""

from __future__ import annotations

import codecs
import contextlib
import os
import stat
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import psycopg
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from pgdoc import DuplicateDocument, InvalidDocument, UnreadableDocument, new_id
from pgdoc.cli.render import shorten
from pgdoc.errors import PgdocError
from pgdoc.model import json_codec
from pgdoc.model.names import quoted
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pgdoc import Store
    from pgdoc.model.documents import Document

__all__ = ["ID_FIELD", "dump_documents", "load_documents"]

ID_FIELD = "_id"
"""The field of a dump that holds the id. No document can have a field of this name."""

_REPORT_EVERY = 1000


class _Lines:
    """The documents of a file; counts the lines and bytes read."""

    def __init__(self, file: IO[bytes], id_field: str) -> None:
        self._file = file
        self._id_field = id_field
        self.number = 0
        self.bytes_read = 0

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for line in self._file:
            self.number += 1
            self.bytes_read += len(line)
            text = line.removeprefix(codecs.BOM_UTF8) if self.number == 1 else line  # as tools on Windows write it
            if text and not text.isspace():
                yield self._pair(_object(text))

    def _pair(self, data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        if self._id_field == ID_FIELD:
            found = data.pop(ID_FIELD, None)
            found = new_id() if found is None else found
        elif self._id_field in data:
            found = data[self._id_field]
        else:
            raise InvalidDocument(f"the id is missing: there is no field {self._id_field!r}")
        if isinstance(found, int) and not isinstance(found, bool):
            found = str(found)
        if not isinstance(found, str):
            raise InvalidDocument(
                f"the id must be text or an integer, got {shorten(found)} in field {self._id_field!r}"
            )
        return found, data


def load_documents(file: IO[bytes], store: Store, schema: str, name: str, id_field: str) -> int:
    """Insert the documents of a file, all or none, in one transaction.

    A missing collection is created before it. One transaction for both would make every other creation of a collection
    wait until the end of the load. If the load fails, the new collection is dropped, unless others have filled it.

    Raises:
        InvalidDocument: a line is not a document. The message has its number.
        DuplicateDocument: an id exists, or the file has it twice.
    """
    lines = _Lines(file, id_field)
    with _progress(_size(file)) as report, _dropped_after_failure(store, schema, name):
        try:
            count = store[name].insert_many(lines, progress=lambda count: report(count, lines.bytes_read))
        except InvalidDocument as exc:  # insert_many reads each line just before it sends it
            raise InvalidDocument(f"line {lines.number}: {exc}; nothing was stored", path=exc.path) from exc
        except DuplicateDocument as exc:
            raise DuplicateDocument(f"{exc}; nothing was stored", document_id=exc.document_id) from exc
    return count


@contextmanager
def _dropped_after_failure(store: Store, schema: str, name: str) -> Iterator[None]:
    """Drop the collection if the block creates it and fails, while it is empty."""
    existed = name in store.collections()
    try:
        yield
    except BaseException:
        if not existed:
            with contextlib.suppress(PgdocError, psycopg.Error):  # such as a lost server: the first error counts
                _drop_if_empty(store, schema, name)
        raise


def _drop_if_empty(store: Store, schema: str, name: str) -> None:
    if name not in store.collections():
        return
    with store.transaction() as tx:
        tx.connection.execute("SET LOCAL lock_timeout = '2s'")  # a collection that another program uses can stay
        tx.connection.execute(f"LOCK TABLE {quoted(schema, name)}".encode())
        if not tx[name].count():
            tx.connection.execute(statement("catalog", "drop_collection").encode(), [schema, name])


def dump_documents(store: Store, collection: str, where: Mapping[str, Any] | None) -> None:
    """Write the documents to stdout, one per line, the id first.

    One that is unreadable does not stop the others: it is named on stderr.

    Raises:
        UnreadableDocument: documents were unreadable, and are missing in the output.
        DatabaseError: a row policy would hide documents from the role, and so leave them out.
    """
    out = sys.stdout.buffer
    written = 0
    count = 0
    unreadable = 0
    with store.transaction() as tx, _progress(None, shown=not sys.stdout.isatty()) as report:
        tx.connection.execute("SET LOCAL row_security = off")  # PostgreSQL then refuses, as with pg_dump
        for count, document in enumerate(tx[collection].find(where), 1):
            try:
                line = json_codec.encode_value({ID_FIELD: document.id, **document.data}, "") + b"\n"
            except (InvalidDocument, UnreadableDocument) as exc:
                unreadable += 1
                typer.echo(f"pgdoc: {_unreadable(document, collection, exc)}", err=True)
                continue
            out.write(line)
            written += len(line)
            if count % _REPORT_EVERY == 0:
                report(count, written)
        report(count, written)
        out.flush()
    if unreadable:
        raise UnreadableDocument(
            f"{unreadable} of {count} documents are unreadable, and missing in the output: change them with SQL, and "
            "dump again",
            collection=collection,
        )


def _unreadable(document: Document, collection: str, exc: PgdocError) -> str:
    if isinstance(exc, UnreadableDocument):  # its message names the document
        return f"cannot dump {exc}"
    return f'cannot dump document {document.id!r} of collection "{collection}": {exc}'


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json_codec.decode_decimals(line)
    except UnreadableDocument as exc:
        raise InvalidDocument(f"this is not valid JSON ({exc.__cause__})") from exc
    if not isinstance(value, dict):
        raise InvalidDocument(f"expected a JSON object, got {shorten(value)}")
    return value


def _size(file: IO[bytes]) -> int | None:
    found = os.fstat(file.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None


@contextmanager
def _progress(total: int | None, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar if stderr is a terminal; yield the function that advances it."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.fields[count]:,} documents"),
        BarColumn(bar_width=20),
        DownloadColumn(binary_units=True),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
        console=console,
        disable=not (shown and console.is_terminal),
    )
    with progress:
        task = progress.add_task("", total=total, count=0, rate=0.0)

        def report(count: int, size: int) -> None:
            elapsed = progress.tasks[0].elapsed or 0.0
            progress.update(task, completed=size, count=count, rate=count / elapsed if elapsed else 0.0)

        yield report
