"""The pages of the documentation and their code blocks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]

# Blocks that are not run, by page and first line, each with the reason. An entry without a block fails the tests.
_PART = "a part of a program in docs/examples, which tests/examples runs"
_WHOLE_SERVER = "changes the whole server, which other tests use"
_ROLES = "names roles of the reader's cluster; tests/security runs the same grants"
_SUITE = "a file of a suite, which tests/docs/test_test_your_code.py runs"
_SUPERVISOR = "for a supervisor that the tests do not have; tests/integration/test_worker_command.py runs the commands"
NOT_RUN = {
    ("docs/examples/index.md", '--8<-- "examples/audit.py"'): _PART,
    ("docs/examples/index.md", '--8<-- "examples/cache.py"'): _PART,
    ("docs/examples/index.md", '--8<-- "examples/dashboard/app.py"'): _PART,
    ("docs/examples/index.md", '--8<-- "examples/event_sourcing.py"'): _PART,
    ("docs/examples/index.md", '--8<-- "examples/shop.py"'): _PART,
    (
        "docs/explanation/how-a-change-travels.md",
        'WITH m AS MATERIALIZED (SELECT pg_logical_emit_message(true, \'pgdoc\', \'{"metadata": {"user": "alice"}}\'))',
    ): "shortened: the statement that pgdoc sends is longer",
    (
        "docs/explanation/security.md",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC;",
    ): _WHOLE_SERVER,
    ("docs/how-to/cache-invalidation.md", "import os"): "needs Redis, which only tests/examples has",
    ("docs/how-to/cache-invalidation.md", "if not redis.eval(HANDLE, len(keys), *keys, *values):"): _PART,
    ("docs/how-to/event-sourcing.md", "account = replay(store, account_id)"): _PART,
    (
        "docs/how-to/fail-over.md",
        "ALTER SYSTEM SET wal_level = 'logical';  -- restart the server afterwards",
    ): _WHOLE_SERVER,
    ("docs/how-to/fail-over.md", "ALTER SYSTEM SET primary_slot_name = 'standby_1';"): _WHOLE_SERVER,
    (
        "docs/how-to/fail-over.md",
        "ALTER SYSTEM SET synchronized_standby_slots = 'standby_1';  -- see below",
    ): _WHOLE_SERVER,
    (
        "docs/how-to/fail-over.md",
        "SELECT slot_name, synced AND NOT temporary AND invalidation_reason IS NULL AS is_ready",
    ): "needs a standby, and PostgreSQL 17",
    (
        "docs/how-to/fail-over.md",
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE failover AND NOT synced;",
    ): _WHOLE_SERVER,
    ("docs/how-to/fastapi.md", '--8<-- "examples/orders_api/shop.py"'): _PART,
    ("docs/how-to/fastapi.md", '--8<-- "examples/orders_api/app.py"'): _PART,
    ("docs/how-to/fastapi.md", '--8<-- "examples/orders_api/audit.py"'): _PART,
    ("docs/how-to/operate.md", "ALTER SYSTEM SET wal_compression = 'lz4';"): _WHOLE_SERVER,
    (
        "docs/how-to/operate.md",
        "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (replica_1, replica_2)';",
    ): _WHOLE_SERVER,
    (
        "docs/how-to/pgbouncer.md",
        "ALTER ROLE app SET jit = off;  -- otherwise a call with a long filter can take seconds",
    ): _ROLES,
    ("docs/how-to/read-from-a-standby.md", "import pgdoc"): "needs a standby, see tests/integration/own_server",
    (
        "docs/how-to/read-from-a-standby.md",
        "-- on the primary and on the standby; restart both",
    ): _WHOLE_SERVER,
    ("docs/how-to/run-in-production.md", "ALTER SYSTEM SET wal_level = 'logical';"): _WHOLE_SERVER,
    ("docs/how-to/run-workers.md", "[Unit]"): _SUPERVISOR,
    ("docs/how-to/run-workers.md", "apiVersion: apps/v1"): _SUPERVISOR,
    ("docs/how-to/test-your-code.md", "# shop.py"): _SUITE,
    ("docs/how-to/test-your-code.md", "# test_orders.py"): _SUITE,
    ("docs/how-to/test-your-code.md", "# test_asyncio.py"): _SUITE,
    ("docs/how-to/test-your-code.md", "# test_anyio.py"): _SUITE,
    ("docs/how-to/test-your-code.md", "# test_events.py"): _SUITE,
    ("docs/how-to/test-your-code.md", "# test_worker.py"): _SUITE,
    ("docs/how-to/test-your-code.md", "# test_cache.py"): _SUITE,
    ("docs/how-to/test-your-code.md", "# test_resume.py"): _SUITE,
    ("docs/how-to/test-your-code.md", "# test_program.py"): _SUITE,
    ("docs/how-to/test-your-code.md", "# conftest.py"): _SUITE,
    ("docs/how-to/test-your-code.md", "# .github/workflows/tests.yaml"): _SUITE,
    ("docs/how-to/test-your-code.md", "# .github/workflows/tests.yaml, with a server"): _SUITE,
    ("docs/how-to/test-your-code.md", "# .gitlab-ci.yml"): _SUITE,
    ("docs/how-to/test-your-code.md", "ALTER ROLE tester CREATEDB REPLICATION;"): _ROLES,
    ("docs/how-to/test-your-code.md", "import unittest"): _SUITE,
    ("docs/reference/cli.md", "CREATE ROLE watcher LOGIN;"): _ROLES,
    ("docs/reference/roles.md", "GRANT SELECT ON pgdoc.dead_letters TO support;"): _ROLES,
    (
        "docs/reference/server.md",
        "ALTER SYSTEM SET wal_level = 'logical';  -- restart the server afterwards",
    ): _WHOLE_SERVER,
}


class Block(NamedTuple):
    """A fenced block of code.

    Attributes:
        page: the path of its page.
        line: where the code begins in the page.
    """

    page: str
    line: int
    language: str
    code: str

    @property
    def key(self) -> tuple[str, str]:
        """The block's key in `NOT_RUN`."""
        return self.page, self.code.partition("\n")[0]


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = (ROOT / page).read_text()
    return [
        Block(page, text.count("\n", 0, found.start()) + 2, found[1], found[2])
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def expected_output(code: str) -> str:
    """Return what the comments below the prints say."""
    lines: list[str] = []
    below = False
    for line in (line.strip() for line in code.splitlines()):
        if below and line.startswith("# "):
            lines.append(f"{line[2:]}\n")
        else:
            below = line.startswith("print(")
    return "".join(lines)
