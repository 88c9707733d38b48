"""Rows of watched tables: what a plugin sent becomes an id and a JSON object, by the shape that the table had.

An image of such a row has `id`, the text of its key; `data`, the JSON of the row or of its document; and `columns`, the
JSON of the other columns, if the table has a document.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import orjson

from pgdoc.decoding.records import Images
from pgdoc.decoding.row_json import form_of, json_of_value
from pgdoc.decoding.wal2json import read_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgdoc.decoding.records import RowChange, Span, TableShape
    from pgdoc.decoding.row_json import Form

    Texts = Mapping[str, str | None]

__all__ = ["image_of_row", "rows_of_table"]


def rows_of_table(row: RowChange, span: Span) -> list[RowChange]:
    """Return the changes that a change of a table's row is: two if an UPDATE has changed its key."""
    label, shape = span.label, span.shape
    assert shape is not None  # noqa: S101 (of a table)
    if row.kind == "T":
        return [row._replace(table=label)]
    after, before = _texts_of(row)
    found = row._replace(table=label, complete=_is_complete(row.kind, after, before, shape), read=_reader(row, shape))
    if row.kind != "U" or not found.complete or all(after.get(name) == before.get(name) for name in shape.key):
        return [found]
    return [
        found._replace(kind="D", read=_reader(row, shape, lambda images: Images({}, images.before))),
        found._replace(kind="I", read=_reader(row, shape, lambda images: Images(images.after, {}))),
    ]


def _is_complete(kind: str, after: Texts, before: Texts, shape: TableShape) -> bool:
    """Return whether the row has the before image that its kind needs. Without FULL, it has only the key."""
    if kind == "I":
        return True
    if kind == "U":
        return before.keys() >= after.keys()
    return len(before) > len(shape.key) or len(shape.columns) == len(shape.key)


def _reader(
    row: RowChange, shape: TableShape, choose: Callable[[Images], Images] = lambda images: images
) -> Callable[[bytes], Images]:
    return partial(_read, row, shape, choose)


def _read(row: RowChange, shape: TableShape, choose: Callable[[Images], Images], _message: bytes) -> Images:
    after, before = choose(_texts_of(row))
    return Images(image_of_row(after, shape), image_of_row(before, shape))


def _texts_of(row: RowChange) -> Images:
    """Return the images of a row as the texts that the output functions of the types return."""
    if not row.oid:
        return read_texts(row.message)
    after, before = row.read(row.message)
    return Images(_as_texts(after), _as_texts(before))


def _as_texts(image: dict[str, Any]) -> dict[str, Any]:
    return {name: value if value is None else str(value) for name, value in image.items()}


def image_of_row(texts: Texts, shape: TableShape) -> dict[str, Any]:
    """Return the image of a row whose columns have these texts; without texts, an empty one."""
    if not texts:
        return {}
    others, document = [], None
    for name, prefix, form, is_bytea in _writers(shape):
        if name not in texts:
            continue
        text = texts[name]
        if is_bytea and text is not None and not text.startswith("\\x"):  # wal2json leaves it out
            text = f"\\x{text}"
        value = json_of_value(text, form)
        if name == shape.document:
            document = value
        else:
            others.append(prefix + value)
    row = f"{{{','.join(others)}}}"
    image: dict[str, Any] = {"id": _id_of(texts, shape), "data": row}
    if shape.document is not None:
        image["data"], image["columns"] = document, row
    return image


def _id_of(texts: Texts, shape: TableShape) -> str:
    """Return the text of the key: of several columns, a JSON array of their texts."""
    if len(shape.key) == 1:
        return str(texts[shape.key[0]])
    return orjson.dumps([texts[name] for name in shape.key]).decode()


@lru_cache(maxsize=1024)
def _writers(shape: TableShape) -> list[tuple[str, str, Form, bool]]:
    return [
        (column.name, f"{orjson.dumps(column.name).decode()}:", form_of(column.form), column.type == "bytea")
        for column in shape.columns
    ]
