from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from hypothesis import settings

if TYPE_CHECKING:
    import pytest

pytest_plugins = [
    "tests.fixtures.fix_async",
    "tests.fixtures.fix_leftovers",
    "tests.fixtures.fix_server",
    "tests.fixtures.fix_plugin",
    "tests.fixtures.fix_primary",
    "tests.fixtures.fix_pgbouncer",
    "tests.fixtures.fix_clusters",
    "tests.fixtures.fix_schema",
    "tests.fixtures.fix_streams",
    "tests.fixtures.fix_engines",
]

# The slowest files start first, so that no worker is left with one at the end (`make test` runs several files at a
# time). Those that mostly wait are among them: others use the CPU meanwhile.
LONGEST = [
    "test_faulty_day.py",
    "test_quick.py",
    "test_upgrade.py",
    "test_synchronous_standby.py",
    "test_replica_law.py",
    "test_ownership.py",
    "test_fanout.py",
    "test_consumer_and_server.py",
    "test_authority.py",
    "test_user_suites.py",
    "test_ends.py",
    "test_search_path.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So starts what a script runs in the background, and the commands that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("pgdoc", deadline=None, print_blob=True)  # no deadline: a slow machine is not a failure
settings.load_profile("pgdoc")
