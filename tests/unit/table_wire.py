"""Changes of a watched table of any shape, as both plugins send them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from hypothesis import strategies as st

from pgdoc.changes import events
from pgdoc.changes.assembler import Assembler
from pgdoc.changes.registry import Registry
from pgdoc.decoding.pgoutput import PgOutput
from pgdoc.decoding.records import Span, TableColumn, TableShape
from pgdoc.decoding.wal2json import Wal2Json
from pgdoc.model import json_codec
from tests.json_values import documents
from tests.unit import pgoutput_wire, wire

if TYPE_CHECKING:
    from pgdoc.changes.change import Change

IDS = (7421, 1, 16384)
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
TABLE = "public.orders"
FORMS = {
    "bigint": "number",
    "boolean": "bool",
    "bytea": "text",
    "double precision": "number",
    "int2vector": "int2vector",
    "integer[]": "number[,]",
    "jsonb": "json",
    "numeric(12,2)": "number",
    "oid": "text",
    "public.amount": "number",
    "public.flag": "bool",
    "text": "text",
    "text[]": "text[,]",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "uuid": "text",
}
RAW = frozenset({"bigint", "double precision", "numeric(12,2)", "oid"})
"""The types that wal2json writes as JSON numbers; a domain over one comes as text."""
LOSSY = frozenset({"double precision", "numeric(12,2)"})
NOT_FINITE = frozenset({"NaN", "Infinity", "-Infinity"})

_characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_odd_texts = ['"', "\\", '"},{"name":"', '","value":', "}],", '"identity":[{"name":"', "NULL", "null", "", "%b", "{}"]
texts = st.text(_characters, max_size=8) | st.sampled_from(_odd_texts)
_times = st.sampled_from(["2026-11-29 07:08:51.817473", "0044-03-15 12:00:00", "20000-01-01 00:00:00", "infinity"])
_arrays = st.sampled_from(["{}", "{a,NULL}", '{"NULL","a\\"b","{","c\\\\d"}', "[0:1]={a,b}", "{{a,b},{c,d}}"])
VALUES: dict[str, st.SearchStrategy[str]] = {
    "bigint": st.integers(-(2**63), 2**63 - 1).map(str),
    "boolean": st.sampled_from("tf"),
    "bytea": st.binary(max_size=3).map(lambda value: f"\\x{value.hex()}"),
    "double precision": st.sampled_from(["1e+38", "-0", "0.1", "1e-320", *sorted(NOT_FINITE)]),
    "int2vector": st.sampled_from(["1 2", ""]),
    "integer[]": st.sampled_from(["{1,NULL,-3}", "{}", "[5:6]={1,2}"]),
    "jsonb": documents.map(lambda value: json_codec.encode(value).decode()) | st.sampled_from(["null", "[1]", '"a"']),
    "numeric(12,2)": st.sampled_from(["1500.50", "-0.01", "0.00", *sorted(NOT_FINITE)]),
    "oid": st.integers(0, 2**32 - 1).map(str),
    "public.amount": st.sampled_from(["1.50", "NaN", "-7"]),
    "public.flag": st.sampled_from("tf"),
    "text": texts,
    "text[]": _arrays,
    "timestamp with time zone": _times.map(
        lambda text: text if text == "infinity" else text + ("+00 BC" if text.startswith("0044") else "+00")
    ),
    "timestamp without time zone": _times.map(lambda text: f"{text} BC" if text.startswith("0044") else text),
    "uuid": st.uuids().map(str),
}
KEY_TYPES = ("bigint", "boolean", "bytea", "numeric(12,2)", "text", "timestamp with time zone", "uuid", "oid")
_names = st.sampled_from(
    ["id", "data", "value", "name", "a b", 'a"b', "a\\b", "%b", "é", "a.b", "0", '","value":', "columns"]
)

Texts = dict[str, str | None]


class RowWritten(NamedTuple):
    """What a transaction wrote: one row of a table.

    Attributes:
        kind: `I`, `U` or `D`.
        new: the texts of the row's values.
        generated: whether wal2json also sends a generated column, which comes first.
        toasted: the columns that the update left in TOAST, unchanged.
        message: the writer's metadata.
        decode: the decoder of the stream.
    """

    shape: TableShape
    kind: str
    new: Texts
    old: Texts
    generated: bool = False
    toasted: frozenset[str] = frozenset()
    message: str | None = None
    decode: Any = None
    lost: None = None

    @property
    def loses(self) -> bool:
        """Whether wal2json sends a null that may stand for another value."""
        images = (self.new,) if self.kind == "I" else (self.old,) if self.kind == "D" else (self.new, self.old)
        lossy = [column.name for column in self.shape.columns if column.type in LOSSY]
        return any(image[name] is None or image[name] in NOT_FINITE for image in images for name in lossy)

    def row(self, plugin: str) -> bytes:
        new = self.new if self.kind in "IU" else None
        old = self.old if self.kind in "UD" else None
        if plugin == "wal2json":
            images = [None if image is None else self._of_wal2json(image) for image in (new, old)]
            if images[0] is not None:
                images[0] = {name: value for name, value in images[0].items() if name not in self.toasted}
            return wire.row(10, self.kind, "orders", new=images[0], old=images[1], schema="public")
        if new is not None:
            new = {name: pgoutput_wire.UNCHANGED if name in self.toasted else text for name, text in new.items()}  # type: ignore[misc]
        return pgoutput_wire.row(self.kind, new=new, old=old)

    def _of_wal2json(self, image: Texts) -> dict[str, Any]:
        first = {"generated": "x"} if self.generated else {}
        return first | {column.name: of_wal2json(column.type, image[column.name]) for column in self.shape.columns}

    def changes(self, plugin: str, row: bytes | None = None, identity: str | None = None) -> list[Change]:
        """Decode and assemble the change, as a stream does; `row` replaces its frame, and `identity` the FULL one."""
        row = row or self.row(plugin)
        assembler = Assembler(0, Registry("docs", [self.span]))
        if plugin == "wal2json":
            messages = [] if self.message is None else [wire.message(10, self.message)]
            frames = [wire.begin(10, 20, 28), *messages, row, wire.commit(20, 28)]
            return assembler.feed(Wal2Json("docs").decode(frames)).changes
        messages = [] if self.message is None else [pgoutput_wire.message(self.message.encode())]
        relation = pgoutput_wire.relation(
            schema="public", types={each.name: 25 for each in self.shape.columns}, key=identity
        )
        committed_us = (datetime.fromisoformat(wire.TIMESTAMP) - EPOCH) // timedelta(microseconds=1)
        frames = [pgoutput_wire.begin(20, committed_us), relation, *messages, row, pgoutput_wire.commit(20, 28)]
        return assembler.feed(PgOutput("docs").decode(frames)).changes

    @property
    def span(self) -> Span:
        return Span(pgoutput_wire.ORDERS, "public", "orders", 0, None, self.shape)

    def change(self, plugin: str, row: bytes | None = None) -> Change:
        (found,) = self.changes(plugin, row)
        return found

    def event(self, plugin: str) -> events.ChangeEvent:
        return events.from_change(self.change(plugin), IDS, None, self.decode)


def of_wal2json(type_: str, text: str | None) -> Any:
    """Return what wal2json sends for a value of which this is the text."""
    if text is None or (type_ in LOSSY and text in NOT_FINITE):
        return None
    if type_ in RAW:
        return orjson.Fragment(text)
    if type_ == "boolean":
        return text == "t"
    return text.removeprefix("\\x") if type_ == "bytea" else text


def shape_of(*columns: tuple[str, str], key: tuple[str, ...] = ("id",), document: str | None = None) -> TableShape:
    """Return a shape from the names and the types of its columns."""
    return TableShape(key, document, tuple(TableColumn(name, type_, FORMS[type_]) for name, type_ in columns))


@st.composite
def shapes(draw: st.DrawFn) -> TableShape:
    names = draw(st.lists(_names, min_size=1, max_size=6, unique=True))
    key = draw(st.permutations(names))[: draw(st.integers(1, min(2, len(names))))]
    types = {name: draw(st.sampled_from(KEY_TYPES if name in key else sorted(FORMS))) for name in names}
    documents = [name for name in names if types[name] == "jsonb"]
    document = draw(st.sampled_from([None, *documents]))
    return shape_of(*types.items(), key=tuple(key), document=document)


@st.composite
def texts_of(draw: st.DrawFn, shape: TableShape) -> Texts:
    return {
        column.name: draw(VALUES[column.type] if column.name in shape.key else st.none() | VALUES[column.type])
        for column in shape.columns
    }


@st.composite
def rows_written(draw: st.DrawFn, *, changes_key: bool = False) -> RowWritten:
    """Return a change that keeps its row's key, unless it may change it."""
    shape = draw(shapes())
    kind, new, old = draw(st.sampled_from("IUD")), draw(texts_of(shape)), draw(texts_of(shape))
    if not changes_key or draw(st.booleans()):
        old |= {name: new[name] for name in shape.key}
    toasted = frozenset[str]()
    if kind == "U":
        toasted = draw(st.frozensets(st.sampled_from(sorted(new))))
        if len(toasted) == len(new):
            toasted = frozenset()
        new |= {name: old[name] for name in toasted}
    return RowWritten(shape, kind, new, old, draw(st.booleans()), toasted)
