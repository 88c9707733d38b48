"""`Client`: a process that opens a consumer and runs commands, so that tests can kill or pause it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pgdoc
from pgdoc import PgdocError, Store
from tests.integration.own_server.words import wait_until

if TYPE_CHECKING:
    from pgdoc import ChangeEvent

ROOT = Path(__file__).parents[3]


class Client:
    """A context manager that opens the consumer `name` of `orders` in a separate process, without `auto_ack`.

    With `beside`, the process also has a stream, so that its hub can feed the consumer.
    """

    def __init__(self, dsn: str, name: str, *, beside: bool = False) -> None:
        command = [sys.executable, "-m", "tests.integration.own_server.client", dsn, name, *["beside"] * beside]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes)

    def __enter__(self) -> Self:
        assert self.answer() == "open"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def ask(self, what: str) -> str:
        """Run a command and return the answer: a document id, `done`, or the name of an error."""
        self.tell(what)
        return self.answer()

    def tell(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        assert self._process.stdout is not None
        return str(self._process.stdout.readline().strip())

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        with self._process as process:
            process.kill()


class Commands:
    """Runs the commands inside the process."""

    def __init__(self, dsn: str, name: str, beside: str = "") -> None:
        self._store = Store(dsn)
        self._beside = self._store["orders"].watch() if beside else None
        self._stream = self._store["orders"].watch(consumer=name, auto_ack=False)
        self._event: ChangeEvent | None = None
        self._block = ExitStack()

    def run(self, what: str) -> str:
        try:
            return str(getattr(self, what)() or "done")
        except PgdocError as exc:
            return type(exc).__name__

    def next(self) -> str | None:
        self._event = self._stream.next()
        return self._event.document_id if self._event else "nothing"

    def wait_until_shared(self) -> None:
        consumer = self._stream._consumer
        wait_until(lambda: consumer is not None and consumer._share.is_feeding)

    def ack(self) -> None:
        self._stream.ack(self._event)

    def begin(self) -> None:
        """Begin a transaction with an effect, and a checkpoint inside a savepoint."""
        tx = self._block.enter_context(self._store.transaction())
        tx["audit"].insert(pgdoc.new_id(), {})
        with tx.connection.transaction():
            self._checkpoint(tx)

    def commit(self) -> None:
        self._block.close()

    def checkpoint(self) -> None:
        with self._store.transaction() as tx:
            tx["audit"].insert(pgdoc.new_id(), {})
            self._checkpoint(tx)

    def _checkpoint(self, tx: pgdoc.Transaction) -> None:
        assert self._event is not None
        self._stream.checkpoint(self._event, tx)


def main() -> None:
    commands = Commands(*sys.argv[1:])
    sys.stdout.write("open\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(f"{commands.run(line.strip())}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
