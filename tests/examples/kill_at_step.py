"""Run a program of docs/examples and kill it when it reaches STEP for the COUNT-th time.

    python -m tests.examples.kill_at_step PROGRAM STEP COUNT ...

The steps are those of every loop with an effect in the database: `before` the transaction, inside it before the
`checkpoint`, inside it before the `commit`, and `after` the commit.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys
from typing import TYPE_CHECKING, Any

import pgdoc
from tests.examples.programs import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = ("before", "checkpoint", "commit", "after")


class Killer:
    """Kills this process when it reaches a step for the count-th time."""

    def __init__(self, step: str, count: int) -> None:
        self.step, self.left = step, count

    def reach(self, step: str) -> None:
        self.left -= step == self.step
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def install(killer: Killer) -> None:
    """Patch pgdoc so that each step reports to the killer."""
    transaction, checkpoint = pgdoc.Store.transaction, pgdoc.ChangeStream.checkpoint

    @contextlib.contextmanager
    def watched_transaction(store: pgdoc.Store, *arguments: Any) -> Iterator[pgdoc.Transaction]:
        killer.reach("before")
        with transaction(store, *arguments) as tx:
            yield tx
            killer.reach("commit")
        killer.reach("after")

    def watched_checkpoint(stream: pgdoc.ChangeStream, event: pgdoc.ChangeEvent, tx: pgdoc.Transaction) -> None:
        killer.reach("checkpoint")
        checkpoint(stream, event, tx)

    pgdoc.Store.transaction = watched_transaction  # type: ignore[method-assign,assignment]
    pgdoc.ChangeStream.checkpoint = watched_checkpoint  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    program, step, count, *arguments = sys.argv[1:]
    install(Killer(step, int(count)))
    sys.argv = [program, *arguments]
    runpy.run_path(str(EXAMPLES / program), run_name="__main__")
