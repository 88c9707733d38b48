"""The filter and update languages, each parsed once, compiled to SQL and evaluated in Python. No I/O.

`regex` and `filters` come first; `indexes` and `updates` build on them.
"""

from pgdoc.query.filters.match import compare, finder, matcher, matches, scalar_key
from pgdoc.query.filters.nodes import Node, SortKey
from pgdoc.query.filters.order import compile_sort
from pgdoc.query.filters.parse import parse_filter
from pgdoc.query.filters.paths import parse_sort
from pgdoc.query.filters.sql import Compiled, compile_filter
from pgdoc.query.updates.apply import apply_update
from pgdoc.query.updates.nodes import Update
from pgdoc.query.updates.parse import parse_update
from pgdoc.query.updates.sql import compile_first, compile_update

__all__ = [
    "Compiled",
    "Node",
    "SortKey",
    "Update",
    "apply_update",
    "compare",
    "compile_filter",
    "compile_first",
    "compile_sort",
    "compile_update",
    "finder",
    "matcher",
    "matches",
    "parse_filter",
    "parse_sort",
    "parse_update",
    "scalar_key",
]
