"""The keys, values, paths and patterns that `Dice` chooses from, valid and invalid."""

from __future__ import annotations

import math
from collections import UserDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Final
from uuid import UUID


class Custom:
    """A value without a JSON form, whose repr would break unquoted SQL."""

    def __repr__(self) -> str:
        return "<';--%s{}>"


class Number(IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


class Word(Enum):
    A = "a"


@dataclass
class Pair:
    a: Any
    b: Any


MOMENT: Final = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


def nested(depth: int, *, in_dict: bool = False) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if in_dict else [value]
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


KEYS: Final = [
    "a",
    "a",
    "a",
    "b",
    "b",
    "c",
    "0",
    "0",
    "1",
    "2",
    "01",
    "-1",
    "é",
    "$x",
    "%s",
    'q"',
    "'",
    " ",
    "\\",
    "*",
    "\x1f",
]
COMMON: Final = [None, True, False, 0, 1, 1, 1.0, 2, -1, 5, 0.5, "a", "a", "b", "ab", "", "1"]
RARE: Final = [
    10**40,
    -(10**40),
    2**31,
    2**63,
    2**63 - 1,
    -(2**63),
    10**4299,
    1e308,
    -1e308,
    5e-324,
    1e23,
    0.1,
    -0.0,
    1e-7,
    7.9,
    -7,
    Decimal("1.10"),
    Decimal("1e-400"),
    Decimal(1).scaleb(400),
    Decimal("0E+2"),
    "é",
    "É",
    "\U0001f600",
    "\uffff",
    "\x1f\x01",
    "'; DROP TABLE x; --",
    "%s %(x)s %%",
    "$$ $1 {} {0}",
    'q"\\',
    "a.b",
    "$a",
    "a" * 300,
    "a\nb",
    "ﬀ",
    "ẞ",
    "\u0130",
    "null",
    Number.ONE,
    Text("a"),
    (1, "a"),
    UserDict({"a": 1}),
    {"$gt": 1},
    {"$regex": "a"},
    Decimal("0.1"),
    Decimal("0.10"),
    Decimal("0.10000000000000000001"),
    Decimal("12345678901234567.5"),
    MOMENT,
    MOMENT,
    MOMENT.astimezone(timezone(timedelta(hours=-7))),
    MOMENT + timedelta(microseconds=1),
    date(2026, 1, 2),
    time(3, 4),
    timedelta(seconds=0.5),
    UUID(int=7),
    Word.A,
    Pair(0.1, MOMENT),
    Pair(None, Decimal("0.10")),
]
BAD: Final = [
    math.nan,
    math.inf,
    b"a",
    {1, 2},
    frozenset(),
    Custom(),
    Custom,
    "\ud800",
    "a\0b",
    {1: 2},
    {None: 1},
    {"\0": 1},
    {"\udfff": 1},
    10**4300,
    Decimal("NaN"),
    Decimal("sNaN"),
    Decimal("Infinity"),
    Decimal("1e999999"),
    Decimal("1e5000"),
    Decimal("1e-20000"),
    nested(300),
    nested(3000, in_dict=True),
    endless(),
    MOMENT.replace(tzinfo=None),
    time(3, tzinfo=UTC),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    Pair(b"x", math.nan),
    range(3),
    1j,
    ...,
    len,
    [b"x"],
    {"a": {"b": [math.nan]}},
    memoryview(b"a"),
    iter([1]),
]
BAD_PATHS: Final = [
    "",
    ".",
    "a.",
    ".a",
    "a..b",
    "\ud800",
    "a\0",
    "$",
    "a.$",
    "a.$[x]",
    "$[]",
    "a.$[]x",
    "_id",
    "_id.a",
    "a" * 10_000,
    ".".join("a" * 255),
    ".".join("a" * 254),
    ".".join("0" * 200),
    1,
    None,
    b"a",
    ("a",),
    Custom(),
    True,
    1.5,
    "a.9999999999",
    "a.999999999",
    "$where",
    "$and",
    "-a",
]
PATTERNS: Final = [
    "a",
    "^a",
    "b$",
    "^$",
    ".",
    "[^a]",
    "A|B",
    r"\w",
    r"\bé",
    r"(?i)É",
    "a{1,3}",
    "(a|b)+?",
    r"[[:alpha:]]",
    r"\x{1F600}",
    "(?P<n>a)",
    "%s",
    "'",
    '"',
    "$$",
    r"\.",
    "ẞ",
    "K",
    "\u017f",
    "(",
    "[",
    "a{256}",
    "a**",
    "(?=a)",
    r"\1",
    r"\B",
    r"\pN",
    "[b-a]",
    "(?P<n",
    "a" * 600,
    "\ud800",
    "\0",
    "(" * 60,
]

FILTER_OPERATORS: Final = [
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$exists",
    "$type",
    "$not",
    "$all",
    "$elemMatch",
    "$elemMatch",
    "$size",
    "$regex",
    "$mod",
    "$bitsAllSet",
    "$bitsAnySet",
    "$bitsAllClear",
    "$bitsAnyClear",
]
BITS: Final = [0, 1, 6, 7.0, 2**63 - 1, [], [0], [1, 2], [63], [70, 0], [-1], 1.5, 2**63, "1"]
UPDATE_OPERATORS: Final = [
    "$set",
    "$set",
    "$unset",
    "$inc",
    "$mul",
    "$min",
    "$max",
    "$bit",
    "$rename",
    "$setOnInsert",
    "$currentDate",
    "$push",
    "$push",
    "$addToSet",
    "$pop",
    "$pull",
    "$pull",
    "$pullAll",
]
TYPES: Final = [
    "int",
    "long",
    "double",
    "decimal",
    "number",
    "string",
    "object",
    "array",
    "bool",
    "null",
    "date",
    1,
    2,
    3,
    4,
    8,
    10,
    16.0,
    19,
    99,
]

NUMBERS: Final = [1, -2, 0, 0.1, 2.5, 10**25, 1e23, 5e-324, 1.5e-200, 10**4200, Decimal("1.10"), 1e300, 3, "1"]
ELEMENTS: Final = ["$[]", "$", "$", "$[x]", "$[x]", "$[x]", "$[y]"]
BIT_CHANGES: Final = [
    {"and": 6},
    {"or": 2**40},
    {"xor": -1},
    {"and": -(2**63), "or": 1},
    {"xor": 5, "and": 3},
    {"or": 2**63},
    1,
]
SIMPLE_CHANGES: Final[dict[str, list[Any]]] = {
    "$inc": NUMBERS,
    "$mul": NUMBERS,
    "$bit": BIT_CHANGES,
    "$currentDate": [True, False, {"$type": "date"}, {"$type": "timestamp"}, True, False, 1],
    "$pop": [1, -1, 1.0, -1, 1, 1, -1, 2],
}
