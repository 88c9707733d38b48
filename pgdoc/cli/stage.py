"""What the scenes of `pgdoc demo` share."""

from __future__ import annotations

import inspect
import textwrap
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import psycopg
from rich.text import Text

import pgdoc
from pgdoc.cli.render import render
from pgdoc.cli.replica import Replica
from pgdoc.cli.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from typing import Self

    from rich.console import Console

    from pgdoc.cli.watcher import Delivery

__all__ = ["Stage", "source"]

_SHOWN: Final = 3
_KINDS: Final = {"INSERT": "insert", "COPY": "insert", "UPDATE": "update", "DELETE": "delete"}


class Stage:
    """What the scenes play on: a store, a connection for plain SQL, the watcher, and the books about its events.

    Attributes:
        store: where the Python writer writes.
        connection: where the SQL writer writes.
        replica: the collections, rebuilt from the events.
        expected: how many events of each kind were caused.
        arrived: how many came, one counter for each life of the watcher.
        delays: from the commit's return to the event, for the small transactions of scene 4.
    """

    COLLECTIONS: Final = ("cities", "countries")

    def __init__(self, console: Console, conninfo: str, schema: str, plugin: str) -> None:
        self.console = console
        self._place = conninfo, schema, plugin
        self._resources = ExitStack()
        self.replica = Replica()
        self.expected: Counter[str] = Counter()
        self.arrived: list[Counter[str]] = []
        self.delays: list[timedelta] = []

    def __enter__(self) -> Self:
        conninfo, schema, plugin = self._place
        with ExitStack() as opening:
            self.store = opening.enter_context(pgdoc.Store(conninfo, schema=schema, plugin=plugin))
            self.connection = opening.enter_context(psycopg.connect(conninfo, autocommit=True))
            self.store.migrate()
            for name in self.COLLECTIONS:
                self.store.create_collection(name)
            self.connection.execute("SELECT set_config('search_path', %s, false)", (schema,))
            self._resources = opening.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._resources.close()

    def open_watcher(self) -> Watcher:
        """Start a watcher process, after the last event that arrived, if any did."""
        self.watcher = self._resources.enter_context(Watcher(*self._place, self.COLLECTIONS, self.replica.token))
        self.arrived.append(Counter())
        return self.watcher

    def take(self) -> Delivery:
        """Wait for the next event and enter it in the books."""
        return self.note(self.watcher.next())

    def note(self, delivery: Delivery) -> Delivery:
        """Enter an event in the books."""
        self.replica.take(delivery.event)
        self.arrived[-1][str(delivery.event.event_type)] += 1
        return delivery

    def show(self, count: int) -> int | None:
        """Take so many events, print the first few, and tell the transaction of the last one."""
        transaction_id = None
        for number in range(count):
            event, received = self.take()
            transaction_id = event.transaction_id
            if number < _SHOWN:
                self.console.print(render(event, received), soft_wrap=True)
        if count > _SHOWN:
            self.say(f"         … and {count - _SHOWN:,} more", style="dim")
        return transaction_id

    def title(self, text: str) -> None:
        """Begin a scene."""
        self.console.print()
        self.console.rule(Text(text, style="bold"), align="left", style="dim")

    def say(self, text: str, style: str = "") -> None:
        """Print a line of the story."""
        self.console.print(Text(text, style=style), soft_wrap=True)

    def python(self, step: Callable[[pgdoc.Store], Any], **caused: int) -> None:
        """Show a step of the Python writer, run it, and show the events that it must cause."""
        self.say(source(step), style="dim")
        step(self.store)
        self.expect(Counter(caused))

    def sql(self, *statements: str) -> None:
        """Show statements of the SQL writer, run them as one transaction, and show their events."""
        self.expect(self.execute(*statements))

    def execute(self, *statements: str) -> Counter[str]:
        """Show statements, run them as one transaction, and count the changes that they made."""
        self.say("\n".join(f"sql> {statement}" for statement in statements), style="dim")
        changes: Counter[str] = Counter()
        with self.connection.transaction():
            for statement in statements:
                cursor = self.connection.execute(statement)
                changes[_KINDS.get((cursor.statusmessage or "").split(" ")[0], "")] += cursor.rowcount
        del changes[""]
        return changes

    def expect(self, caused: Counter[str]) -> None:
        """Enter changes in the books, and show their events."""
        self.expected += caused
        self.show(caused.total())


def source(step: Callable[..., Any]) -> str:
    """Give the lines of a step as they would be typed."""
    lines = inspect.getsource(step).splitlines()[1:]
    first, *rest = textwrap.dedent("\n".join(lines)).splitlines()
    return "\n".join([f">>> {first}", *(f"... {line}" if line.startswith(" ") else f">>> {line}" for line in rest)])
