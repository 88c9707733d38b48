"""What tests of a log's engine share: made-up messages, and what the log must have of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from pgdoc.model.positions import Lsn
from pgdoc.relay.config import LogConfig
from pgdoc.relay.messages import LogMessage
from pgdoc.relay.partitions import partition_of
from tests.engines import NatsServer, entries

if TYPE_CHECKING:
    from pgdoc.relay.messages import Window
    from tests.redis_server import RedisServer

PARTITIONS = 4
CONFIG = LogConfig(
    system_id=7, database_oid=1, selection="all", format="pgdoc", partitions=PARTITIONS, begun_at="0/1.7.1"
)


def fresh_log() -> str:
    """Return the name of a log that no other test uses."""
    return f"L{uuid4().hex[:12]}"


def messages(first: int, last: int, *, size: int = 20) -> Window:
    """Return messages `first` to `last`; those of the same number are always the same."""
    return [_message(number, size) for number in range(first, last + 1)]


def _message(number: int, size: int) -> LogMessage:
    document_id = None if number % 10 == 0 else f"o-{number % 7}"
    token = f"{Lsn(number * 16)}.7.1"
    body = f"event {number}".encode().ljust(size, b".")
    return LogMessage(partition_of(document_id, PARTITIONS), "orders", document_id, "insert", token, body)


def check_exact(found: list[tuple[int, dict[str, str], bytes]], count: int, *, first: int = 1, size: int = 20) -> None:
    """Check that a log has exactly the messages `first` to `count`."""
    wanted = messages(first, count, size=size)
    assert [sequence for sequence, _, _ in found] == list(range(first, count + 1))
    assert [body for _, _, body in found] == [message.body for message in wanted]


class Engine(NamedTuple):
    """A server of one of the engines that write exactly once, in the same terms for each."""

    server: NatsServer | RedisServer

    def url(self, log: str, port: int | None = None) -> str:
        """Return the URL of a log, at a port in front of the server."""
        return f"{self.server.url.rpartition(':')[0]}:{port or self.server.port}/{log}"

    def entries(self, log: str) -> list[tuple[int, str, bytes]]:
        """Return the entries of a log: sequence, token and body."""
        if isinstance(self.server, NatsServer):
            found, token = entries(self.server.url, log), "Pgdoc-Token"
        else:
            found, token = self.server.entries(log), "token"
        return [(sequence, fields[token], body) for sequence, fields, body in found]
