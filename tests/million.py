"""Read one stream and print how much memory that took: `python -m tests.million CONNINFO SCHEMA COUNT`.

This runs in a separate process, so that nothing else adds to the measured memory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import orjson

import pgdoc

_LOOK_EVERY = 500


def resident_kib() -> int:
    """Return the resident memory of this process; getrusage would include that of the process it was forked from."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def main() -> None:
    conninfo, schema, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with pgdoc.Store(conninfo, schema=schema) as store, store["orders"].watch() as stream:
        before = most = resident_kib()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        seen = total = 0
        for event in stream:
            seen, total = seen + 1, total + int(event.document_id or 0)
            assert event.full_document is not None
            assert event.full_document.data["n"] == seen
            if seen % _LOOK_EVERY == 0:
                most = max(most, resident_kib())
            if seen == count:
                break
    sys.stdout.write(orjson.dumps({"seen": seen, "total": total, "grown_kib": most - before}).decode())


if __name__ == "__main__":
    main()
