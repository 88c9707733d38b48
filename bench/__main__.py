"""Run the named benchmarks (`python -m bench latency bulk`), or all except million, which takes minutes.

The benchmarks are decoding, values, latency, throughput, fanout, triggers, bulk, documents, updates, restart and
million. `instructions` is a guard that fails; its docstring has its option.
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

options = [word for word in sys.argv[1:] if word.startswith("--")]
names = [word for word in sys.argv[1:] if word not in options] or DEFAULT
for name in names:
    sys.argv = [name, *options]
    if status := importlib.import_module(f"bench.{name}").main():
        sys.exit(status)
