"""Generate `pgdoc/_sync` and the sync tests from their async sources; `--check` only reports outdated files.

A twin is its source after the replacements of `RULES`, formatted by ruff. A rule that matches nothing is an error.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {"pgdoc/_async": "pgdoc/_sync", "tests/integration/_async": "tests/integration/_sync"}
BANNER = "# Written by .ci/twins.py from {source}: change that file, and run it.\n"

RULES = {
    r"\basync (def|with|for)\b": r"\1",
    r"\bawait ": "",
    r"__a(enter|exit|iter|next)__": r"__\1__",
    r"\basync_(\w+)": r"\1",
    r"\b_async\b": "_sync",
    r"\bAsync(\w+)": r"\1",
    r"\ba(closing|close|next)\b": r"\1",
    r"\basynccontextmanager\b": "contextmanager",
    r"\bStopAsyncIteration\b": "StopIteration",
}


def main() -> int:
    """Write or check all twins; return the exit status."""
    unused = set(RULES)
    stale = [twin for source, twin in pairs() if renew(twin, translate(source, unused))]
    for rule in unused:
        print(f"rule {rule!r} matches no source: remove it")
    if check := "--check" in sys.argv[1:]:
        for twin in stale:
            print(f"{twin.relative_to(ROOT)} differs from its source: run .ci/twins.py")
    return 1 if unused or (check and stale) else 0


def pairs() -> list[tuple[Path, Path]]:
    """Return each source with its twin."""
    return [
        (source, ROOT / twins / source.name)
        for sources, twins in FOLDERS.items()
        for source in sorted((ROOT / sources).glob("*.py"))
    ]


def translate(source: Path, unused: set[str]) -> str:
    """Return the text of the twin; remove the rules that matched from `unused`."""
    text = source.read_text(encoding="utf-8")
    for rule, replacement in RULES.items():
        text, found = re.subn(rule, replacement, text)
        if found:
            unused.discard(rule)
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", source.name, "-"]
    banner = BANNER.format(source=source.relative_to(ROOT).as_posix())
    return subprocess.run(command, input=banner + text, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def renew(twin: Path, text: str) -> bool:
    """Write the twin if it differs, except with `--check`; return whether it differed."""
    if twin.exists() and twin.read_text(encoding="utf-8") == text:
        return False
    if "--check" not in sys.argv[1:]:
        twin.parent.mkdir(exist_ok=True)
        twin.write_text(text, encoding="utf-8")
    return True


if __name__ == "__main__":
    sys.exit(main())
