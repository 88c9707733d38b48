"""Shared by all processes of the test: they end with their parent, and dump their stacks on request."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
from pathlib import Path


def set_up_process() -> None:
    """Log to standard error, dump all stacks on SIGUSR1, and exit when standard input is closed."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(threadName)s %(name)s %(message)s")
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin: this thread would hold its lock at interpreter exit
        pass
    os._exit(4)


def is_set(folder: str, flag: str) -> bool:
    """Return whether the parent has set a flag, which is a file in the folder."""
    return Path(folder, flag).exists()
