"""What a log is, as its relay writes it beside the entries: a second relay must say the same, and readers need it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Self

from pgdoc.errors import InvalidResumeToken, LogRefused
from pgdoc.model.short_repr import short_repr
from pgdoc.model.tokens import ResumeToken
from pgdoc.relay.partitions import MOST_PARTITIONS

__all__ = ["LogConfig"]

VERSION: Final = 1
_KEY: Final = "pgdoc"
_SAME: Final = {
    "system_id": "is of another PostgreSQL cluster",
    "database_oid": "is of another database",
    "selection": "has other collections, tables, topics or another filter",
    "format": "has another format",
    "partitions": "has another number of partitions",
    "limit": "cuts large events at another size",
    "layout": "has other subjects or keys",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """What decides which entries a log has, and how they look.

    Attributes:
        system_id, database_oid: of the database whose events these are.
        selection: a digest of the collections, tables, topics and filter.
        format: of the bodies.
        partitions: how many partitions documents are divided into.
        limit: the most bytes of a message's body; a larger event is cut into parts.
        layout: how the engine names subjects or keys.
        begun_at: the token after which the log begins, as text. It is not compared.
        consumer: the name of the relay's consumer.
        has_snapshot: whether the log began with a snapshot. Two consumers read two different ones, so that only the
            one that began the log may write it; a log without can have relays of several consumers.
    """

    system_id: int
    database_oid: int
    selection: str
    format: str
    partitions: int
    limit: int = 0
    layout: str = ""
    begun_at: str = ""
    consumer: str = ""
    has_snapshot: bool = False
    version: int = VERSION

    @property
    def text(self) -> str:
        """What is written beside the log."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)

    @property
    def source(self) -> str:
        """Of which database the events are."""
        return f"database {self.database_oid} in cluster {self.system_id}"

    @classmethod
    def parse(cls, text: str | None, log: str) -> Self:
        """Read what `text` returned.

        Raises:
            LogRefused: it is not that of a relay, or of a newer one.
        """
        if not text:
            raise LogRefused(f"{log} was not made by pgdoc relay: name another, or delete it", reason="foreign")
        try:
            values = json.loads(text)
            if isinstance(values, dict) and values.get("version", 0) > VERSION:
                raise LogRefused(f"{log} was made by a newer pgdoc: update pgdoc", reason="version")
            found = cls(**values)
            found._check_types()
        except (ValueError, TypeError, RecursionError) as exc:
            raise LogRefused(f"what a relay wrote about {log} is damaged: {exc}", reason="foreign") from exc
        return found

    def _check_types(self) -> None:
        """Refuse values that no relay writes: anybody with rights in the engine may have written them.

        Raises:
            ValueError: there is one.
        """
        for each in fields(self):
            value = getattr(self, each.name)
            if type(value).__name__ != each.type:
                raise ValueError(f"{each.name} is {short_repr(value)}")
        if not 1 <= self.partitions <= MOST_PARTITIONS:
            raise ValueError(f"partitions is {self.partitions}")
        if self.limit <= 0:
            raise ValueError(f"limit is {self.limit}")
        if self.begun_at:
            try:
                ResumeToken.parse(self.begun_at)
            except InvalidResumeToken as exc:
                raise ValueError(f"begun_at is {short_repr(self.begun_at)}") from exc

    def check(self, found: LogConfig, log: str) -> None:
        """Refuse a log that a relay with another configuration has made.

        Raises:
            LogRefused: it differs; the message says in what.
        """
        for name, finding in _SAME.items():
            if getattr(self, name) != getattr(found, name):
                is_other = name in ("system_id", "database_oid")
                cure = "another log" if is_other else "the options it began with, or another log"
                raise LogRefused(
                    f"{log} {finding} ({name}: {getattr(found, name)} there, {getattr(self, name)} here): give the "
                    f"relay {cure}",
                    reason="other_relay" if is_other else "config",
                )

        if found.has_snapshot and found.consumer != self.consumer:
            raise LogRefused(
                f'{log} began with a snapshot of consumer "{found.consumer}": relay with that consumer, since another '
                "one reads another snapshot",
                reason="other_relay",
            )

    def of_engine(self, *, limit: int, layout: str) -> LogConfig:
        """Return it with what the engine decides."""
        return replace(self, limit=limit, layout=layout)


def selection_digest(**selection: Any) -> str:
    """Return a digest of what a relay's events are selected by."""
    text = json.dumps(selection, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
