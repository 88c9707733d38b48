"""Run the named benchmarks (`python -m bench latency bulk`), or all except million, which takes minutes.

The benchmarks are decoding, latency, throughput, fanout, triggers, bulk, documents, restart and million.
"""

from __future__ import annotations

import importlib
import sys

for name in sys.argv[1:] or ("decoding", "latency", "throughput", "fanout", "triggers", "bulk", "documents", "restart"):
    sys.argv = [name]
    importlib.import_module(f"bench.{name}").main()
