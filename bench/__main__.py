"""Run the benches that are named, `python -m bench latency bulk`, or all but million, which takes minutes.

There are decoding, latency, throughput, fanout, triggers, bulk, documents and million.
"""

from __future__ import annotations

import importlib
import sys

for name in sys.argv[1:] or ("decoding", "latency", "throughput", "fanout", "triggers", "bulk", "documents"):
    sys.argv = [name]
    importlib.import_module(f"bench.{name}").main()
