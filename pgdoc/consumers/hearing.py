"""What comes to the session of an ownership by itself: its end, and the calls of other sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgdoc.consumers.server_errors import mapped
from pgdoc.model.names import call_channel
from pgdoc.replication.connection import has_word, quote_identifier

if TYPE_CHECKING:
    import psycopg

__all__ = ["Hearing"]


class Hearing:
    """The part of `Ownership` that hears; used by the same thread."""

    name: str
    _connection: psycopg.Connection[Any]
    is_called = False  # since the last `take_call`; a notice can come with the result of any statement
    _listens = False

    @property
    def socket(self) -> int:
        """The socket of its session."""
        with mapped(self._connection, self.name):
            return self._connection.pgconn.socket

    @property
    def has_word(self) -> bool:
        """Whether its session has got something since the last statement; most often, that it has ended."""
        with mapped(self._connection, self.name):
            return self.is_called or has_word(self._connection)

    def listen(self) -> None:
        """Hear calls from now on; see `pgdoc.consumers.calls`."""
        if not self._listens:
            self._connection.add_notify_handler(self._note_call)  # without one, psycopg keeps all of them
            self._listens = True
        with mapped(self._connection, self.name):
            self._connection.execute(f"LISTEN {quote_identifier(call_channel(self.name))}".encode())

    def _note_call(self, _notice: object) -> None:
        self.is_called = True

    def take_call(self) -> bool:
        """Return whether a call had come when the last statement was executed, and forget it."""
        with mapped(self._connection, self.name):
            while self._connection.pgconn.notifies() is not None:
                self.is_called = True
        called, self.is_called = self.is_called, False
        return called
