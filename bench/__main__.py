"""Compare pgdoc with what people would use instead, all in turns in one run, or run one benchmark by its name.

python -m bench                     all parts: minutes; writes the JSON file and the charts of the documentation
python -m bench --quick             the same code with small sizes: seconds; writes to a temporary folder
python -m bench latency streams     only these parts; writes no file
python -m bench documents           one of the benchmarks that print a table of their own
"""

from __future__ import annotations

import importlib
import sys

PARTS: dict[str, str] = {}
ALONE = {
    "values": "encode and decode one document, beside orjson",
    "documents": "calls on documents, beside SQL by hand",
    "bulk": "mixed writes in one transaction, beside a pipeline",
    "updates": "large updates, and how their cost grows",
    "restart": "the first call after a restart of the server",
    "million": "finds among 1,000,000 documents; takes minutes",
    "load": "64 writers, 5 consumers and 20 streams",
    "sink": "events into a collection, exactly once",
    "snapshot": "a snapshot of 1,000,000 documents, beside COPY",
    "instructions": "instructions per change, for the guard in CI",
}

for name in sys.argv[1:]:
    sys.argv = [name]
    importlib.import_module(f"bench.{name}").main()
