"""Compare pgdoc with what people would use instead, all in turns in one run, or run one benchmark by its name.

python -m bench                     all parts: minutes; writes the JSON file, the charts and the page of the docs
python -m bench --quick             the same code with small sizes: seconds; writes to a temporary folder
python -m bench latency streams     only these parts; writes no file
python -m bench documents           a benchmark that prints a table of its own
"""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import figures, machine, results
from bench.harness import started

if TYPE_CHECKING:
    from bench.figures import Figure

PARTS = {
    "rates": "changes per second, by the size of transactions and documents, beside pg_recvlogical",
    "reading": "CPU time of the loop that reads events",
    "latency": "from a write to the event, beside a bare loop, psycopg2, LISTEN/NOTIFY, an outbox, MongoDB",
    "streams": "1 to 1,000 streams in one process",
    "filters": "one stream beside a thousand others",
    "starts": "opening a stream, and resuming",
    "memory": "large transactions, many streams, a full buffer",
    "writer": "writes per second and WAL, beside a plain table",
}
FOLDER = Path(__file__).parent


def main() -> int:
    others = alone()
    if len(sys.argv) > 1 and sys.argv[1] in others:
        sys.argv = sys.argv[1:]
        return int(importlib.import_module(f"bench.{sys.argv[0]}").main() or 0)
    listed = "\n".join(f"  {name:17}{text}" for name, text in {**PARTS, **others}.items())
    parser = argparse.ArgumentParser(
        "python -m bench", description=__doc__, epilog=listed, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="the parts to run: all, if there is none")
    parser.add_argument("--quick", action="store_true", help="run everything with small sizes, to see that it works")
    parser.add_argument("--rounds", type=int, help="the most rounds of one figure: up to 9, and 1 in a quick run")
    parser.add_argument("--out", type=Path, help="the folder for the JSON file and the charts")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in PARTS]
    if by_itself := [name for name in unknown if name in others]:
        parser.error(f"{', '.join(by_itself)}: run each by itself, with its name as the first argument")
    if unknown:
        parser.error(f"{', '.join(unknown)}: not among {', '.join({**PARTS, **others})}")
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {arguments.rounds}")
    most_rounds = arguments.rounds or (1 if arguments.quick else 9)
    run(arguments.names, arguments.out, quick=arguments.quick, most_rounds=most_rounds)
    return 0


def alone() -> dict[str, str]:
    """Return the other benchmarks, those with a `main`, each with the first line of its docstring."""
    found = {}
    for path in sorted(FOLDER.glob("[!_]*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(each, ast.FunctionDef) and each.name == "main" for each in module.body):
            found[path.stem] = (ast.get_docstring(module) or "").partition("\n")[0]
    return found


def run(names: list[str], out: Path | None, *, quick: bool, most_rounds: int) -> None:
    """Run the parts; write the results if all parts ran, or if there is a folder for them."""
    load, began = machine.load_average(), time.monotonic()
    warn(load)
    measured: list[Figure] = []
    with started(quick=quick, most_rounds=most_rounds) as bench:
        for name in names or PARTS:
            print(f"{time.monotonic() - began:5.0f} s  {name}: {PARTS[name]}", flush=True)
            measured += importlib.import_module(f"bench.{name}").measure(bench)
    found = results.Results(
        figures=measured,
        skipped=bench.skipped,
        machine=machine.describe(),
        load={"start": load, "end": machine.load_average()},
        seconds=round(time.monotonic() - began),
        quick=quick,
    )
    print(figures.table(measured))
    print(f"\n{found.seconds} s; load average {load[0]} at the start, {found.load['end'][0]} at the end")
    for name, reason in bench.skipped.items():
        print(f"!!! NOT measured: {name}: {reason}")
    warn(load)
    if not names or out is not None:
        folder = Path(tempfile.mkdtemp(prefix="pgdoc-bench-")) if quick and out is None else out
        results.publish(found, folder)


def warn(load: list[float]) -> None:
    if text := machine.warning(load):
        print(f"!!! {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
