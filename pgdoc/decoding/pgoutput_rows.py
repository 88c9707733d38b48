"""Reads the rows of a watched table from pgoutput's messages by their lengths."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson

from pgdoc.decoding.frames import PAYLOAD
from pgdoc.decoding.records import CELLS, Images
from pgdoc.decoding.row_json import form_of, json_of_value, prefixes_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.decoding.pgoutput import Relation
    from pgdoc.decoding.records import TableColumn, TableShape
    from pgdoc.decoding.row_json import Form

__all__ = ["PgOutputRows"]

_TUPLE: Final = PAYLOAD + 5
_OLD, _NEW, _INSERT, _UPDATE = b"ONIU"
_NULL, _UNCHANGED, _TEXT = b"nut"
_HEAD: Final = len(b"O\0\x08")
_SHORT_TEXT = b"t\0\0"
_VALUE_HEAD: Final = len(b"t\0\0\0\5")
_MANY: Final = 256
_LONGEST: Final = 0xFFFF
_KEPT: Final = b"\0kept"
"""Stands for a value that is left in TOAST, and is as before. No text has a zero byte."""
_NO_TEXTS: Final = {_NULL: None, _UNCHANGED: _KEPT}

_head = struct.Struct(">II").unpack_from
_size = struct.Struct(">I").unpack_from


class PgOutputRows:
    """Reads the rows of a table while it has one shape, and one Relation message describes it.

    Attributes:
        prefixes: what stands before the JSON of each column, without the document's.
        lossy: no columns: see `Wal2JsonRows`.
    """

    lossy: Final[tuple[str, ...]] = ()

    def __init__(self, shape: TableShape, relation: Relation) -> None:
        self._relation = relation
        names = [name for name, _, _ in relation.columns]
        kept = [index for index, name in enumerate(names) if name in {column.name for column in shape.columns}]
        self._is_known = [names[index] for index in kept] == [column.name for column in shape.columns]
        self._key: list[int] = []
        self._columns = range(0)
        self._old_head: int | None = None
        if not self._is_known:
            return
        indexes = {names[index]: index for index in kept}
        self._key = [indexes[name] for name in shape.key]
        self._rest_of_key = range(max(self._key))
        self._columns = range(len(names))
        self._old_head = int.from_bytes(struct.pack(">cHc", b"O", len(names), b"t")) if len(names) < _MANY else None
        self._kept = kept
        self._converted = [(index, each) for index, each in enumerate(map(_converter, shape.columns)) if each]
        self._document = None if shape.document is None else kept.index(indexes[shape.document])
        self.prefixes = prefixes_of(shape)
        self._layout = b"{%b}" % b",".join(prefix.replace(b"%", b"%%") + b"%b" for prefix in self.prefixes)

    def is_plain(self, kind: str, frame: bytes) -> bool:
        """Return whether an I, U or D surely has all its images, and a U the same key in both."""
        if kind == "U":
            return self._is_known and self._find_new(frame) > 0
        return self._is_known and (kind == "I" or frame.startswith(b"O", _TUPLE))

    def _find_new(self, frame: bytes) -> int:
        """Return where the new tuple of a U begins, if it begins as the old one does, up to the key's end; else -1.

        It is searched for. Two zero bytes in a row stand only in the size of a value. So no value looks like the start
        of a tuple of less than 256 columns, of which the first is a text of less than 64 KB.
        """
        try:
            head, size = _head(frame, _TUPLE)
            if head != self._old_head or size > _LONGEST:
                return -1
            at = _TUPLE + _HEAD + _VALUE_HEAD + size
            for _ in self._rest_of_key:
                at += _VALUE_HEAD + _size(frame, at + 1)[0] if frame[at] == _TEXT else 1
        except (IndexError, struct.error):
            return -1
        new = frame.rfind(frame[_TUPLE + 1 : at], at) - 1  # it takes a quarter of `find`
        return new if new > 0 and frame[new] == _NEW else -1

    def id_of(self, frame: bytes) -> str:
        """Return the id of a plain row.

        Raises:
            LookupError, ValueError, struct.error: the row has another form.
        """
        start = _TUPLE + _HEAD
        if self._key != [0] or frame[start] != _TEXT:
            raise LookupError
        return frame[start + _VALUE_HEAD : start + _VALUE_HEAD + _size(frame, start + 1)[0]].decode()

    def after(self, frame: bytes) -> dict[str, Any]:
        """Return the image that an I, or a plain U, left.

        Raises:
            LookupError, ValueError, struct.error: the row has another form.
        """
        start = _TUPLE if frame[PAYLOAD] == _INSERT else self._find_new(frame)
        values = self._values(frame, start, len(frame), _NEW)
        if _KEPT in values:
            old = self._before(frame)
            values = [former if value is _KEPT else value for former, value in zip(old, values, strict=True)]
        return self._image(values)

    def before(self, frame: bytes) -> dict[str, Any]:
        """Return the image before a U or D, as `after` does."""
        return self._image(self._before(frame))

    def _before(self, frame: bytes) -> list[bytes | None]:
        end = self._find_new(frame) if frame[PAYLOAD] == _UPDATE else len(frame)
        return self._values(frame, _TUPLE, end, _OLD)

    def texts(self, frame: bytes) -> Images:
        """Return the texts of a row's values by their names."""
        after, before = self._relation(frame)
        return Images(_as_texts(after), _as_texts(before))

    def _values(self, frame: bytes, at: int, end: int, mark: int) -> list[bytes | None]:
        """Return the texts of a tuple; `_KEPT` for a value that is left in TOAST, and is as before."""
        if frame[at] != mark or int.from_bytes(frame[at + 1 : at + _HEAD]) != len(self._columns):
            raise LookupError
        at += _HEAD
        texts = frame[at:end].split(_SHORT_TEXT)
        if len(texts) == len(self._columns) + 1 and end - at <= _LONGEST:
            # Each column is a text. In a size, these bytes would need a value of 7 MB, and in a text no byte is zero.
            return [text[2:] for text in texts[1:]]
        values: list[bytes | None] = []
        append = values.append
        for _ in self._columns:
            tag = frame[at]
            if tag == _TEXT:
                start = at + _VALUE_HEAD
                at = start + _size(frame, at + 1)[0]
                append(frame[start:at])
            else:
                at += 1
                append(_NO_TEXTS[tag])
        if at != end:
            raise LookupError
        return values

    def _image(self, values: list[bytes | None]) -> dict[str, Any]:
        """Return the image of a row from its texts."""
        image: dict[str, Any] = {"id": self._id(values), "columns": None}
        cells: list[Any] = values if len(self._kept) == len(values) else [values[index] for index in self._kept]
        for index, convert in self._converted:
            cell = cells[index]
            if cell is not None:
                cells[index] = convert(cell)
        if None in cells:
            cells = [b"null" if cell is None else cell for cell in cells]
        rest = "data"
        if self._document is not None:
            image["data"], rest = cells.pop(self._document).decode(), "columns"
        image[CELLS] = cells
        image[rest] = (self._layout % (*cells,)).decode()
        return image

    def _id(self, values: list[bytes | None]) -> str:
        texts = [value.decode() for index in self._key if (value := values[index]) is not None]  # no key has NULL
        return texts[0] if len(texts) == 1 else orjson.dumps(texts).decode()


def _as_texts(image: dict[str, Any]) -> dict[str, Any]:
    return {name: value if value is None else str(value) for name, value in image.items()}


def _converter(column: TableColumn) -> Callable[[bytes], bytes] | None:
    """Return what makes the JSON of a value from its text; `None` if both are the same."""
    return _CONVERTERS[column.form] if column.form in _CONVERTERS else partial(_converted, form_of(column.form))


def _converted(form: Form, text: bytes) -> bytes:
    return json_of_value(text.decode(), form).encode()


def _string(text: bytes) -> bytes:
    return orjson.dumps(text.decode())


def _number(text: bytes) -> bytes:
    return text if text[-1:].isdigit() else b'"%b"' % text  # NaN and the infinities


def _timestamp(text: bytes) -> bytes:
    return b'"%b"' % (text.replace(b" ", b"T", 1) if text[:1].isdigit() else text)  # else an infinity


def _timestamptz(text: bytes) -> bytes:
    return _timestamp(text).replace(b"+00", b"+00:00", 1)  # a date has no plus sign


_CONVERTERS: Final[dict[str, Callable[[bytes], bytes] | None]] = {
    "bool": lambda text: b"true" if text == b"t" else b"false",
    "json": None,
    "number": _number,
    "text": _string,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
}
