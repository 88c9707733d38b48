"""The JSON of a table's row: as `to_json(row)` under fixed settings, from the output text of each column.

Both plugins and a snapshot bring a value back to the text that its type's output function returns. One mapping then
makes the JSON, so that all three agree byte for byte. It differs from `to_json` where the structure of a value is not
in the stream: a composite value and an hstore are text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc.decoding.records import TableShape

__all__ = ["ARRAY_ELEMENTS", "TEXTS", "Form", "form_of", "form_of_built_in", "json_of_value", "prefixes_of"]


class Form(NamedTuple):
    """How a type's output text becomes JSON.

    Attributes:
        scalar: the kind of the value, or of the elements of an array.
        delimiter: between the elements of an array; empty for a type that is no array.
    """

    scalar: str
    delimiter: str = ""


TEXT: Final = "text"

TEXTS: Final = Form(TEXT, ",")
"""The form of `text[]`."""

_SCALARS: Final = {
    16: "bool",
    20: "number",  # int8
    21: "number",  # int2
    22: "int2vector",
    23: "number",  # int4
    30: "oidvector",
    114: "json",
    700: "number",  # float4
    701: "number",  # float8
    1114: "timestamp",
    1184: "timestamptz",
    1700: "number",  # numeric
    3802: "json",  # jsonb
}
"""The kinds of the built-in types that are not written as a JSON string of their text, by oid."""

# fmt: off
ARRAY_ELEMENTS: Final = {
    143: 142, 199: 114, 271: 5069, 629: 628, 651: 650, 719: 718, 775: 774, 791: 790,
    1000: 16, 1001: 17, 1002: 18, 1003: 19, 1005: 21, 1006: 22, 1007: 23, 1008: 24, 1009: 25, 1010: 27, 1011: 28,
    1012: 29, 1013: 30, 1014: 1042, 1015: 1043, 1016: 20, 1017: 600, 1018: 601, 1019: 602, 1020: 603, 1021: 700,
    1022: 701, 1027: 604, 1028: 26, 1034: 1033, 1040: 829, 1041: 869, 1115: 1114, 1182: 1082, 1183: 1083, 1185: 1184,
    1187: 1186, 1231: 1700, 1263: 2275, 1270: 1266, 1561: 1560, 1563: 1562, 2201: 1790, 2207: 2202, 2208: 2203,
    2209: 2204, 2210: 2205, 2211: 2206, 2949: 2970, 2951: 2950, 3221: 3220, 3643: 3614, 3644: 3642, 3645: 3615,
    3735: 3734, 3770: 3769, 3807: 3802, 3905: 3904, 3907: 3906, 3909: 3908, 3911: 3910, 3913: 3912, 3927: 3926,
    4073: 4072, 4090: 4089, 4097: 4096, 4192: 4191, 5039: 5038, 6150: 4451, 6151: 4532, 6152: 4533, 6153: 4534,
    6155: 4535, 6157: 4536,
}
"""The element type of each built-in array type that has true arrays (`pg_type.typsubscript`), by oid; PostgreSQL never
changes either. `int2vector` and `oidvector` are not among them: their text has spaces between the elements."""
# fmt: on

_BOX: Final = 603

_JSON_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII).fullmatch


def form_of_built_in(oid: int) -> Form:
    """Return the form of a built-in type; of any other, that of text."""
    element = ARRAY_ELEMENTS.get(oid)
    if element is None:
        return Form(_SCALARS.get(oid, TEXT))
    return Form(_SCALARS.get(element, TEXT), ";" if element == _BOX else ",")


def form_of(text: str) -> Form:
    """Parse a form as the catalog's function `pgdoc.type_form` writes it, such as `number` or `text[;]`."""
    scalar, _, rest = text.partition("[")
    return Form(scalar, rest[:1])


def json_of_value(text: str | None, form: Form) -> str:
    """Return the JSON of a value from its type's output text; `None` stands for NULL."""
    if text is None:
        return "null"
    if form.delimiter:
        return _array(text, _WRITERS[form.scalar], form.delimiter)
    return _WRITERS[form.scalar](text)


def prefixes_of(shape: TableShape) -> list[bytes]:
    """Return what stands before each value in the JSON of a table's row; the value of its document is not there."""
    return [b"%b:" % orjson.dumps(column.name) for column in shape.columns if column.name != shape.document]


def _string(text: str) -> str:
    return orjson.dumps(text).decode()


def _number(text: str) -> str:
    return text if _JSON_NUMBER(text) else _string(text)  # NaN and the infinities


def _bool(text: str) -> str:
    return "true" if text == "t" else "false"


def _int2vector(text: str) -> str:
    return f"[{','.join(text.split())}]"


def _oidvector(text: str) -> str:
    return f"[{','.join(map(_string, text.split()))}]"


def _json(text: str) -> str:
    return text


def _timestamp(text: str) -> str:
    return f'"{text.replace(" ", "T", 1)}"' if text[:1].isdigit() else _string(text)  # else an infinity


def _timestamptz(text: str) -> str:
    """The text ends with `+00`, since readers and snapshots set the time zone to UTC, or with `+00 BC`."""
    if not text[:1].isdigit():
        return _string(text)
    moment, _, era = text.partition("+00")
    return f'"{moment.replace(" ", "T", 1)}+00:00{era}"'


_WRITERS: Final[dict[str, Callable[[str], str]]] = {
    TEXT: _string,
    "bool": _bool,
    "int2vector": _int2vector,
    "json": _json,
    "number": _number,
    "oidvector": _oidvector,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
}


def _array(text: str, write: Callable[[str], str], delimiter: str) -> str:
    """Return a JSON array from PostgreSQL's array text; lower bounds are lost, as in `to_json`."""
    start = text.find("=") + 1 if text.startswith("[") else 0
    return "".join(_array_parts(text[start:], write, delimiter))


def _array_parts(text: str, write: Callable[[str], str], delimiter: str) -> Iterator[str]:
    found = _TOKENS[delimiter]
    for bracket, quoted, bare in found(text):
        if bracket:
            yield _BRACKETS.get(bracket, ",")
        elif bare:
            yield "null" if bare == "NULL" else write(bare)
        else:
            yield write(_ESCAPED(r"\1", quoted))


_BRACKETS: Final = {"{": "[", "}": "]"}
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL).sub
_TOKENS: Final = {
    delimiter: re.compile(rf'([{{}}{delimiter}])|"((?:[^"\\]|\\.)*)"|([^{{}}"{delimiter}]+)', re.DOTALL).findall
    for delimiter in ",;"
}
