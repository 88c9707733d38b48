"""The filter and update languages: parsed once, understood by PostgreSQL and by Python. Pure."""

from pgdoc.query.match import compare, finder, matcher, matches, scalar_key
from pgdoc.query.nodes import Node, SortKey
from pgdoc.query.parse import parse_filter, parse_sort
from pgdoc.query.sql import Compiled, compile_filter, compile_sort
from pgdoc.query.update import parse_update
from pgdoc.query.update_apply import apply_update
from pgdoc.query.update_nodes import Update
from pgdoc.query.update_sql import compile_first, compile_update

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
