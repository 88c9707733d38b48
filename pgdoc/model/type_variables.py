"""The type variables of typed collections: the model of the data, by default a dict.

With a default, a bare `Document`, `Collection` or `ChangeEvent` is complete, as mypy's strict mode demands.
"""

from __future__ import annotations

import sys
from typing import Any

if sys.version_info >= (3, 13):
    from typing import TypeVar
else:
    from typing_extensions import TypeVar

__all__ = ["M", "M_co", "N"]

M = TypeVar("M", default=dict[str, Any])
"""The model of a collection, which takes and returns data."""

M_co = TypeVar("M_co", default=dict[str, Any], covariant=True)
"""The model of what is only read: a `Document[Order]` is a `Document[BaseModel]`."""

N = TypeVar("N")
"""The model that a call is given."""
