"""Partitions of a log: each document belongs to one, so that readers can share a log and keep its order.

The partition of a document is `crc32(id) % partitions`, of its id in UTF-8: simple enough for readers in any language.
An event of a whole collection, such as a truncate, belongs to all of them.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote
from zlib import crc32

__all__ = ["EVERY", "MOST_PARTITIONS", "encoded", "partition_of"]

EVERY: Final = -1
"""The partition of events that belong to all of them."""

MOST_PARTITIONS: Final = 1024


def partition_of(document_id: str | None, partitions: int) -> int:
    """Return the partition of a document's events, or `EVERY` without a document."""
    if document_id is None:
        return EVERY
    if document_id.isascii():
        return crc32(document_id.encode()) % partitions
    return crc32(document_id.encode(errors="surrogatepass")) % partitions


def encoded(text: str) -> str:
    """Return a text in which all but letters, digits, `_` and `-` are percent-encoded: safe in subjects and headers."""
    if text.isascii() and (text.isalnum() or text.replace("_", "").replace("-", "").isalnum()):
        return text
    # quote() leaves . and ~ alone, too
    return quote(text, safe="", errors="surrogatepass").replace(".", "%2E").replace("~", "%7E")
