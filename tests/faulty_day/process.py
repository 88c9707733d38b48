"""What the day's processes have in common: they end with the one that started them, and say where they hang."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
from pathlib import Path


def settle_in() -> None:
    """Log to standard error, dump all stacks at SIGUSR1, and end when standard input does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(threadName)s %(name)s %(message)s")
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock would be held when the interpreter ends
        pass
    os._exit(4)


def is_set(folder: str, flag: str) -> bool:
    """Whether everyone was told something."""
    return Path(folder, flag).exists()
