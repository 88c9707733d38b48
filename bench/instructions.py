"""Count the instructions that reading changes takes, and compare them with limits: a guard that noise can't break.

    python -m bench instructions           # fails if a piece takes more than its limit
    python -m bench instructions --renew   # sets each limit 10% above what was counted

valgrind (the Debian package) counts the instructions that the CPU would execute: two runs count the same, on a busy
machine, too. It emulates a CPU without AVX-512, whatever the machine has. Its tool is cachegrind, which counts what
callgrind counts in a third of the time. The hash seed is 0, and Python's garbage collector is off.

What a piece takes for a change is given in rounds of a fixed loop in Python, counted in the same run. Debian's build of
Python 3.11 takes 14% fewer instructions than pyenv's, and its ratios differ by 1% to 7%. Another minor version of
Python or another orjson may need new limits.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import orjson

from bench.arguments import parser_of

LIMITS = Path(__file__).with_suffix(".json")
MARGIN = 1.10
LOOSE = 0.75
"""Below this share of its limit, a piece has become so much faster that the limit guards nothing."""
RENEW = "python -m bench instructions --renew"


class CountError(Exception):
    """valgrind did not count."""


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--renew", action="store_true", help="write new limits, 10%% above what is counted")
    renew: bool = parser.parse_args().renew
    try:
        ratios = ratios_of(count())
    except CountError as exc:
        print(f"THE INSTRUCTIONS WERE NOT COUNTED: {exc}", file=sys.stderr)
        return 1
    if renew:
        LIMITS.write_bytes(text_of(ratios))
        print(f"renewed {LIMITS.name}, 10% above what was counted")
    recorded = orjson.loads(LIMITS.read_bytes())
    limits: dict[str, float] = recorded["limits"]
    print(f"instructions for a change, in rounds of a fixed loop\n{'':20} {'counted':>9} {'limit':>9}")
    for piece, ratio in ratios.items():
        print(f"{piece:20} {ratio:9.4f} {limits.get(piece, float('nan')):9.4f}")
    for line in loose(ratios, limits):
        print(line)
    failures = compare(ratios, limits)
    if failures and recorded["made_with"] != versions():
        failures.append(f"the limits were made with {recorded['made_with']}, these are counts of {versions()}")
    for line in failures:
        print(f"FAILED: {line}", file=sys.stderr)
    return 1 if failures else 0


def count() -> dict[str, list[int]]:
    """Return the counts of each piece: for N changes and for 2N."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise CountError("valgrind is not installed; on Debian, run: sudo apt-get install -y valgrind")
    with tempfile.TemporaryDirectory(prefix="pgdoc-instructions-") as folder:
        tool = [valgrind, "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={folder}/%p"]
        environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [*tool, sys.executable, "-m", "bench.counted"],
            cwd=Path(__file__).parents[1],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise CountError(f"bench.counted ended with status {done.returncode}:\n{done.stderr}")
        counts: dict[str, list[int]] = {}
        for line in done.stdout.splitlines():
            run = orjson.loads(line)
            counts.setdefault(run["piece"], []).append(total((Path(folder) / str(run["pid"])).read_text()))
    return counts


def total(output: str) -> int:
    """Return the number of instructions in cachegrind's output."""
    for line in output.splitlines():
        if line.startswith("summary:"):
            return int(line.split()[1])
    raise CountError("cachegrind wrote no summary")


def ratios_of(counts: dict[str, list[int]]) -> dict[str, float]:
    """Return what each piece costs, in rounds of the reference."""
    costs = {piece: twice - once for piece, (once, twice) in counts.items()}
    reference = costs.pop("reference")
    return {piece: cost / reference for piece, cost in costs.items()}


def compare(ratios: dict[str, float], limits: dict[str, float]) -> list[str]:
    """Return a message for each piece that exceeds its limit, or that has none."""
    failures = []
    for piece, ratio in ratios.items():
        limit = limits.get(piece)
        if limit is None:
            failures.append(f"{piece} has no limit: set it with {RENEW}")
        elif ratio > limit:
            failures.append(
                f"{piece} is {ratio / limit * MARGIN - 1:.0%} slower: it takes {ratio:.4g} rounds of the fixed loop a "
                f"change, its limit is {limit:.4g}; find out why or, if it must be so, renew the limits with {RENEW}"
            )
    failures += [
        f"{piece} has a limit, but was not counted: remove it with {RENEW}" for piece in limits.keys() - ratios
    ]
    return failures


def loose(ratios: dict[str, float], limits: dict[str, float]) -> list[str]:
    """Return a message for each piece that is so much faster than its limit that the limit guards little."""
    return [
        f"{piece} has become much faster than its limit: set a new one with {RENEW}"
        for piece, ratio in ratios.items()
        if piece in limits and ratio < LOOSE * limits[piece]
    ]


def text_of(ratios: dict[str, float]) -> bytes:
    """Return the file of limits: a line for each piece."""
    limits = {piece: float(f"{ratio * MARGIN:.4g}") for piece, ratio in ratios.items()}
    return orjson.dumps(
        {"made_with": versions(), "limits": limits}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    )


def versions() -> dict[str, str]:
    return {"python": f"{sys.version_info.major}.{sys.version_info.minor}", "orjson": orjson.__version__}


if __name__ == "__main__":
    sys.exit(main())
