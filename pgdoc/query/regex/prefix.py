"""What a pattern says about the start of a text: an index can find the texts that start so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pgdoc.query.regex.charset import LAST
from pgdoc.query.regex.nodes import Assertion, Chars, Repeat, Sequence, may_be_empty, weigh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc.query.regex.charset import Ranges
    from pgdoc.query.regex.nodes import RegexPart

Rest: TypeAlias = Literal["nothing", "anything", "more"]
"""What follows the start: the end of the text, any text, or what the rest of the pattern must match."""

_MOST_CASES: Final = 8
"""The most characters of a class that may be the cases of one letter."""

_BEFORE_SURROGATES: Final = 0xD7FF
_AFTER_SURROGATES: Final = 0xE000


def find_start(part: RegexPart) -> tuple[tuple[Ranges, ...], Rest]:
    """Return the characters with which each matching text starts, and what follows; none if it may start anyhow."""
    items = list(_flattened(part))
    if not items or items[0] is not Assertion.TEXT_START:
        return (), "more"
    while items and items[0] is Assertion.TEXT_START:
        del items[0]
    found: list[Ranges] = []
    for number, item in enumerate(items):
        if not _take(item, found):
            return tuple(found), _rest_of(items[number:])
    return tuple(found), "anything"


def _flattened(part: RegexPart) -> Iterator[RegexPart]:
    if isinstance(part, Sequence):
        for item in part.parts:
            yield from _flattened(item)
    else:
        yield part


def _take(part: RegexPart, found: list[Ranges]) -> bool:
    """Add the characters with which the part starts; return whether it consists of nothing else."""
    if isinstance(part, Chars):
        found.append(part.ranges)
        return True
    if isinstance(part, Sequence):
        return all(_take(item, found) for item in part.parts)
    if isinstance(part, Repeat):
        return all(_take(part.part, found) for _ in range(part.low)) and part.low == part.high
    return False


def _rest_of(items: list[RegexPart]) -> Rest:
    if all(item is Assertion.TEXT_END for item in items):
        return "nothing"
    # A repetition that has given its least number of characters to the start may end there.
    may_end = isinstance(items[0], Repeat) and isinstance(items[0].part, Chars)
    optional = items[1:] if may_end else items
    return "anything" if all(may_be_empty(item) and not weigh(item).assertions for item in optional) else "more"


def literal_start(start: tuple[Ranges, ...]) -> str:
    """Return the text with which each matching text starts."""
    return folded_start(start, chr)


def folded_start(start: tuple[Ranges, ...], fold: Callable[[int], str]) -> str:
    """Return the text with which each matching text starts, once `fold` has replaced each of its characters."""
    found: list[str] = []
    for ranges in start:
        codes = [code for low, high in ranges[:_MOST_CASES] for code in range(low, min(high, low + _MOST_CASES) + 1)]
        forms = {fold(code) for code in codes} if len(codes) <= _MOST_CASES else set()
        if len(forms) != 1:
            break
        found += forms
    return "".join(found)


def next_after(prefix: str) -> str | None:
    """Return the least text, by code point, after all texts with this prefix; `None` if there is none."""
    rest = prefix.rstrip(chr(LAST))
    if not rest:
        return None
    last = ord(rest[-1])
    return rest[:-1] + chr(_AFTER_SURROGATES if last == _BEFORE_SURROGATES else last + 1)
