"""Run the named benchmarks (`python -m bench latency bulk`), or all except million, which takes minutes.

The benchmarks are decoding, values, latency, throughput, fanout, triggers, bulk, documents, updates, restart and
million.
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

for name in sys.argv[1:] or DEFAULT:
    sys.argv = [name]
    importlib.import_module(f"bench.{name}").main()
