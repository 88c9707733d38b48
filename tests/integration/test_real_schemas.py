"""Tables of schemas that other projects wrote can be watched, each one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from tests.real_schemas import examine, make_django
make_django(sys.argv[1])
print(*(each.name for each in examine(sys.argv[1]) if each.refusal is None))
"""


def test_every_table_of_djangos_applications_is_added_written_to_and_removed(dsn: str) -> None:
    """In a process of its own: Django's settings are global."""
    command = [sys.executable, "-c", PROGRAM, dsn]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tables = set(done.stdout.split())
    assert len(tables) == 14
    assert {"public.auth_user", "public.django_session", "public.auth_user_groups"} <= tables
