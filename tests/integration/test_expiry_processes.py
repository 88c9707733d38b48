"""The thread that deletes expired documents leaves nothing behind when its process ends or forks."""

from __future__ import annotations

import subprocess
import sys

OPEN = """
import os, sys, threading
from datetime import timedelta
import pgdoc
from pgdoc.database import expiry

def threads():
    return [thread.name for thread in threading.enumerate() if thread.name == "pgdoc-expiry"]

store = pgdoc.Store(sys.argv[1])
store["jobs"].create_index("at", expire_after=timedelta(hours=1))
assert threads()
"""
ENDS = OPEN + "print('end')"
IS_COLLECTED = """
import gc, time
thread = next(thread for thread in threading.enumerate() if thread.name == "pgdoc-expiry")
del store
gc.collect()
thread.join(20)
print('alive' if thread.is_alive() else 'end')
"""
FORKS = """
import warnings
warnings.simplefilter("ignore")
child = os.fork()
if child == 0:
    assert not threads()
    store.close()
    with pgdoc.Store(sys.argv[1]) as own:
        own["jobs"].insert("a", {})
        assert threads()
    assert not threads()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert threads()
store.close()
assert not threads()
print('end')
"""


def run(program: str, dsn: str) -> None:
    done = subprocess.run([sys.executable, "-c", program, dsn], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_a_process_ends_without_closing_its_store(dsn: str) -> None:
    run(ENDS, dsn)


def test_the_thread_of_a_store_that_is_collected_ends(dsn: str) -> None:
    run(OPEN + IS_COLLECTED, dsn)


def test_a_forked_child_has_no_thread_of_its_parent(dsn: str) -> None:
    run(OPEN + FORKS, dsn)
