"""What reading an event costs beside one by hand that keeps the same promises, one part after the other.

    python -m bench parts_of_event

It begins with the event of `bench.reading_by_contract`. Each line replaces one more part by pgdoc's, and says what the
part does that the one by hand leaves out. All fields are read of the changes of `bench.messages`, half of them inserts
and half updates. No server takes part. All take turns, and the round with the least CPU time counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bench.arguments import parser_of, positive
from bench.counted import IDS, changes_of
from bench.rates import read_all_fields
from bench.reading_by_contract import READERS, EventByHand, moment_of_row
from bench.reading_by_hand import CHANGES, least_us
from pgdoc.changes.diff import diff
from pgdoc.changes.events import from_change
from pgdoc.changes.row_images import columns_of, other_columns
from pgdoc.model.documents import Document, Origin, document_of_image
from pgdoc.model.json_codec import decode
from pgdoc.model.tokens import token_at

if TYPE_CHECKING:
    from datetime import datetime

    from bench.reading_by_contract import Plugin
    from bench.reading_by_hand import Step
    from pgdoc.changes.change import Change
    from pgdoc.model.positions import Ids

ORIGIN = Origin("orders", other_columns)


class WithDifference(EventByHand):
    """Has pgdoc's description of an update."""

    __slots__ = ()

    @property
    def update_description(self) -> Any:
        found = self._description
        if found is None and self.event_type == "update":
            found = self._description = diff(self._old.data, self._new.data)  # type: ignore[union-attr]
        return found


class WithToken(WithDifference):
    """Has pgdoc's token, too."""

    __slots__ = ()

    @property
    def resume_token(self) -> Any:
        token = self._token
        if token is None:
            token = self._token = token_at(self._change.position, self.ids)  # type: ignore[assignment]
        return token


class WithDocuments(WithToken):
    """Has pgdoc's documents, too, made of pgdoc's images."""

    __slots__ = ("_columns",)

    def __init__(self, plugin: Plugin, change: Change, ids: Ids) -> None:
        super().__init__(plugin, change, ids)
        self._columns: dict[str, Any] = {}

    def _read(self) -> Any:
        row = self._change.row
        new, old = row.read(row.message)
        if old:
            self._old: Any = _document(old)
        self._columns = columns_of(new, row.table)
        document: Any = _document(new)
        self._new = document
        return document

    @property
    def event_type(self) -> str:
        kind = self._type
        if kind is None:
            _, columns = self._new or self._read(), self._columns
            old = self._old
            is_replaced = (
                columns["replaced_version"] == columns["version"] and old and old.version != columns["version"]
            )
            kind = self._type = "insert" if old is None else "replace" if is_replaced else "update"
        return kind

    @property
    def timestamp(self) -> datetime:
        _, reported, _, is_sent_time = self._change.transaction
        _ = self._new or self._read()
        return moment_of_row(reported, self._columns["updated_at"], is_sent_time)


def _document(image: dict[str, Any]) -> Document[Any]:
    return document_of_image(image["id"], image["data"], image[""], ORIGIN)


class Part(NamedTuple):
    """An event with one more part of pgdoc's, and what that does."""

    read: Step
    purpose: str


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=positive, default=60)
    rounds: int = parser.parse_args().rounds
    for plugin in READERS:
        parts = parts_of(plugin)
        ways: dict[str, Step] = {name: part.read for name, part in parts.items()}
        least = least_us(ways, changes_of(plugin, CHANGES), rounds)
        print(f"{plugin:44} {'us of CPU':>9} {'more':>6}  for")
        former = None
        for name, us in least.items():
            more = "" if former is None else f"{us - former:.2f}"
            print(f"{name:44} {us:9.2f} {more:>6}  {parts[name].purpose}")
            former = us
    return 0


def parts_of(plugin: str) -> dict[str, Part]:
    def of(kind: type[EventByHand], reader: Plugin) -> Step:
        return lambda change: read_all_fields(kind(reader, change, IDS))  # type: ignore[arg-type]

    by_hand = READERS[plugin]
    exact = by_hand._replace(decode=decode)
    return {
        "by hand, as the contract says": Part(of(EventByHand, by_hand), ""),
        "with pgdoc's decoding": Part(of(EventByHand, exact), "what is nested too deeply for orjson"),
        "and its description of an update": Part(of(WithDifference, exact), "differences inside of fields"),
        "and its token": Part(of(WithToken, exact), "snapshots; timelines; text; an order across databases"),
        "and its documents": Part(
            of(WithDocuments, exact), "rows of another shape; models, copies, ==, repr, pickle, dataclasses.replace"
        ),
        "pgdoc's event": Part(
            lambda change: read_all_fields(from_change(change, IDS)),
            "deletes, tables, topics, snapshots and JSON in one class; ==, repr, pickle, dataclasses.replace",
        ),
    }


if __name__ == "__main__":
    raise SystemExit(main())
