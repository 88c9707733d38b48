"""Reads the rows of a watched table from wal2json's messages by cutting them, which takes a sixth of parsing them.

Inside a JSON string every quote is escaped, so what stands between two names or values is found only where it is
structure. Most values are in a message as `to_json` writes them, since wal2json, too, calls PostgreSQL's `escape_json`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson

from pgdoc.decoding.frames import PAYLOAD
from pgdoc.decoding.records import CELLS, LOST
from pgdoc.decoding.row_json import form_of, json_of_value, prefixes_of
from pgdoc.decoding.wal2json import columns_losing_nan, loses_nan, read_texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.decoding.records import Images, TableColumn, TableShape
    from pgdoc.decoding.row_json import Form

__all__ = ["Wal2JsonRows"]

_COLUMNS, _IDENTITY, _END_OF_ROW = b'"columns":[{"name":"', b'"identity":[{"name":"', b"}]}"
_NEW, _OLD = b'"columns":[', b'"identity":['
_LEAST_HEAD: Final = PAYLOAD + len('{"action":"U","xid":1,"timestamp":"","lsn":"0/0","schema":"","table":"",')
_NAME, _NEXT, _VALUE = b'"name":"', b'},{"name":"', b'","value":'


class Wal2JsonRows:
    """Reads the rows of a table while it has one shape.

    Attributes:
        prefixes: what stands before the JSON of each column, without the document's.
        lossy: the columns, in order, whose null can stand for a value that wal2json does not send.
    """

    def __init__(self, shape: TableShape) -> None:
        self._shape = shape
        self._names = [_escaped(column.name) for column in shape.columns]
        indexes = {column.name: index for index, column in enumerate(shape.columns)}
        self._key = [indexes[name] for name in shape.key]
        self._key_types = [shape.columns[index].type for index in self._key]
        self._first_of_key, self._last_of_key = (
            b'{"name":"%b","value":' % self._names[index] for index in (self._key[0], max(self._key))
        )
        self._converted = [(index, each) for index, each in enumerate(map(_converter, shape.columns)) if each]
        self.lossy = columns_losing_nan(shape)
        self._lossy = [indexes[name] for name in self.lossy]
        self._document = None if shape.document is None else indexes[shape.document]
        self.prefixes = prefixes_of(shape)
        self._layout = b"{%b}" % b",".join(prefix.replace(b"%", b"%%") + b"%b" for prefix in self.prefixes)

    def is_plain(self, kind: str, frame: bytes) -> bool:
        """Return whether an I, U or D surely has all its images, and a U the same key in both."""
        if kind == "I":
            return True
        if kind == "D":
            old = frame.rfind(_IDENTITY)  # takes a quarter of `find`
        else:
            start = frame.find(_COLUMNS, _LEAST_HEAD)
            key = start + len(_NEW)
            if not frame.startswith(self._last_of_key, key):
                key = frame.find(self._last_of_key, key)
            end = frame.find(_NEXT, key)
            if key < 0 or end < 0:
                return False
            # The old row begins with the same columns up to the key's end, if this finds it.
            old = frame.rfind(_OLD + frame[start + len(_NEW) : end + len(_NEXT)])
        return old > 0 and frame.count(_NAME, old) >= len(self._names)

    def id_of(self, frame: bytes) -> str:
        """Return the id of a plain row.

        Raises:
            LookupError, ValueError: the row has another form.
        """
        if len(self._key) > 1:
            raise LookupError
        start = frame.find(self._first_of_key, _LEAST_HEAD)
        end = frame.find(_NEXT, start)
        if start < 0 or end < 0:
            raise LookupError
        return _text(frame[start + len(self._first_of_key) : end], self._key_types[0])

    def after(self, frame: bytes) -> dict[str, Any]:
        """Return the image that an I or U left.

        Raises:
            LookupError, ValueError: the row has another form.
        """
        old = frame.rfind(_IDENTITY)
        start = frame.find(_COLUMNS, _LEAST_HEAD)
        end = old - len("}],") if old > 0 else -len(_END_OF_ROW)
        names, values = _cut(frame[start + len(_COLUMNS) : end])
        if names != self._names:
            known = {} if old < 0 else dict(zip(*self._cut_before(frame), strict=True))
            known |= zip(names, values, strict=True)  # what is left in TOAST is as before
            values = [known[name] for name in self._names]
        return self._image(values)

    def before(self, frame: bytes) -> dict[str, Any]:
        """Return the image before a U or D, as `after` does."""
        names, values = self._cut_before(frame)
        if names != self._names:
            known = dict(zip(names, values, strict=True))
            values = [known[name] for name in self._names]  # without generated columns: pgoutput does not send them
        return self._image(values)

    def texts(self, frame: bytes) -> Images:
        """Return the texts of a row's values by their names."""
        found = read_texts(frame)
        for image in found:
            for column in self._shape.columns:
                text = image.get(column.name)
                if column.type == "bytea" and text is not None:
                    image[column.name] = f"\\x{text}"  # wal2json leaves the prefix out
        return found

    def _cut_before(self, frame: bytes) -> tuple[list[bytes], list[bytes]]:
        return _cut(frame[frame.rfind(_IDENTITY) + len(_IDENTITY) : -len(_END_OF_ROW)])

    def _image(self, values: list[bytes]) -> dict[str, Any]:
        """Return the image of a row from its values, as wal2json writes them."""
        image: dict[str, Any] = {"id": self._id(values), "columns": None}
        lost = [index for index in self._lossy if values[index] == b"null"] if b"null" in values else None
        for index, convert in self._converted:
            value = values[index]
            if value != b"null":
                values[index] = convert(value)
        if lost:
            image[LOST] = self._shape.columns[lost[0]].name
        rest = "data"
        if self._document is not None:
            image["data"], rest = values.pop(self._document).decode(), "columns"
        image[CELLS] = values
        image[rest] = (self._layout % (*values,)).decode()
        return image

    def _id(self, values: list[bytes]) -> str:
        if len(self._key) == 1:
            return _text(values[self._key[0]], self._key_types[0])
        texts = [_text(values[index], type_) for index, type_ in zip(self._key, self._key_types, strict=True)]
        return orjson.dumps(texts).decode()


def _cut(columns: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return the names and the values of columns: all between the start of the first name and the end of the last."""
    parts = columns.replace(_VALUE, _NEXT).split(_NEXT)
    return parts[::2], parts[1::2]


def _escaped(name: str) -> bytes:
    return orjson.dumps(name)[1:-1]


def _text(value: bytes, type_: str) -> str:
    """Return the text of a key's column from its JSON, which is null only where wal2json has lost the value."""
    if value[:1] == b'"':
        text: str = orjson.loads(value)
        return f"\\x{text}" if type_ == "bytea" else text
    if value == b"null":
        raise LookupError
    return _BOOLEANS.get(value) or value.decode()


_BOOLEANS: Final = {b"true": "t", b"false": "f"}


def _converter(column: TableColumn) -> Callable[[bytes], bytes] | None:
    """Return what makes the JSON of a column from wal2json's; `None` if both are the same."""
    form, type_ = column.form, column.type
    if type_ == "bytea":
        return lambda value: b'"\\\\x' + value[1:]
    if type_ == "oid":
        return lambda value: b'"%b"' % value
    if form == "text" or type_ in _SAME or loses_nan(type_):
        return None
    return _CONVERTERS.get(form) or partial(_converted, form_of(form))


_SAME: Final = ("boolean", "smallint", "integer", "bigint")


def _converted(form: Form, value: bytes) -> bytes:
    return json_of_value(orjson.loads(value), form).encode()


def _json(value: bytes) -> bytes:
    text: str = orjson.loads(value)
    return text.encode()


def _timestamp(value: bytes) -> bytes:
    return value.replace(b" ", b"T", 1) if value[1:2].isdigit() else value  # else an infinity


def _timestamptz(value: bytes) -> bytes:
    return _timestamp(value).replace(b"+00", b"+00:00", 1)  # a date has no plus sign


_CONVERTERS: Final = {"json": _json, "timestamp": _timestamp, "timestamptz": _timestamptz}
