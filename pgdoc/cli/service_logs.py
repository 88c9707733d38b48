"""The log of `pgdoc worker` and `pgdoc relay`, on stderr, and the options that both have; the log of other commands."""

from __future__ import annotations

import contextlib
import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pgdoc.cli.render import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LogFormat", "LogLevel", "log_to_stderr", "logging_to_stderr"]

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


class _OneLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (of the library)
        return f"pgdoc: {printable(' '.join(record.getMessage().split()))}"


@contextlib.contextmanager
def logging_to_stderr(name: str) -> Iterator[None]:
    """Print what one logger says as messages of the command."""
    logger, handler = logging.getLogger(name), logging.StreamHandler()
    handler.setFormatter(_OneLine())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


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


def _read_level(text: str) -> str:
    return _read_choice(text.lower(), LEVELS)


def _read_format(text: str) -> str:
    return _read_choice(text, LOG_FORMATS)


def _read_choice(text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(choices)}")
    return text


LogLevel = Annotated[
    Any,
    typer.Option(metavar="|".join(LEVELS), parser=_read_level, help="Log this and what is worse; by default, info."),
]
LogFormat = Annotated[
    Any, typer.Option(metavar="|".join(LOG_FORMATS), parser=_read_format, help="How to log; by default, text.")
]
