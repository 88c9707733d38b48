"""Cuts entries out of what a NATS server sends, without nats-py's objects: its headers alone take 40 us a message."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pgdoc.relay.extras import needing_extra
from pgdoc.relay.log import LogEntry
from pgdoc.relay.messages import part_of_text

with needing_extra("nats"):
    from nats.protocol.parser import AWAITING_CONTROL_LINE, CRLF_SIZE, Parser

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RawParser"]

_TOKEN: Final = b"\r\nPgdoc-Token: "
_PART: Final = b"\r\nPgdoc-Part: "
# A reply subject has the consumer, the sequences of the stream and of the consumer, a time, and how many are pending.
_REPLY: Final = rb"\$JS\.ACK\.(?:[^. ]+\.[^. ]+\.)?[^. ]+\.(?P<consumer>[^. ]+)\.\d+\.(\d+)\.(\d+)\.\d+\.\d+(?:\.\S+)?"
_OF_REPLY: Final = re.compile(_REPLY)


class RawParser(Parser):
    """nats-py's parser, with a short way for the entries that one subscription gets.

    Replaces the parser of a client that is connected.

    Args:
        take: called with each entry and its number in the consumer, in their order.
        note: called with each status that the server sends: its number and the subject that it came to.
    """

    def __init__(self, client: Any, take: Callable[[LogEntry, int], None], note: Callable[[str, str], None]) -> None:
        super().__init__(client)
        self._take, self._note = take, note
        self._sid = -1
        self._consumer = b""
        self._entry: re.Pattern[bytes] | None = None
        self._process = client._process_msg  # noqa: SLF001
        client._process_msg = self._process_any  # noqa: SLF001 (what does not go the short way)
        client._ps = self  # noqa: SLF001

    def follow(self, sid: int, consumer: str) -> None:
        """Take the entries of this consumer, which come to this subscription."""
        self._sid, self._consumer = sid, consumer.encode()
        reply = _REPLY.replace(rb"(?P<consumer>[^. ]+)", re.escape(self._consumer))
        self._entry = re.compile(rb"HMSG \S+ %d %b (\d+) (\d+)\r\n" % (sid, reply))

    async def parse(self, data: bytes = b"") -> None:
        """Parse what has arrived."""
        if self.state != AWAITING_CONTROL_LINE:  # only the rest of one message goes the long way
            lacking = max(0, self.needed + CRLF_SIZE - len(self.buf))
            await super().parse(data[:lacking])
            data = data[lacking:]
            if self.state != AWAITING_CONTROL_LINE:
                return
        self.buf.extend(data)
        if self._entry is None or not self._cut(self._entry):
            await super().parse(b"")

    def _cut(self, pattern: re.Pattern[bytes]) -> bool:
        """Take the entries that the buffer begins with; return whether what is left is the beginning of another."""
        data = bytes(self.buf)
        at, size, take = 0, len(data), self._take
        is_part = False
        while found := pattern.match(data, at):
            sequence, number, head_size, total = map(int, found.groups())
            begin = found.end()
            end = begin + total
            if end + CRLF_SIZE > size:
                is_part = True
                break
            body_at = begin + head_size
            take(_entry(sequence, data[begin:body_at], data[body_at:end]), number)
            at = end + CRLF_SIZE
        del self.buf[:at]
        return is_part or at == size

    async def _process_any(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if sid != self._sid:
            await self._process(sid, subject, reply, data, headers)
            return
        found = _OF_REPLY.fullmatch(reply)
        if found is None:
            self._note((headers or b"")[9:12].decode(errors="replace"), subject.decode(errors="replace"))
        elif found["consumer"] == self._consumer:
            self._take(_entry(int(found[2]), headers or b"", data), int(found[3]))


def _entry(sequence: int, head: bytes, body: bytes) -> LogEntry:
    """Return the entry of a message; one that no relay wrote has an empty token."""
    at = head.find(_TOKEN)
    token = "" if at < 0 else head[at + len(_TOKEN) : head.find(b"\r\n", at + len(_TOKEN))].decode(errors="replace")
    at = head.find(_PART)
    if at < 0:
        return LogEntry(sequence, token, body, None)
    part = head[at + len(_PART) : head.find(b"\r\n", at + len(_PART))].decode(errors="replace")
    try:
        return LogEntry(sequence, token, body, part_of_text(part))
    except ValueError:  # it would end nats-py's reading, and say nothing
        return LogEntry(sequence, "", body, None)
