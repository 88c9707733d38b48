"""Topics of the application's own events, and what selects them.

Inside, a topic is the name of a collection that no collection can have: `topic:order.shipped`. A selection of topics is
such a name, too: `topic:order.*` for all below `order`, and `topic:*` for all. So every topic has a few names that can
select it, which an index can look up.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidInput, InvalidName
from pgdoc.model.short_repr import short_repr

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ANY_TOPIC", "check_topic", "check_topics", "is_topic", "selectors_of", "topic_name", "topic_of"]

_PREFIX: Final = "topic:"
ANY_TOPIC: Final = "topic:*"
"""Selects every topic."""

MOST_BYTES: Final = 200  # ASCII, so as many characters
_WORDS: Final = r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"
_TOPIC: Final = re.compile(_WORDS)
_SELECTED: Final = re.compile(rf"\*|{_WORDS}(?:\.\*)?")


def is_topic(name: str) -> bool:
    """Whether the name of a collection or table in an event is that of a topic, or selects topics."""
    return name.startswith(_PREFIX)


def topic_name(topic: str) -> str:
    """Return what events of a topic have as their collection."""
    return _PREFIX + topic


def topic_of(name: str) -> str | None:
    """Return the topic of such a name; `None` for that of a collection or table."""
    return name[len(_PREFIX) :] if is_topic(name) else None


@lru_cache(maxsize=4096)
def selectors_of(name: str) -> tuple[str, ...]:
    """Return the names that select a topic, given by its own: `topic:a.b` is selected by `topic:a.*`, for one."""
    words = name[len(_PREFIX) :].split(".")
    above = (f"{_PREFIX}{'.'.join(words[:count])}.*" for count in range(len(words) - 1, 0, -1))
    return name, *above, ANY_TOPIC


def check_topic(topic: Any) -> str:
    """Return the topic if it is valid: words of `A-Z`, `a-z`, `0-9`, `_` and `-`, with dots between them."""
    if not isinstance(topic, str) or _TOPIC.fullmatch(topic) is None:
        raise InvalidName(
            f"{short_repr(topic)} is not a valid topic: use words of letters, digits, _ and - with dots between them, "
            "as in 'order.shipped'"
        )
    return _short(topic)


def check_topics(topics: Iterable[str] | None) -> frozenset[str]:
    """Return the names that select what a user asked for: topics, `order.*` for those below `order`, `*` for all.

    None of them selects what another one does, so that each topic is selected once.
    """
    if topics is None:
        return frozenset()
    if isinstance(topics, str):
        raise InvalidInput(f"topics must be a list, such as [{short_repr(topics)}], got {short_repr(topics)}")
    found = frozenset(map(_check_selected, topics))
    if not found:
        raise InvalidInput("topics is empty: name at least one, or leave topics out")
    return frozenset(name for name in found if found.isdisjoint({*selectors_of(name)} - {name}))


def _check_selected(topic: Any) -> str:
    if not isinstance(topic, str) or _SELECTED.fullmatch(topic) is None:
        raise InvalidName(
            f"{short_repr(topic)} selects no topics: use one such as 'order.shipped', 'order.*' for all below order, "
            "or '*' for all"
        )
    return _PREFIX + _short(topic)


def _short(topic: str) -> str:
    if len(topic) > MOST_BYTES:
        raise InvalidName(f"the topic {topic[:40]!r}... must have at most {MOST_BYTES} characters, got {len(topic)}")
    return topic
