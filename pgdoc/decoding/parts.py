"""Which part of a schema's changes an output plugin is asked for."""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """A part of the changes of a schema; those of the registry always belong to it.

    Attributes:
        has_messages: whether the writers' metadata is asked for.
        only: the tables that are asked for; `None` for all. pgoutput always sends all.
    """

    has_messages: bool = True
    only: frozenset[str] | None = None


EVERYTHING = Part()
