"""What needs a client that is not installed says what to install."""

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
    {statement}
except pgdoc.MissingExtra as exc:
    print(exc)
"""


@pytest.mark.parametrize(
    ("module", "extra", "statement"),
    [
        ("nats", "nats", "open_writer(LogTarget.parse('nats://host/ORDERS'))"),
        ("redis", "redis", "open_writer(LogTarget.parse('redis://host/ORDERS'))"),
        ("confluent_kafka", "kafka", "open_writer(LogTarget.parse('kafka://host/orders'))"),
        ("httpx", "webhooks", "import pgdoc.relay.posting"),
    ],
)
def test_what_to_install_is_said(module: str, extra: str, statement: str) -> None:
    program = PROGRAM.format(module=module, statement=statement)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"the package {module} is not installed: run pip install 'pgdoc[{extra}]'\n"
