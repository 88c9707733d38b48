"""How large the JSON text of a document may be."""

from typing import Final

__all__ = ["DEFAULT_MAX_SIZE", "MOST"]

DEFAULT_MAX_SIZE: Final = 64 << 20
"""The limit of new collections, in bytes."""

MOST: Final = 1_000_000_000
"""The largest limit, and that of a collection without one: PostgreSQL takes and prints at most 1 GB at once."""
