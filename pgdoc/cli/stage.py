"""The connections and counters that the scenes of `pgdoc demo` share."""

from __future__ import annotations

import inspect
import textwrap
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

import pgdoc
from pgdoc.cli.render import render_event
from pgdoc.cli.replica import Replica
from pgdoc.cli.watcher import Watcher
from pgdoc.database.conninfo import PlainConnection
from pgdoc.database.session_settings import with_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from typing import Self

    from rich.console import Console

    from pgdoc.cli.watcher import ReceivedEvent

__all__ = ["Stage", "typed_source"]

_SHOWN: Final = 3
_KINDS: Final = {"INSERT": "insert", "COPY": "insert", "UPDATE": "update", "DELETE": "delete"}


class Stage:
    """A store for the Python writer, a connection for the SQL writer, the watcher process, and counters.

    Attributes:
        replica: the collections, rebuilt from the events.
        expected: events of each kind that the writers caused.
        arrived: events that arrived, one counter per watcher process.
        delays: from the return of the commit to the event, for the small transactions of scene 4.
    """

    COLLECTIONS: Final = ("cities", "countries")

    def __init__(self, console: Console, conninfo: str, schema: str, plugin: str) -> None:
        self.console = console
        self._store_arguments = conninfo, schema, plugin
        self._resources = ExitStack()
        self.replica = Replica()
        self.expected: Counter[str] = Counter()
        self.arrived: list[Counter[str]] = []
        self.delays: list[timedelta] = []

    def __enter__(self) -> Self:
        conninfo, schema, plugin = self._store_arguments
        with ExitStack() as opening:
            self.store = opening.enter_context(pgdoc.Store(conninfo, schema=schema, plugin=plugin))
            # At startup: a SET through a pooler would reach its other clients. A pooler refuses this.
            at_home = with_settings(conninfo, {"search_path": f'"{schema}"'})
            connection = PlainConnection.connect(at_home, autocommit=True, prepare_threshold=None)
            self.connection = opening.enter_context(connection)
            self.store.migrate()
            for name in self.COLLECTIONS:
                self.store.create_collection(name)
            self._resources = opening.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._resources.close()

    def open_watcher(self) -> Watcher:
        """Start a watcher process that continues after the last event that arrived, if any."""
        self.watcher = self._resources.enter_context(
            Watcher(*self._store_arguments, self.COLLECTIONS, self.replica.token)
        )
        self.arrived.append(Counter())
        return self.watcher

    def take(self) -> ReceivedEvent:
        """Wait for the next event, and record it."""
        return self.record(self.watcher.next())

    def record(self, received: ReceivedEvent) -> ReceivedEvent:
        """Apply an event to the replica, and count it."""
        self.replica.take(received.event)
        self.arrived[-1][str(received.event.event_type)] += 1
        return received

    def show(self, count: int) -> int | None:
        """Wait for `count` events, print the first few, and return the last one's transaction id."""
        transaction_id = None
        for number in range(count):
            event, received = self.take()
            transaction_id = event.transaction_id
            if number < _SHOWN:
                self.console.print(render_event(event, received), soft_wrap=True)
        if count > _SHOWN:
            self.say(f"         … and {count - _SHOWN:,} more", style="dim")
        return transaction_id

    def title(self, text: str) -> None:
        """Print the title of a scene."""
        self.console.print()
        self.console.rule(Text(text, style="bold"), align="left", style="dim")

    def say(self, text: str, style: str = "") -> None:
        """Print a line of the story."""
        self.console.print(Text(text, style=style), soft_wrap=True)

    def python(self, step: Callable[[pgdoc.Store], Any], **caused: int) -> None:
        """Print the source of a step, run it, and print its events, which must be those `caused`."""
        self.say(typed_source(step), style="dim")
        step(self.store)
        self.expect(Counter(caused))

    def sql(self, *statements: str) -> None:
        """Execute statements, and print their events."""
        self.expect(self.execute(*statements))

    def execute(self, *statements: str) -> Counter[str]:
        """Print statements, run them as one transaction, and count the changes that they made."""
        self.say("\n".join(f"sql> {statement}" for statement in statements), style="dim")
        changes: Counter[str] = Counter()
        with self.connection.transaction():
            for statement in statements:
                cursor = self.connection.execute(statement)
                changes[_KINDS.get((cursor.statusmessage or "").split(" ")[0], "")] += cursor.rowcount
        del changes[""]
        return changes

    def expect(self, caused: Counter[str]) -> None:
        """Count changes as expected, and print their events."""
        self.expected += caused
        self.show(caused.total())


def typed_source(step: Callable[..., Any]) -> str:
    """Return the body of a step as typed in the interpreter."""
    lines = inspect.getsource(step).splitlines()[1:]
    first, *rest = textwrap.dedent("\n".join(lines)).splitlines()
    return "\n".join([f">>> {first}", *(f"... {line}" if line.startswith(" ") else f">>> {line}" for line in rest)])
