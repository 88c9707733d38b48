"""The statement that publishes an event of the application's own, and the errors of the server about it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pgdoc.database.errors import map_error
from pgdoc.errors import DocumentTooLarge, InvalidDocument
from pgdoc.model.ids import check_id
from pgdoc.model.json_codec import encode_value
from pgdoc.model.sizes import DEFAULT_MAX_SIZE
from pgdoc.model.table_names import titled
from pgdoc.model.topics import check_topic, topic_name
from pgdoc.sql import statement

if TYPE_CHECKING:
    import psycopg

    from pgdoc.database.rights import Caller
    from pgdoc.errors import PgdocError
    from pgdoc.model.ids import DocumentId
    from pgdoc.model.values import Encoder

__all__ = ["message_error", "message_params", "message_statement"]

_TOO_LARGE: Final = "pgdoc_payload"
"""The check of the table, see `0013_messages.sql`."""


@lru_cache
def message_statement(*, with_metadata: bool) -> bytes:
    """Return the statement; with `with_metadata`, the writer's metadata is its first parameter."""
    metadata = statement("documents", "with_metadata") if with_metadata else ""
    block = statement("documents", "publish")
    source = 'FROM "pgdoc metadata"' if with_metadata else ""
    return block.replace("{with_metadata}", metadata).replace("{from_metadata}", source).encode()


def message_params(topic: Any, payload: Any, key: DocumentId | None, encoder: Encoder | None) -> list[Any]:
    """Check what a user gave, and return the parameters of the statement.

    Raises:
        InvalidName: the topic is not valid.
        InvalidDocument: the key is not valid, or JSON can't represent the payload.
        DocumentTooLarge: the payload is too large.
    """
    name = check_topic(topic)
    text = encode_value(payload, "payload", encoder)
    if len(text) > DEFAULT_MAX_SIZE:
        raise _too_large(name, len(text))
    return [name, text.decode(), _check_key(key)]


def _check_key(key: Any) -> str | None:
    try:
        return None if key is None else check_id(key)
    except InvalidDocument as exc:
        raise InvalidDocument(
            str(exc).replace("the id", "the key", 1).replace("a valid id", "a valid key", 1), path="key"
        ) from None


def message_error(exc: psycopg.Error, topic: str, caller: Caller, *, in_transaction: bool) -> PgdocError:
    """Return pgdoc's error for an exception of the statement."""
    if exc.diag.constraint_name == _TOO_LARGE:
        return _too_large(topic, None)
    subject = titled(topic_name(topic))
    return map_error(exc, subject, in_transaction=in_transaction, rights=caller.to_publish())


def _too_large(topic: str, size: int | None) -> DocumentTooLarge:
    found = "more" if size is None else f"{size:,} bytes of"
    return DocumentTooLarge(
        f"{titled(topic_name(topic))}: the payload has {found} JSON text, and an event takes at most "
        f"{DEFAULT_MAX_SIZE:,} bytes: store the content as documents, and publish their ids. Nothing was published",
        size=size,
        max_size=DEFAULT_MAX_SIZE,
    )
