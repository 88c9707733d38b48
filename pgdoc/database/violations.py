"""Read which index a document violates, and at which paths and values, from what the server reports.

The detail of a unique violation is `Key (expressions)=(values) already exists.`, in the language of `lc_messages`. For
an index of `create_index`, the expressions contain the paths as constants, and the values are sort keys, as
`pgdoc.sort_key` in `migrations/sql` makes them.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import UnreadableDocument
from pgdoc.model.json_codec import decode

if TYPE_CHECKING:
    import psycopg

__all__ = ["Violation", "read_violation"]

# The name of an index of `create_index`, as `relation_name` makes it.
_OUR_INDEX: Final = re.compile(r".+\.([^.]+)\.[0-9a-f]{10}")
_CONSTANT: Final = re.compile(r"(E?)'((?:[^']|'')*)'")
_TOKEN: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|[(),]|[^'\"(),]+")
_ITEM: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,{}"]+)')
# With quotes under quote_all_identifiers.
_KEY_FUNCTION: Final = re.compile(r'(?:"?pgdoc"?\.)?"?sort_key"?\(')
_COLLATED_KEY: Final = re.compile(rf'{_KEY_FUNCTION.pattern}(?:"?pgdoc"?\.)?"?collated"?\(')
_VALUE_FUNCTION: Final = re.compile(r'value_at"?\(')
_REST: Final = re.compile(r"(.*), (null|id [0-9a-f]{32}|rest [0-9a-f]{32})", re.DOTALL)
_MOST_PIECES: Final = 12
_LONGEST: Final = 80
"""The length at which `pgdoc.sort_key` cuts a key."""


@dataclass(frozen=True, slots=True)
class Violation:
    """What a document violates.

    Attributes:
        document_id: the id, if the server reports that it exists.
        index: the name of the index or constraint; one that `create_index` made has its own name, without its table's,
            and only its first 22 bytes.
        is_ours: whether `create_index` made it.
        paths: the paths of such an index; empty if the server does not report them.
        values: the values at the paths; `None` if the report does not contain them exactly.
    """

    document_id: str | None
    index: str | None
    is_ours: bool
    paths: tuple[str, ...]
    values: tuple[Any, ...] | None


def read_violation(exc: psycopg.Error) -> Violation:
    """Read a unique violation, or that of an exclusion constraint."""
    name, detail = exc.diag.constraint_name, exc.diag.message_detail or ""
    columns, rest = _split_columns(detail)
    values = rest[: rest.rfind(")")] if rest.startswith("=(") else ""
    values = values.removeprefix("=(")
    if columns in (["id"], ['"id"']):
        return Violation(values, None, is_ours=False, paths=(), values=None)
    ours = _OUR_INDEX.fullmatch(name or "")
    paths = tuple(filter(None, map(_path, columns[:-1])))
    if ours is None or len(paths) != len(columns) - 1:
        return Violation(None, ours[1] if ours else name, is_ours=ours is not None, paths=(), values=None)
    found = _values(values, paths)
    if found is not None and any(map(_COLLATED_KEY.match, columns)) and any(isinstance(value, str) for value in found):
        found = None  # the keys hold folded texts
    return Violation(None, ours[1], is_ours=True, paths=paths, values=found)


def _split_columns(detail: str) -> tuple[list[str], str]:
    """Return the expressions in the first brackets, and the text after them."""
    columns, depth = [""], 0
    for token in _TOKEN.finditer(detail, max(detail.find("("), 0)):
        text = token[0]
        depth += (text == "(") - (text == ")")
        if not depth:
            return [column.strip() for column in columns], detail[token.end() :]
        if text == "," and depth == 1:
            columns.append("")
        elif not (text == "(" and depth == 1 and columns == [""]):
            columns[-1] += text
    return [], ""


def _path(column: str) -> str | None:
    """Return the dotted path of a column of an index; `None` for another expression."""
    if column in {"id", '"id"'}:
        return "_id"
    if not _KEY_FUNCTION.match(column):
        return None
    constants = [_unquoted(*found.groups()) for found in _CONSTANT.finditer(column)]
    if _COLLATED_KEY.match(column):
        del constants[-1]  # the name of the collation
    if _VALUE_FUNCTION.search(column):
        constants = [_unescaped(quoted) if quoted else plain for quoted, plain in _ITEM.findall("".join(constants[:1]))]
    return ".".join(constants)


def _unquoted(escapes: str, text: str) -> str:
    text = text.replace("''", "'")
    return _unescaped(text) if escapes else text


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _values(text: str, paths: tuple[str, ...]) -> tuple[Any, ...] | None:
    """Decode the sort keys; `None` if one is cut or of an object.

    Texts may contain the separator. If several ways to divide the keys are possible, the result is `None`, too.
    """
    found = _REST.fullmatch(text)
    if found is None or found[2] != "null":
        return None
    pieces = found[1].split(", ")
    if len(pieces) > _MOST_PIECES and len(paths) > 1:
        return None
    readings = []
    for cuts in itertools.combinations(range(1, len(pieces)), len(paths) - 1):
        keys = [", ".join(pieces[start:end]) for start, end in itertools.pairwise((0, *cuts, len(pieces)))]
        with contextlib.suppress(ValueError, UnreadableDocument):
            readings.append(tuple(key if path == "_id" else _value(key) for key, path in zip(keys, paths, strict=True)))
    return readings[0] if len(readings) == 1 else None


def _value(key: str) -> Any:
    """Return the value of a whole sort key.

    Raises:
        ValueError: the key is of an object, or is none.
        UnreadableDocument: Python can't read the number.
    """
    scalars = {"1": None, "60": False, "61": True, "21": 0}
    if key in scalars:
        return scalars[key]
    if key[:1] == "3" and len(key) < _LONGEST:
        return key[1:]
    if key[:2] == "22" and key[-1] == "!":
        return _number(key[2:-1], 1)
    if key[:2] == "20" and key[-1] == "~":
        return _number(key[2:-1].translate(str.maketrans("0123456789abcdef", "fedcba9876543210")), -1)
    raise ValueError(key)


def _number(digits: str, sign: int) -> Any:
    """Decode the weight of the first digit, plus 32,768, and the digits to the base 10,000, each in four hex digits."""
    weight, *parts = (int(digits[at : at + 4], 16) for at in range(0, len(digits), 4))
    written = "".join(f"{part:04}" for part in parts)
    text = f"{Decimal(f'{written}e{4 * (weight - 0x8000 - len(parts) + 1)}'):f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return decode(f"{'-' if sign < 0 else ''}{text}".encode())
