"""The calls that `explain` describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidInput
from pgdoc.model.short_repr import short_repr

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NO_CHANGE", "check_call"]

NO_CHANGE: Final = "NULL::pg_catalog.jsonb"
"""The `change` of an explained update: its plan depends on the filter alone."""

_ARGUMENTS: Final[Mapping[str, frozenset[str]]] = {
    "find": frozenset({"sort", "limit", "skip", "after"}),
    "find_one": frozenset({"sort"}),
    "count": frozenset(),
    "update_one": frozenset({"sort"}),
    "update_many": frozenset(),
    "delete_one": frozenset({"sort"}),
    "delete_many": frozenset(),
}
"""The arguments of each call, besides the filter, that its plan depends on."""


def check_call(call: Any, **arguments: Any) -> None:
    """Check that there is such a call, and that it has the arguments that are given."""
    known = _ARGUMENTS.get(call) if isinstance(call, str) else None
    if known is None:
        raise InvalidInput(f"call must be one of {', '.join(_ARGUMENTS)}, got {short_repr(call)}")
    for name, value in arguments.items():
        if value and name not in known:
            raise InvalidInput(f"{call} has no {name}: leave it out, or explain another call")
