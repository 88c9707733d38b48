"""The log of `pgdoc worker`, on stderr."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Final

__all__ = ["LEVELS", "LOG_FORMATS", "log_to_stderr"]

LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("text", "json")

_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _Json(logging.Formatter):
    """One line of JSON for each record."""

    def format(self, record: logging.LogRecord) -> str:
        found = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found)


def log_to_stderr(level: str | None, log_format: str | None) -> None:
    """Log what has this level or a higher one.

    Logging that the worker's module has configured stays as it is, unless the command line asks for something.
    """
    root = logging.getLogger()
    if root.handlers and level is None and log_format is None:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if log_format == "json" else logging.Formatter(_TEXT))
    for former in root.handlers.copy():
        if type(former) is logging.StreamHandler:  # the module's own, which would print everything twice
            root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel((level or "info").upper())
