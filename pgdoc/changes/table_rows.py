"""Rows of watched tables: what a plugin sent becomes an id and a JSON object, by the shape that the table had.

An image of such a row has `id`, the text of its key; `data`, the JSON of the row or of its document; and `columns`, the
JSON of the other columns, or `None` if the table has no document. If wal2json has lost a value, `LOST` is the name of
its column.
"""

from __future__ import annotations

import struct
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import orjson

from pgdoc.decoding.frames import PAYLOAD
from pgdoc.decoding.pgoutput import relation_of
from pgdoc.decoding.pgoutput_rows import PgOutputRows
from pgdoc.decoding.records import CELLS, LOST, Images
from pgdoc.decoding.row_json import form_of, json_of_value
from pgdoc.decoding.wal2json_rows import Wal2JsonRows
from pgdoc.errors import ProtocolError, UnreadableDocument

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgdoc.decoding.records import RowChange, Span, TableShape
    from pgdoc.decoding.row_json import Form

    RowReader = Wal2JsonRows | PgOutputRows
    Texts = Mapping[str, str | None]

__all__ = ["TableRows", "changed_of", "columns_text_of", "data_of", "image_of_row", "rows_of_table"]


class TableRows:
    """Makes changes of the rows of a table that is watched now; used by the thread that reads the WAL."""

    def __init__(self, span: Span) -> None:
        self._since, self._label, self._span = span.since, span.label, span
        self._former: Callable[[bytes], Images] | None = None  # what read the last row
        self._is_plain: Callable[[str, bytes], bool]
        self._reads: dict[str, Callable[[bytes], Images]] = {}

    def take(self, row: RowChange) -> RowChange | None:
        """Return the change that a row's change is; `None` if that is not known without parsing it."""
        lsn, kind, _, message, _, read, oid = row
        if lsn < self._since or kind == "T":
            return None
        if read is not self._former:
            rows = _rows_of(row, self._span)
            self._is_plain, self._former = rows.is_plain, read
            self._reads = {each: partial(_read_later, rows, self._span, each) for each in "IUD"}
        if kind != "I" and not self._is_plain(kind, message):
            return None
        made: RowChange = tuple.__new__(type(row), (lsn, kind, self._label, message, True, self._reads[kind], oid))
        return made  # takes half the time of row._replace(...)


def rows_of_table(row: RowChange, span: Span) -> list[RowChange]:
    """Return the changes that a change of a table's row is: two if an UPDATE has changed its key."""
    if row.kind == "T":
        return [row._replace(table=span.label)]
    rows, shape = _rows_of(row, span), _shape_of(span)
    after, before = rows.texts(row.message)
    found = row._replace(table=span.label, complete=_is_complete(row.kind, after, before, shape))
    if row.kind != "U" or not found.complete or all(after.get(name) == before.get(name) for name in shape.key):
        return [found._replace(read=partial(_read, rows, span))]
    return [
        found._replace(kind="D", read=partial(_read_before, rows, span)),
        found._replace(kind="I", read=partial(_read_after, rows, span)),
    ]


class _Image(dict[str, Any]):
    """An image of a plain row, read as far as it is asked for. Any thread may read it: all read the same."""

    __slots__ = ("source",)

    source: tuple[RowReader, Span, bytes, bool]

    def __bool__(self) -> bool:
        return True

    def __missing__(self, name: str) -> Any:
        rows, span, message, is_before = self.source
        try:
            if name == "id":
                self["id"] = found = rows.id_of(message)
                return found
            image = rows.before(message) if is_before else rows.after(message)
        except (LookupError, ValueError, struct.error):
            image = _read(rows, span, message)[is_before]
            if not image:
                raise ProtocolError(f'a change of table "{span.label}" lacks an image', offset=PAYLOAD) from None
        self.update(image)
        return image[name]


def data_of(image: dict[str, Any], table: str) -> str:
    """Return the JSON of the row, or of its document.

    Raises:
        UnreadableDocument: wal2json has lost a value of the row.
    """
    text: str = image["data"]
    if LOST in image:
        raise _lost(image["id"], image[LOST], table)
    return text


def columns_text_of(image: dict[str, Any], table: str) -> str | None:
    """Return the JSON of the other columns, as `data_of` does; `None` if the table has no document."""
    text: str | None = image["columns"]
    if text is not None and LOST in image:
        raise _lost(image["id"], image[LOST], table)
    return text


def changed_of(new: dict[str, Any], old: dict[str, Any]) -> tuple[str, str] | None:
    """Return the JSON of the columns that differ, before and after, of two images that were read.

    `None` if the images have a document, or were not read column by column.
    """
    if CELLS not in new or CELLS not in old or new["columns"] is not None:
        return None
    assert isinstance(new, _Image)  # noqa: S101 (no other image has cells)
    both = zip(new.source[0].prefixes, old[CELLS], new[CELLS], strict=True)
    changed = [(prefix + former, prefix + cell) for prefix, former, cell in both if former != cell]
    before, after = (b"{%b}" % b",".join(parts) for parts in zip(*changed, strict=True)) if changed else (b"{}", b"{}")
    return before.decode(), after.decode()


def _lost(document_id: str | None, column: str, table: str) -> UnreadableDocument:
    row = "the key of a row" if document_id is None else f"row {document_id!r}"
    return UnreadableDocument(
        f'{row} of table "{table}" may have NULL, NaN or an infinity in column "{column}": wal2json sends null for '
        'each of them; use plugin="auto" or plugin="pgoutput"',
        collection=table,
        document_id=document_id,
    )


def _shape_of(span: Span) -> TableShape:
    assert span.shape is not None  # noqa: S101 (of a table)
    return span.shape


def _rows_of(row: RowChange, span: Span) -> RowReader:
    if row.oid:
        return PgOutputRows(_shape_of(span), relation_of(row.read))
    return _wal2json_rows(_shape_of(span))


_wal2json_rows = lru_cache(maxsize=1024)(Wal2JsonRows)


def _is_complete(kind: str, after: Texts, before: Texts, shape: TableShape) -> bool:
    """Return whether the row has the before image that its kind needs. Without FULL, it has only the key."""
    if kind == "I":
        return True
    if kind == "U":
        return before.keys() >= after.keys()
    return len(before) >= min(len(shape.key) + 1, len(shape.columns))


def _read(rows: RowReader, span: Span, message: bytes) -> Images:
    after, before = rows.texts(message)
    return Images(_image_of(after, rows, span), _image_of(before, rows, span))


def _image_of(texts: Texts, rows: RowReader, span: Span) -> dict[str, Any]:
    shape = _shape_of(span)
    for name in shape.key if texts else ():
        if name not in texts:
            raise UnreadableDocument(
                f'a row of table "{span.label}" lacks "{name}", a column of its key: the table was changed where no '
                "event trigger follows it (only a catalog that a superuser owns has them): rebuild from the table",
                collection=span.label,
            )
    lost = [name for name in rows.lossy if texts.get(name, "") is None]
    for name in lost:
        if name in shape.key:  # no key has NULL
            raise _lost(None, name, span.label)
    image = image_of_row(texts, shape)
    if lost:
        image[LOST] = lost[0]
    return image


def _read_later(rows: RowReader, span: Span, kind: str, message: bytes) -> Images:
    after: dict[str, Any] = {}
    before: dict[str, Any] = {}
    if kind != "D":
        after = image = _Image()
        image.source = rows, span, message, False
    if kind != "I":
        before = image = _Image()
        image.source = rows, span, message, True
    made: Images = tuple.__new__(Images, (after, before))
    return made


def _read_before(rows: RowReader, span: Span, message: bytes) -> Images:
    return Images({}, _read(rows, span, message).before)


def _read_after(rows: RowReader, span: Span, message: bytes) -> Images:
    return Images(_read(rows, span, message).after, {})


def image_of_row(texts: Texts, shape: TableShape) -> dict[str, Any]:
    """Return the image of a row whose columns have these texts; without texts, an empty one."""
    if not texts:
        return {}
    others, document = [], "null"
    for name, prefix, form in _writers(shape):
        if name not in texts:
            continue
        value = json_of_value(texts[name], form)
        if name == shape.document:
            document = value
        else:
            others.append(prefix + value)
    row = f"{{{','.join(others)}}}"
    if shape.document is None:
        return {"id": _id_of(texts, shape), "data": row, "columns": None}
    return {"id": _id_of(texts, shape), "data": document, "columns": row}


def _id_of(texts: Texts, shape: TableShape) -> str:
    """Return the text of the key: of several columns, a JSON array of their texts."""
    if len(shape.key) == 1:
        return str(texts[shape.key[0]])
    return orjson.dumps([texts[name] for name in shape.key]).decode()


@lru_cache(maxsize=1024)
def _writers(shape: TableShape) -> list[tuple[str, str, Form]]:
    return [(column.name, f"{orjson.dumps(column.name).decode()}:", form_of(column.form)) for column in shape.columns]
