"""The charts of a run as SVG: a dot for each figure's ratio, or lines where something grows.

matplotlib draws with two stand-ins for colours. They become CSS variables afterwards, so that one file suits a light
and a dark page.
"""

from __future__ import annotations

import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure as Sheet
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.figures import readable
from bench.sections import SECTIONS, Section

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from bench.figures import Figure

WIDTH = 6.4
# name: the stand-in that matplotlib draws, on a light page, on a dark page
COLORS = {
    "paper": ("#fefefe", "#ffffff", "#1e2129"),
    "ink": ("#111111", "#24292f", "#d7dae0"),
    "quiet": ("#777777", "#6e7781", "#8b93a1"),
    "grid": ("#dddddd", "#e1e4e8", "#343a46"),
    "a": ("#0a0001", "#0072b2", "#56b4e9"),
    "b": ("#0a0002", "#d55e00", "#ff9d4d"),
    "c": ("#0a0003", "#007a5e", "#2fc796"),
    "d": ("#0a0004", "#a8508a", "#e39acb"),
    "e": ("#0a0005", "#7a6a00", "#d8c84b"),
}
LINES = ("a", "b", "c", "d", "e")
DASHES = ((0, (4, 3)), (0, (1, 2)), (0, (6, 2, 1, 2)))  # of the references of a chart, which are all gray
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pgdoc",  # the same ids in each run
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLORS["grid"][0],
    "axes.facecolor": COLORS["paper"][0],
    "figure.facecolor": COLORS["paper"][0],
    "grid.color": COLORS["grid"][0],
    "text.color": COLORS["ink"][0],
    "axes.labelcolor": COLORS["ink"][0],
    "axes.titlecolor": COLORS["ink"][0],
    "xtick.color": COLORS["ink"][0],
    "ytick.color": COLORS["ink"][0],
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
}
FAR = 8  # from this ratio of the highest to the lowest value on, an axis is logarithmic
VERY_FAR = 100  # below it, an axis may show only one power of ten, so that it has a label between them, too


def draw(figures: list[Figure], folder: Path) -> list[Path]:
    """Draw a chart for each section that has figures; return the files."""
    written = []
    for section in SECTIONS:
        own = [figure for figure in figures if figure.part == section.part]
        if own:
            path = folder / section.file
            path.write_text(_svg(section, own))
            written.append(path)
    return written


def _svg(section: Section, figures: list[Figure]) -> str:
    with mpl.rc_context(STYLE):
        height = 3.6 if section.axis else 1.1 + 0.3 * len(figures)
        sheet = Sheet(figsize=(WIDTH, height))
        axes = sheet.subplots()
        axes.set_title(section.title, pad=10)
        if section.axis:
            _lines(axes, section, figures)
        else:
            _dots(axes, figures)
        file = io.StringIO()
        metadata: dict[str, Any] = {"Date": None, "Creator": None}
        sheet.savefig(file, format="svg", bbox_inches="tight", pad_inches=0.15, metadata=metadata)
    return _colored(file.getvalue(), f'role="img" aria-label="{section.title}" data-figures="{digest(figures)}"')


def _dots(axes: Axes, figures: list[Figure]) -> None:
    """Draw the ratio of each figure as a dot, with a line from its lowest to its highest round."""
    axes.axvline(1, color=COLORS["quiet"][0], linewidth=1, linestyle=(0, (4, 3)))
    for place, figure in enumerate(figures):
        color = COLORS["a" if figure.is_pgdoc else "quiet"][0]
        axes.plot([min(figure.ratios), max(figure.ratios)], [place, place], color=color, linewidth=2, alpha=0.45)
        axes.plot([figure.ratio], [place], "o", color=color, markersize=7)
    reached = [ratio for figure in figures for ratio in figure.ratios]
    _scale(axes, "x", [1, *reached])
    axes.set_yticks(range(len(figures)), [figure.name for figure in figures])
    axes.invert_yaxis()
    beside: Any = {"textcoords": "offset points", "xycoords": ("axes fraction", "data"), "va": "center"}
    for place, figure in enumerate(figures):
        axes.annotate(readable(figure.ratio), (1, place), (42, 0), ha="right", weight="bold", **beside)
        value = f"{readable(figure.median)} {figure.unit}"
        axes.annotate(value, (1, place), (52, 0), color=COLORS["quiet"][0], **beside)
    better = {"less is better" if figure.less_is_better else "more is better" for figure in figures}
    references = dict.fromkeys(figure.reference for figure in figures)
    name = next(iter(references)) if len(references) == 1 else "the reference"
    axes.set_xlabel(f"ratio to {name} = 1 " + (f" ({better.pop()})" if len(better) == 1 else ""))
    axes.grid(axis="x", linewidth=0.6)
    axes.set_axisbelow(True)


def _lines(axes: Axes, section: Section, figures: list[Figure]) -> None:
    lines: dict[str, tuple[str, dict[float, float]]] = {}
    for figure in figures:
        if figure.x is None:
            continue
        value = figure.median if section.draws_values else figure.ratio
        lines.setdefault(figure.name, ("pgdoc" if figure.is_pgdoc else "other", {}))[1][figure.x] = value
        if section.draws_values:
            lines.setdefault(figure.reference, ("reference", {}))[1][figure.x] = figure.reference_median
    if not section.draws_values:
        axes.axhline(1, color=COLORS["quiet"][0], linewidth=1, linestyle=(0, (4, 3)))
    # By the order of the figures, so that a name has one colour in all charts; the legend is sorted by the last value.
    colors = dict(zip((name for name, (kind, _) in lines.items() if kind != "reference"), LINES, strict=False))
    dashed = dict(zip((name for name, (kind, _) in lines.items() if kind == "reference"), DASHES, strict=False))
    for name, (_, points) in sorted(lines.items(), key=lambda line: -list(line[1][1].values())[-1]):
        dashes = dashed.get(name, "solid")
        color = COLORS[colors.get(name, "quiet")][0]
        axes.plot(list(points), list(points.values()), "o", linestyle=dashes, color=color, markersize=5, label=name)
    values = [value for _, points in lines.values() for value in points.values()]
    sizes = sorted({figure.x for figure in figures if figure.x is not None})
    _scale(axes, "x", sizes)
    axes.set_xticks(sizes)
    _scale(axes, "y", values if section.draws_values else [1, *values])
    better = "less" if figures[0].less_is_better else "more"
    unit = figures[0].unit if section.draws_values else "ratio"
    axes.set_ylabel(f"{unit} ({better} is better)")
    axes.set_xlabel(section.axis)
    axes.grid(linewidth=0.6)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def _scale(axes: Axes, which: str, values: list[float]) -> None:
    """Make an axis begin at zero, or logarithmic if the values are far apart; that has no place for one below zero."""
    axis = getattr(axes, f"{which}axis")
    spread = max(values) / min(value for value in values if value > 0)
    if spread >= FAR:
        getattr(axes, f"set_{which}scale")("log")
        if spread < VERY_FAR:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())
    else:
        getattr(axes, f"set_{which}lim")(0, max(values) * 1.08)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def digest(figures: list[Figure]) -> str:
    """Return a digest of figures, by which a test sees that a chart shows them."""
    return hashlib.sha256(json.dumps([figure.as_json() for figure in figures]).encode()).hexdigest()[:16]


def _colored(svg: str, attributes: str) -> str:
    """Replace the stand-ins by variables with a value for light and one for dark pages."""
    for name, (drawn, light, _) in COLORS.items():
        svg = svg.replace(drawn, f"var(--{name}, {light})")
    light = "".join(f"--{name}:{each[1]};" for name, each in COLORS.items())
    dark = "".join(f"--{name}:{each[2]};" for name, each in COLORS.items())
    style = f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    head, start, body = svg.partition("<svg ")
    opened, close, rest = body.partition(">")
    return f"{head}{start}{opened} {attributes}{close}{style}{rest}"
