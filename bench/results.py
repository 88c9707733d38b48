"""The JSON file of a run, and what is made from it: the charts, and the tables of the page in the documentation.

python -m bench.results             makes the charts and tables anew, from the JSON file in the documentation
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import page
from bench.figures import Figure

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "images" / "performance"
PAGE = ROOT / "docs" / "explanation" / "performance.md"
NAME = "results.json"


@dataclass(frozen=True)
class Results:
    """All that one run found."""

    figures: list[Figure]
    skipped: dict[str, str]
    machine: dict[str, Any]
    load: dict[str, list[float]]
    seconds: int
    quick: bool

    def as_json(self) -> str:
        """Return the JSON file's text, one figure a line, so that a diff of two runs can be read."""
        about = {name: value for name, value in vars(self).items() if name != "figures"}
        head = json.dumps(about, indent=2, ensure_ascii=False).removesuffix("\n}")
        lines = ",\n".join("    " + json.dumps(figure.as_json(), ensure_ascii=False) for figure in self.figures)
        return f'{head},\n  "figures": [\n{lines}\n  ]\n}}\n'


def load(path: Path) -> Results:
    content = json.loads(path.read_text())
    return Results(**{**content, "figures": [Figure.from_json(entry) for entry in content["figures"]]})


def publish(found: Results, folder: Path | None) -> None:
    """Write the JSON file and the charts to a folder; without one, to the documentation, with the page's tables."""
    from bench import charts  # noqa: PLC0415 (every process that writes imports this module; matplotlib takes a second)

    target = folder or FOLDER
    target.mkdir(parents=True, exist_ok=True)
    (target / NAME).write_text(found.as_json())
    drawn = charts.draw(found.figures, target)
    if folder is None:
        PAGE.write_text(page.fill(PAGE.read_text(), found))
    print(f"wrote {NAME} and {len(drawn)} charts to {target}")


if __name__ == "__main__":
    publish(load(FOLDER / NAME), None)
