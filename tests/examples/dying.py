"""Run a program of docs/examples, and kill it when it reaches a step for the COUNT-th time.

    python -m tests.examples.dying PROGRAM STEP COUNT ...

The steps are those of a loop, or of a worker's handler, with an effect in the database: `before` its transaction,
inside it before the `checkpoint`, inside it before the `commit`, and `after` the commit.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys
from typing import TYPE_CHECKING, Any

import pgdoc
from pgdoc._sync.lane_rows import LaneRows
from tests.examples.programs import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = ("before", "checkpoint", "commit", "after")


class Death:
    """Kills the process when it reaches a step for the count-th time."""

    def __init__(self, step: str, count: int) -> None:
        self.step, self.left = step, count

    def passes(self, step: str) -> None:
        self.left -= step == self.step
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def await_death(death: Death) -> None:
    """Call `death.passes` at each step. Batches have two events at most, so that there are many steps."""
    transaction, checkpoint = pgdoc.Store.transaction, pgdoc.ChangeStream.checkpoint
    batches, save, on = pgdoc.ChangeStream.batches, LaneRows.save, pgdoc.Worker.on

    @contextlib.contextmanager
    def dying_transaction(store: pgdoc.Store, *arguments: Any) -> Iterator[pgdoc.Transaction]:
        death.passes("before")
        with transaction(store, *arguments) as tx:
            yield tx
            death.passes("commit")
        death.passes("after")

    def dying_checkpoint(stream: pgdoc.ChangeStream, event: pgdoc.ChangeEvent, tx: pgdoc.Transaction) -> None:
        death.passes("checkpoint")
        checkpoint(stream, event, tx)

    def dying_save(rows: LaneRows, *arguments: Any) -> None:
        death.passes("checkpoint")
        save(rows, *arguments)

    def on_small_batches(worker: pgdoc.Worker, *names: str, **options: Any) -> Any:
        return on(worker, *names, **options, batch=2)

    pgdoc.Store.transaction = dying_transaction  # type: ignore[method-assign,assignment]
    pgdoc.ChangeStream.checkpoint = dying_checkpoint  # type: ignore[method-assign,assignment]
    pgdoc.ChangeStream.batches = lambda stream, **_: batches(stream, 2)  # type: ignore[method-assign]
    LaneRows.save = dying_save  # type: ignore[method-assign,assignment]
    pgdoc.Worker.on = on_small_batches  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    program, step, count, *arguments = sys.argv[1:]
    await_death(Death(step, int(count)))
    sys.argv = [program, *arguments]
    runpy.run_path(str(EXAMPLES / program), run_name="__main__")
