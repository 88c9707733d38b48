"""Run the named benchmarks (`python -m bench latency bulk`), or all except million and load, which take minutes.

The benchmarks are decoding, values, latency, throughput, fanout, triggers, bulk, documents, updates, restart, million
and load. What follows the names is for the benchmark: `python -m bench load --seconds=10`.
"""

from __future__ import annotations

import importlib
import sys

DEFAULT = (
    "decoding",
    "values",
    "latency",
    "throughput",
    "fanout",
    "triggers",
    "bulk",
    "documents",
    "updates",
    "restart",
)

names = [each for each in sys.argv[1:] if not each.startswith("--")]
options = [each for each in sys.argv[1:] if each.startswith("--")]
for name in names or DEFAULT:
    sys.argv = [name, *options]
    importlib.import_module(f"bench.{name}").main()
