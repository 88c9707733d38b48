"""What is open in this process, and the counts of what was: where metrics are read from.

An entry ends with its owner, of which it holds no reference. Entering and ending take microseconds; nothing is noted in
between. The counts of entries that have ended stay, and their number is bounded, although users choose the names of
schemas, collections, consumers, handlers and logs.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pgdoc.runtime.fork import remember

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CENSUS", "OTHER", "Census", "Entry", "Labelled", "Labels", "Measured"]

Labels: TypeAlias = tuple[str, ...]

Labelled: TypeAlias = tuple[str, Labels]
"""A metric's name, and the values of its labels."""

Measured: TypeAlias = tuple[Labelled, float]

OTHER = "(other)"
"""The label of everything beyond a limit; no schema, collection or consumer has this name."""

_MOST = {"source": 100, "stream": 500, "handler": 500, "relay": 100}
"""How many different labels are kept apart."""


class Entry(Protocol):
    """Something open. Any thread asks."""

    def counts(self) -> Iterable[Measured]:
        """Return what was counted so far: each number only grows."""

    def gauges(self) -> Iterable[Measured]:
        """Return what is the case now; nothing once it is closed."""

    def goes_on_in_child(self) -> bool:
        """Begin to count again in a child process; return whether the child can use what it counts."""


class Census:
    """What is open; in a child process, only what that can use, and no counts of its parent's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows; the garbage collector may not take it
        self._counts: dict[Labelled, float] = {}
        self._open: dict[int, Entry] = {}
        self._known: dict[str, set[Labels]] = {}
        # Without the lock: the garbage collector appends on any thread.
        self._ended: deque[int] = deque()
        self._keys = itertools.count()
        remember(self)

    def after_fork(self) -> None:
        """Begin again in a child process, where the holder of the lock may not exist."""
        self._lock = threading.Lock()
        self._counts = {}
        self._open = {key: entry for key, entry in self._open.items() if entry.goes_on_in_child()}

    def enter(self, owner: object, entry: Entry) -> None:
        """Count an entry until its owner is freed."""
        with self._lock:
            self._settle()
            key = next(self._keys)
            self._open[key] = entry
        weakref.finalize(owner, self._ended.append, key).atexit = False

    def add(self, labelled: Labelled) -> None:
        """Count something that has happened."""
        with self._lock:
            self._counts[labelled] = self._counts.get(labelled, 0) + 1

    def bounded(self, kind: str, labels: Labels, instead: Labels) -> Labels:
        """Return `labels`, or `instead` if there are many others of this kind."""
        with self._lock:
            known = self._known.setdefault(kind, set())
            if labels in known or len(known) < _MOST[kind]:
                known.add(labels)
                return labels
            return instead

    def counts(self) -> dict[Labelled, float]:
        """Return what was counted since the process began: what is open included."""
        with self._lock:
            self._settle()
            counts = self._counts.copy()
            for entry in self._open.values():
                _add(counts, entry)
            return counts

    def gauges(self) -> list[Measured]:
        """Return what is the case now; several entries may have the same labels."""
        with self._lock:
            self._settle()
            entries = list(self._open.values())
        return [sample for entry in entries for sample in entry.gauges()]

    def _settle(self) -> None:
        while self._ended:
            entry = self._open.pop(self._ended.popleft(), None)
            if entry is not None:  # else it was open when this process was forked
                _add(self._counts, entry)


def _add(counts: dict[Labelled, float], entry: Entry) -> None:
    for labelled, number in entry.counts():
        counts[labelled] = counts.get(labelled, 0) + number


CENSUS = Census()
