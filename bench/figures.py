"""A figure is what pgdoc cost or reached in each round, beside a reference that took turns with it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        part: the part of the benchmark that measured it, as in `python -m bench PART`.
        name: the thing that was measured.
        unit: the unit of all values.
        values: what it reached, one value per round.
        reference: what it is compared with.
        reference_values: what the reference reached in the same rounds.
        less_is_better: whether a low value is a good one.
        x: the size of what grows in this part (documents, streams, ...), if something does.
        is_pgdoc: `False` for what people use instead of pgdoc.
    """

    part: str
    name: str
    unit: str
    values: tuple[float, ...]
    reference: str
    reference_values: tuple[float, ...]
    less_is_better: bool = False
    x: float | None = None
    is_pgdoc: bool = True

    @property
    def ratios(self) -> list[float]:
        """The value of each round, divided by that of the reference in the same round."""
        return [ours / theirs for ours, theirs in zip(self.values, self.reference_values, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios: a round that the machine disturbed does not count."""
        return statistics.median(self.ratios)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def reference_median(self) -> float:
        return statistics.median(self.reference_values)

    def as_json(self) -> dict[str, Any]:
        """Return the figure as it stands in the JSON file. `from_json` is the reverse."""
        return {
            "part": self.part,
            "name": self.name,
            "x": self.x,
            "unit": self.unit,
            "less_is_better": self.less_is_better,
            "is_pgdoc": self.is_pgdoc,
            "reference": self.reference,
            "rounds": len(self.values),
            "median": _rounded(self.median),
            "reference_median": _rounded(self.reference_median),
            "ratio": _rounded(self.ratio),
            "ratio_spread": [_rounded(min(self.ratios)), _rounded(max(self.ratios))],
            "values": self.values,
            "reference_values": self.reference_values,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Figure:
        names = ("part", "name", "unit", "reference", "less_is_better", "x", "is_pgdoc")
        values, reference_values = tuple(entry["values"]), tuple(entry["reference_values"])
        return cls(**{name: entry[name] for name in names}, values=values, reference_values=reference_values)


def in_turns(rounds: int, ways: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Run each way once a round, one after the other, so that a busy moment meets all of them; return their values.

    Each round begins with another way: what comes first may find the server's memory in another state than the rest.
    """
    values: dict[str, list[T]] = {name: [] for name in ways}
    names = list(ways)
    for round_ in range(rounds):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            values[name].append(ways[name]())
    return values


def compare(  # noqa: PLR0913 (what a figure needs)
    part: str,
    values: Mapping[str, Iterable[float]],
    reference: str,
    unit: str,
    *,
    less_is_better: bool = False,
    x: float | None = None,
    others: Iterable[str] = (),
) -> list[Figure]:
    """Return a figure for each name except the reference. `others` names those that are not pgdoc."""
    rounded = {name: tuple(_rounded(value) for value in rounds) for name, rounds in values.items()}
    theirs = rounded[reference]
    return [
        Figure(part, name, unit, ours, reference, theirs, less_is_better, x, name not in set(others))
        for name, ours in rounded.items()
        if name != reference
    ]


def table(figures: Iterable[Figure]) -> str:
    """Return the figures as text, a heading for each part."""
    lines = [f"{'':58} {'median':>12} {'':14} {'ratio':>7} {'lowest':>7} {'highest':>7}  of the reference, its median"]
    parts: dict[str, list[Figure]] = {}
    for figure in figures:
        parts.setdefault(figure.part, []).append(figure)
    for part, own in parts.items():
        lines += [f"\n{part}", *map(_line, own)]
    return "\n".join(lines)


def _line(figure: Figure) -> str:
    label = figure.name if figure.x is None else f"{figure.name}, {figure.x:,g}"
    spread = f"{figure.ratio:7.2f} {min(figure.ratios):7.2f} {max(figure.ratios):7.2f}"
    reference = f"{figure.reference}, {readable(figure.reference_median)}"
    return f"  {label:56} {readable(figure.median):>12} {figure.unit:14} {spread}  {reference}"


def readable(value: float) -> str:
    """Return a number with three digits that count, or all digits before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _rounded(value: float) -> float:
    """Round to the digits that the JSON file keeps, so that all that is made from a figure agrees with the file."""
    return float(f"{value:.5g}")
