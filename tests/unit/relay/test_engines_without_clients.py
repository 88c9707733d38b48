"""An engine whose client is not installed says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
sys.modules[{module!r}] = None
import pgdoc
from pgdoc.relay.engines import open_writer
from pgdoc.relay.targets import LogTarget
try:
    open_writer(LogTarget.parse({url!r}))
except pgdoc.MissingExtra as exc:
    print(exc)
"""


@pytest.mark.parametrize(
    ("module", "url", "extra"),
    [("redis", "redis://host/ORDERS", "redis"), ("confluent_kafka", "kafka://host/orders", "kafka")],
)
def test_what_to_install_is_said(module: str, url: str, extra: str) -> None:
    program = PROGRAM.format(module=module, url=url)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"pip install 'pgdoc[{extra}]'" in done.stdout
