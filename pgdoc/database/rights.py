"""What to say about a right that a role lacks: what the call needs, and the command that gives it. No I/O."""

from __future__ import annotations

import shlex
from typing import Final, NamedTuple

import psycopg

from pgdoc.database.quoting import identifier
from pgdoc.errors import CollectionNotFound

__all__ = [
    "CONSUMER_TABLES",
    "GROUP_TABLES",
    "MESSAGE_RIGHTS",
    "STREAMER_TABLES",
    "WORKER_TABLES",
    "Caller",
    "granting_command",
    "may_not_create",
]

CONSUMER_TABLES: Final = ("pgdoc.consumers", "pgdoc.consumer_progress", "pgdoc.owners", "pgdoc.unreadable")
"""The tables that roles with consumers write."""

_LETTERS: Final = "pgdoc.dead_letters"
WORKER_TABLES: Final = ("pgdoc.handlers", _LETTERS)
_POSITIONS: Final = "pgdoc.group_positions"
GROUP_TABLES: Final = (_POSITIONS, "pgdoc.handlers")
"""The tables in which groups of a log leave rows."""

STREAMER_TABLES: Final = (*CONSUMER_TABLES, *WORKER_TABLES, "pgdoc.relays", _POSITIONS)
"""The tables that `pgdoc grant --as streamer` covers: those, and the tables that roles with workers or relays write."""

MESSAGE_RIGHTS: Final = "EXECUTE ON FUNCTION pgdoc.publish(pg_catalog.text, pg_catalog.jsonb, pg_catalog.text)"
"""What a role needs to publish events of its own."""

_DEFAULT_SCHEMA: Final = "docs"


class Caller(NamedTuple):
    """The role whose call was refused, and the schema that the call was about.

    Its methods return the sentence about one kind of call.
    """

    role: str
    schema: str = _DEFAULT_SCHEMA

    def to_reach(self) -> str:
        """About a call of any kind that looks for a collection."""
        reader = granting_command(self.role, "reader", self.schema)
        return (
            f"Role {self._named} needs USAGE on its schema, and rights on its table: "
            f"{self._printed('writer', f'both, and {reader} that for a role that only reads')}"
        )

    def to_read(self) -> str:
        """About a call that reads documents."""
        return f"Role {self._named} needs SELECT on it, and USAGE on its schema: {self._printed('reader', 'both')}"

    def to_write(self) -> str:
        """About a call that writes documents."""
        return (
            f"Role {self._named} needs SELECT, INSERT, UPDATE and DELETE on it, and USAGE on its schema: "
            f"{self._printed('writer', 'all of it')}"
        )

    def to_publish(self) -> str:
        """About a call that publishes an event."""
        return (
            f"As the catalog's owner, run GRANT {MESSAGE_RIGHTS} TO {identifier(self.role)}; "
            f"{self._printed('writer', 'all that writers need')}"
        )

    def to_own(self, name: str) -> str:
        """About a call that only the owner of a collection's table may make."""
        return (
            "Only the owner of its table may do this: make the call as that role, or run ALTER TABLE "
            f"{identifier(self.schema, name)} OWNER TO {identifier(self.role)}"
        )

    def to_create(self) -> str:
        """About the creation of a collection."""
        return (
            f"Role {self._named} needs CREATE on the schema, and EXECUTE on pgdoc.enter_collection(regclass): "
            f"{self._printed('owner', 'all of it')}"
        )

    def to_read_table(self, schema: str, name: str) -> str:
        """About a watched table, whose snapshot is read, or whose schema is looked into."""
        return (
            f"Run GRANT USAGE ON SCHEMA {identifier(schema)} TO {identifier(self.role)} and, for a snapshot, GRANT "
            f"SELECT ON {identifier(schema, name)} TO {identifier(self.role)}; "
            f"{self._printed('streamer', 'all that streams need')}"
        )

    def to_have_consumers(self, rights: str = "SELECT, INSERT, UPDATE, DELETE") -> str:
        """About a call on durable consumers, which needs these rights; the end of a message."""
        return (
            f"as the catalog's owner, run GRANT {rights} ON {', '.join(CONSUMER_TABLES)} TO {identifier(self.role)}; "
            f"{self._printed('streamer', 'all that consumers need')}"
        )

    def to_have_workers(self) -> str:
        """About what a worker stores for its handlers."""
        return (
            f"As the catalog's owner, run GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(WORKER_TABLES)} TO "
            f"{identifier(self.role)}; {self._printed('streamer', 'all that workers need')}"
        )

    def to_have_letters(self, rights: str) -> str:
        """About a call on dead letters, which needs these rights."""
        return (
            f"As the catalog's owner, run GRANT {rights} ON {_LETTERS} TO {identifier(self.role)}; "
            f"{self._printed('streamer', 'all that workers need')}"
        )

    def to_have_groups(self, rights: str) -> str:
        """About a call on the rows of a group of a log, which needs these rights."""
        return (
            f"As the catalog's owner, run GRANT {rights} ON {', '.join(GROUP_TABLES)} TO {identifier(self.role)}; "
            f"{self._printed('streamer', 'all that groups need')}"
        )

    def to_wait(self) -> str:
        """About a call that waits for a durable consumer."""
        return (
            "As the catalog's owner, run GRANT SELECT ON pgdoc.consumers, pgdoc.consumer_progress TO "
            f"{identifier(self.role)}"
        )

    def to_set_history(self) -> str:
        """About a change of a setting of the catalog."""
        return f"As the catalog's owner, run GRANT UPDATE ON pgdoc.settings TO {identifier(self.role)}"

    def to_replicate(self) -> str:
        """About a stream; the end of a message."""
        return (
            f"run ALTER ROLE {identifier(self.role)} REPLICATION as a superuser; "
            f"{self._printed('streamer', 'all that streams need')}"
        )

    @property
    def _named(self) -> str:
        return f'"{self.role}"'

    def _printed(self, purpose: str, what: str) -> str:
        return f"{granting_command(self.role, purpose, self.schema)} prints the SQL that gives {what}"


def may_not_create(exc: BaseException | None, subject: str, caller: Caller) -> CollectionNotFound | None:
    """Return the error for a missing collection that the role may not create; `None` if `exc` has another reason."""
    if not isinstance(exc, psycopg.errors.InsufficientPrivilege):
        return None
    return CollectionNotFound(
        f'{subject} does not exist, and role "{caller.role}" may not create it ({exc.diag.message_primary}): check the '
        f"name, create it as another role, or give this one the right: "
        f"{granting_command(caller.role, 'owner', caller.schema)} prints the SQL"
    )


def granting_command(role: str, purpose: str, schema: str = _DEFAULT_SCHEMA) -> str:
    """Return the command that prints what a role needs for a purpose, for a message."""
    option = "" if schema == _DEFAULT_SCHEMA else f" --schema {schema}"
    return f"`pgdoc grant {shlex.quote(role)} --as {purpose}{option}`"
