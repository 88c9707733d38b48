"""Run every bench, or those that are named: `python -m bench [decoding] [latency] [throughput] [fanout] ...`."""

from __future__ import annotations

import importlib
import sys

for name in sys.argv[1:] or ("decoding", "latency", "throughput", "fanout", "triggers", "bulk"):
    sys.argv = [name]
    importlib.import_module(f"bench.{name}").main()
