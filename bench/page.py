"""The tables of docs/explanation/performance.md, made from the JSON file of a run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bench import goals, machine
from bench.figures import readable
from bench.sections import SECTIONS, Section

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.figures import Figure
    from bench.results import Results

_BLOCK = re.compile(r"(<!-- bench: ([\w ]+) -->\n).*?(<!-- /bench -->)", re.DOTALL)


def fill(text: str, found: Results) -> str:
    """Return the page's text with the contents of all its blocks made anew."""
    made = blocks(found)
    missing = set(made) - set(names_in(text))
    if missing:
        raise ValueError(f"the page has no block for {', '.join(sorted(missing))}: add <!-- bench: NAME -->")
    return _BLOCK.sub(lambda block: f"{block[1]}\n{made.get(block[2], '')}\n{block[3]}", text)


def names_in(text: str) -> list[str]:
    return [block[2] for block in _BLOCK.finditer(text)]


def blocks(found: Results) -> dict[str, str]:
    """Return the text of each block."""
    made = {"run": _run(found), "goals": _goals(found.figures)}
    for section in SECTIONS:
        figures = [figure for figure in found.figures if figure.part == section.part]
        if figures:
            made[section.part] = f"{_chart(section)}\n{_grown(figures, section) if section.axis else _points(figures)}"
    return made


def _chart(section: Section) -> str:
    name = section.title + (f", by {section.axis}" if section.axis else "")
    return f"![{name}](../images/performance/{section.file})\n"


def _run(found: Results) -> str:
    about = found.machine
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items() if version)
    machine_line = f"{about['cores']} cores, {about['processor'] or about['system']}"
    versions_line = f"Python {about['python']}, PostgreSQL {about['postgresql']}, {versions}"
    start, end = found.load["start"][0], found.load["end"][0]
    lines = [
        f"- {machine_line}; {versions_line}; commit {about['commit'] or 'unknown'}.",
        f"- The load average was {start} when the run began and {end} at its end, after {found.seconds} s.",
    ]
    if found.quick:
        lines.append("- **A quick run: its figures mean nothing.**")
    if warning := machine.warning(found.load["start"]):
        lines.append(f"- **Careful: {warning}.**")
    lines += [f"- **Not measured: {name}**: {reason}." for name, reason in found.skipped.items()]
    return "\n".join(lines) + "\n"


def _goals(figures: Iterable[Figure]) -> str:
    rows = [[goal.text, goal.wanted, reached, verdict] for goal, reached, verdict in goals.judge(figures)]
    return _markdown(["goal", "wanted", "reached", ""], rows)


def _points(figures: list[Figure]) -> str:
    rows = [
        [
            f"**{figure.name}**" if figure.is_pgdoc else figure.name,
            f"{readable(figure.median)} {figure.unit}",
            readable(figure.ratio),
            _spread(figure),
            f"{figure.reference}: {readable(figure.reference_median)}",
        ]
        for figure in figures
    ]
    return _markdown(["", "median", "ratio", "lowest to highest", "reference"], rows)


def _grown(figures: list[Figure], section: Section) -> str:
    """Return a table with a column for each size of what grows: medians with the ratio."""
    sizes = sorted({figure.x for figure in figures if figure.x is not None})
    at = {(figure.name, figure.x): figure for figure in figures}
    references = {(figure.reference, figure.x): figure for figure in figures}
    rows = [
        [f"**{name}**" if any(figure.is_pgdoc for figure in figures if figure.name == name) else name]
        + [_cell(at.get((name, size))) for size in sizes]
        for name in dict.fromkeys(figure.name for figure in figures)
    ]
    for name in dict.fromkeys(figure.reference for figure in figures):
        shown = [references.get((name, size)) for size in sizes]
        rows.append([name, *(readable(figure.reference_median) if figure else "" for figure in shown)])
    unit = figures[0].unit
    return _markdown([f"{unit} (ratio), by {section.axis}", *(f"{size:,g}" for size in sizes)], rows)


def _cell(figure: Figure | None) -> str:
    return f"{readable(figure.median)} ({readable(figure.ratio)})" if figure else ""


def _spread(figure: Figure) -> str:
    return f"{readable(min(figure.ratios))} to {readable(max(figure.ratios))}"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
