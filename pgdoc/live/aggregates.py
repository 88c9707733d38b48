"""Counts, sums and averages of the documents that match a filter, by group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

from pgdoc.errors import InvalidDocument, UnreadableDocument
from pgdoc.live.changes import LiveChangeKind
from pgdoc.live.sort_keys import whole_key
from pgdoc.model.json_codec import decode_comparable, encode_value
from pgdoc.model.json_numbers import decimal_of
from pgdoc.query.filters.match import matcher
from pgdoc.query.filters.order import value_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.live.images import RowImage
    from pgdoc.query.filters.nodes import Node, Path

__all__ = [
    "Aggregate",
    "AggregateKind",
    "GroupValues",
    "Groups",
    "LiveAggregateChange",
    "Totals",
    "changes_between",
    "with_changes",
]

V = TypeVar("V")

_EXACT: Final = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
_AVERAGES: Final = Context(prec=28)
_MOST_DIGITS: Final = 131_072
_MOST_DECIMALS: Final = 16_383
_ID: Final = ("_id",)

_WHOLE: Final = ""
"""The key of all documents together; that of a group begins with a digit."""


class AggregateKind(StrEnum):
    """What is computed of the documents that match."""

    COUNT = "count"
    SUM = "sum"
    AVERAGE = "average"


@dataclass(frozen=True, slots=True)
class LiveAggregateChange(Generic[V]):
    """A change of a live count, sum or average.

    Attributes:
        kind: `modified`; with groups also `added` for the first document of a group, and `removed` for the last one.
        group: the value that the documents of the group share; `None` without groups.
        old_value: the value before; `None` if the group was added.
        value: the value now; `None` if the group was removed.
        event: the event that caused the change, the last one if there are several; `None` if the values were read
            again.
    """

    kind: LiveChangeKind
    group: Any
    old_value: V | None
    value: V | None
    event: ChangeEvent | None


class Totals(NamedTuple):
    """What the values of one group are computed from, as the server returns it.

    Attributes:
        group: the JSON text of the group; null also for documents without a value.
        documents: the number of documents.
        numbers: how many of them have a number at the path.
        total: the sum of these numbers; `None` for no number.
    """

    group: bytes | str
    documents: int
    numbers: int
    total: Decimal | None


GroupValues: TypeAlias = Mapping[str, tuple[Any, Any]]
"""Each group and its value, by a key that only equal groups share."""


class Groups(Mapping[Any, V]):
    """The values of all groups, in the order of the groups.

    Groups are JSON values: to look one up, give any value that is stored as it. So `True` is not `1`, and a group can
    be a list or a dict.
    """

    __slots__ = ("_values",)

    def __init__(self, values: GroupValues) -> None:
        self._values = {key: values[key] for key in sorted(values)}

    def __getitem__(self, group: Any) -> V:
        try:
            value: V = self._values[_key_of(decode_comparable(encode_value(group, "")))][1]
        except (InvalidDocument, KeyError):
            raise KeyError(group) from None
        return value

    def __iter__(self) -> Iterator[Any]:
        return (group for group, _ in self._values.values())

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return len(self) == len(other) and all(
            group in other and other[group] == value for group, value in self._values.values()
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{group!r}: {value!r}" for group, value in self._values.values())
        return f"{type(self).__name__}({{{shown}}})"


def _key_of(group: Any) -> str:
    """Return a text that only equal groups share, and that sorts as the groups do."""
    try:
        return whole_key(group)
    except RecursionError as exc:
        raise UnreadableDocument("the value of a group is nested too deeply: change it with SQL") from exc


class _GroupTotals:
    """The documents of one group, as far as its value depends on them."""

    __slots__ = ("count", "group", "numbers", "total")

    def __init__(self, group: Any, count: int = 0, numbers: int = 0, total: Decimal | None = None) -> None:
        self.group, self.count, self.numbers = group, count, numbers
        self.total = Decimal(0) if total is None else total

    def value(self, kind: AggregateKind) -> Any:
        if kind is AggregateKind.COUNT:
            return self.count
        if kind is AggregateKind.SUM:
            return self.total
        return _AVERAGES.divide(self.total, Decimal(self.numbers)) if self.numbers else None

    def add(self, sign: int, number: Decimal | None) -> None:
        self.count += sign
        if number is not None:
            self.numbers += sign
            self.total = (_EXACT.add if sign > 0 else _EXACT.subtract)(self.total, number)


class Aggregate:
    """A live count, sum or average: a `LiveState` that returns each `LiveAggregateChange`.

    Numbers are exact. Values that are not numbers, and the items of arrays, count neither in a sum nor in an average.
    Without any number, a sum is 0 and an average `None`. A document without a value for the group is in the group
    `None`, as if that were null. A group has at least one document.

    A document that Python can't read is left to the server: its change makes the values uncertain until they are read.

    Args:
        node: the parsed filter.
        kind: what to compute.
        path: where the numbers are; `None` for a count.
        by: where the group is; `None` for all documents together.
    """

    def __init__(self, node: Node, kind: AggregateKind, path: Path | None = None, by: Path | None = None) -> None:
        self._match = matcher(node)
        self._kind, self._path, self.by = kind, path, by
        self._groups: dict[str, _GroupTotals] = {}
        self._is_certain = False
        self._shown: dict[str, tuple[Any, Any]] = {}
        if by is None:
            self._shown[_WHOLE] = (None, _GroupTotals(None).value(kind))
        self._touched: dict[str, ChangeEvent | None] = {}

    @property
    def needs_read(self) -> bool:
        """Whether the values have to be read."""
        return not self._is_certain

    @property
    def values(self) -> GroupValues:
        """The values as the last commit showed them."""
        return dict(self._shown)

    def load(self, rows: Iterable[Totals], *, is_all: bool) -> None:  # noqa: ARG002 (of the protocol)
        """Replace the values by what the server has computed."""
        found: dict[str, _GroupTotals] = {}
        for text, documents, numbers, total in rows:
            group = None if self.by is None else decode_comparable(text)
            found[_WHOLE if self.by is None else _key_of(group)] = _GroupTotals(group, documents, numbers, total)
        self._touched.update(dict.fromkeys(self._groups.keys() | found.keys() | self._shown.keys()))
        self._groups, self._is_certain = found, True

    def counts(self, image: RowImage) -> bool:
        """Return whether the document matches."""
        return image.passes(self._match)

    def totals_of(self, rows: Iterable[RowImage]) -> list[Totals]:
        """Return the same for documents that were all read, as rows of a watched table are."""
        groups: dict[str, _GroupTotals] = {}
        for image in rows:
            try:
                self._add(groups, image, 1)
            except Exception:  # noqa: BLE001, S112 (Python can't read the document)
                continue
            finally:
                image.release()
        return [Totals(encode_value(each.group, ""), each.count, each.numbers, each.total) for each in groups.values()]

    def apply(self, before: RowImage | None, after: RowImage | None, event: ChangeEvent) -> bool:
        """Apply a change of one row; return whether it may change a value."""
        is_left = before is not None and self._change(before, -1, event)
        is_entered = after is not None and self._change(after, 1, event)
        return is_left or is_entered

    def clear(self, event: ChangeEvent) -> bool:
        """Apply a truncation of the collection."""
        self._touched.update(dict.fromkeys(self._groups, event))
        self._groups, self._is_certain = {}, True
        return True

    def commit(self) -> list[LiveAggregateChange[Any]]:
        """Return the changes since the last commit, in the order of the groups; none while a read is needed."""
        if not self._is_certain:
            return []
        touched, self._touched = self._touched, {}
        changes = []
        for key in sorted(touched):
            change = self._show(key, touched[key])
            if change is not None:
                changes.append(change)
        return changes

    def _change(self, image: RowImage, sign: int, event: ChangeEvent) -> bool:
        try:
            key = self._add(self._groups, image, sign)
        except Exception:  # noqa: BLE001 (Python can't read the document, or compare it; the server can)
            self._is_certain = False
            return True
        if key is not None:
            self._touched[key] = event
        return key is not None

    def _add(self, groups: dict[str, _GroupTotals], image: RowImage, sign: int) -> str | None:
        """Count a document in, or out; return the key of its group, or `None` if it does not match."""
        subject = image.subject
        if not self._match(subject):
            return None
        number = None if self._path is None else _number_of(_value_at(subject, self._path))
        value = None if self.by is None else _value_at(subject, self.by)
        key = _WHOLE if self.by is None else _key_of(value)
        group = groups.get(key)
        if group is None:
            group = groups[key] = _GroupTotals(value)
        group.add(sign, number)
        if not group.count:
            del groups[key]
        return key

    def _show(self, key: str, event: ChangeEvent | None) -> LiveAggregateChange[Any] | None:
        group = self._groups.get(key)
        if group is None and self.by is None:
            group = _GroupTotals(None)
        shown = self._shown.get(key)
        if group is None:
            if shown is None:
                return None
            del self._shown[key]
            return LiveAggregateChange(LiveChangeKind.REMOVED, *shown, None, event)
        value = group.value(self._kind)
        if shown is None:
            self._shown[key] = (group.group, value)
            return LiveAggregateChange(LiveChangeKind.ADDED, group.group, None, value, event)
        if shown[1] == value:
            return None
        self._shown[key] = (shown[0], value)
        return LiveAggregateChange(LiveChangeKind.MODIFIED, *shown, value, event)


def _value_at(subject: Any, path: Path) -> Any:
    return subject[0] if path == _ID else value_at(subject[1], path)


def _number_of(value: Any) -> Decimal | None:
    """Return the exact number; `None` for other values, and for numbers that PostgreSQL's numeric does not have."""
    kind = value.__class__
    if kind is int:
        return Decimal(value)
    if kind is float:
        return decimal_of(value)
    if kind is not Decimal:
        return None
    is_in_range = value.adjusted() < _MOST_DIGITS and value.as_tuple().exponent >= -_MOST_DECIMALS
    return value if is_in_range else None


def changes_between(before: GroupValues, after: GroupValues) -> list[LiveAggregateChange[Any]]:
    """Return the changes, without events, from some values to others, in the order of the groups."""
    changes: list[LiveAggregateChange[Any]] = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if new is None and old is not None:
            changes.append(LiveAggregateChange(LiveChangeKind.REMOVED, *old, None, None))
        elif new is not None and old is None:
            changes.append(LiveAggregateChange(LiveChangeKind.ADDED, new[0], None, new[1], None))
        elif new is not None and old is not None and old[1] != new[1]:
            changes.append(LiveAggregateChange(LiveChangeKind.MODIFIED, *old, new[1], None))
    return changes


def with_changes(
    values: GroupValues, changes: Iterable[LiveAggregateChange[Any]], *, has_groups: bool
) -> dict[str, tuple[Any, Any]]:
    """Return a copy of the values with the changes applied."""
    found = dict(values)
    for change in changes:
        key = _key_of(change.group) if has_groups else _WHOLE
        if change.kind is LiveChangeKind.REMOVED:
            del found[key]
        else:
            found[key] = (change.group, change.value)
    return found
