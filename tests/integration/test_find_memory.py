"""A find over more documents than its memory limit runs in constant memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc import Store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc import Document

DOCUMENTS = 100_000
LIMIT_KIB = 24 << 10
DOCUMENT_BYTES = 600

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

FILL = """
INSERT INTO "{}".orders (id, data)
SELECT lpad(n::text, 6, '0'), jsonb_build_object('n', n, 'x', repeat('x', %s)) FROM generate_series(1, %s) AS n
"""


def test_find_reads_100_000_documents_in_constant_memory(own_schema: dict[str, Any]) -> None:
    assert DOCUMENTS * DOCUMENT_BYTES > LIMIT_KIB << 11
    with Store(**own_schema) as store:
        store.create_collection("orders")
        with store.transaction() as tx:
            tx.connection.execute(FILL.format(own_schema["schema"]).encode(), [DOCUMENT_BYTES, DOCUMENTS])
            check_flat(tx["orders"].find(), 0)
        check_flat(store["orders"].find({"n": {"$gt": 10}}, sort="-n", skip=5, limit=DOCUMENTS - 15), 15)


def check_flat(documents: Iterable[Document], missing: int) -> None:
    before, seen = resident_kib(), 0
    for document in documents:
        assert document["n"]
        seen += 1
        if seen % 10_000 == 0:
            assert resident_kib() - before < LIMIT_KIB
    assert seen == DOCUMENTS - missing


def resident_kib() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])
