"""A finding of `pgdoc doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Finding", "good", "unseen", "warn", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        id: names the kind of finding, and stays the same in all versions; `docs/reference/doctor.md` lists them.
        verdict: `ok`; `warn`, if it will or may go wrong; `wrong`; or `unseen`, if this role or server can't tell.
        subject: the area of the check.
        text: what was found, as a sentence.
        object: the name of what it is about: a setting, slot, table, consumer or role.
        value: what was found there.
        fix: the commands that mend it, in order. One that begins with `pgdoc`, `pip` or `vacuumdb` is for a shell,
            any other is SQL, to be run on its own.
    """

    id: str
    verdict: str
    subject: str
    text: str
    object: str | None = None
    value: str | int | float | None = None
    fix: tuple[str, ...] = ()


# The checks call these; the test that every finding is provoked looks for them, and for an id in the first place.


def good(finding_id: str, text: str, about: str | None = None, value: Any = None) -> Finding:
    """Return a finding with nothing to do."""
    return Finding(finding_id, "ok", "", text, about, value)


def warn(
    finding_id: str, text: str, about: str | None = None, value: Any = None, *, fix: Sequence[str] = ()
) -> Finding:
    """Return a finding about what will or may go wrong."""
    return Finding(finding_id, "warn", "", text, about, value, tuple(fix))


def wrong(
    finding_id: str, text: str, about: str | None = None, value: Any = None, *, fix: Sequence[str] = ()
) -> Finding:
    """Return a finding about what does not work."""
    return Finding(finding_id, "wrong", "", text, about, value, tuple(fix))


def unseen(
    finding_id: str, text: str, about: str | None = None, value: Any = None, *, fix: Sequence[str] = ()
) -> Finding:
    """Return a finding about what this role, or this server, can't tell."""
    return Finding(finding_id, "unseen", "", text, about, value, tuple(fix))
