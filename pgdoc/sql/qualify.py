"""Qualify SQL, so that it means the same under every search_path.

PostgreSQL looks up each name of a statement in the schemas of the session's search_path, and takes the function or
operator that fits the arguments best. A role that may create functions in one of these schemas could have its own
called, with the rights of the caller. `qualified` names the schema for everything that comes from PostgreSQL:

    WHERE relkind = 'r'    becomes    WHERE relkind OPERATOR(pg_catalog.=) 'r'
    now()::text            becomes    pg_catalog.now()::pg_catalog.text

It tells words apart as these files are written: keywords in capitals, and no space between a function and its bracket.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["qualified"]

_TOKEN: Final = re.compile(
    r"""(?P<text>E'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|--[^\n]*)
    |(?P<operand>"(?:[^"]|"")*"|%s|%\(\w+\)s|\{\w+\}|\d+(?:\.\d+)?(?:e\d+)?|\$\d+)
    |(?P<word>[A-Za-z_]\w*)
    |(?P<other>::|:=|=>|\.\.|[]()[,.:;]|%%)
    |(?P<operator>(?:[-+*/<>=~!@\#^&|?]|%(?![s(%]))+)
    |(?P<space>\s+)""",
    re.VERBOSE,
)

_GRAMMAR: Final = {"coalesce", "greatest", "least", "extract", "array", "row"}
"""What looks like a function, but belongs to the grammar; it finds operators by the types alone."""

_GRAMMAR_TYPES: Final = {"bigint", "boolean", "int", "integer", "numeric"}
"""Names of types that are keywords, which always mean PostgreSQL's own."""

_REFUSED: Final = {
    "BETWEEN": "write >= and <=",
    "DISTINCT FROM": "compare, and test the result with IS TRUE or IS NOT FALSE",
    "ILIKE": "call starts_with, or use ~*",
    "IN": "write = ANY (ARRAY[...])",
    "LIKE": "call starts_with, or use ~",
    "NOT IN": "write <> ALL (ARRAY[...])",
    "NULLIF": "write CASE WHEN",
    "SIMILAR": "use ~",
}
"""What looks up an operator by its name and cannot be qualified, and what to write instead."""

_INSIDE_EXPRESSIONS: Final = {"ALL", "ANY", "AT", "COLLATE", "FALSE", "NULL", "TIME", "TRUE", "ZONE"}
"""The keywords between which operators compete for their operands; at any other one, a new expression starts."""

_STRENGTHS: Final = {**dict.fromkeys(("<", ">", "=", "<=", ">=", "<>"), 1), "+": 3, "-": 3, "*": 4, "/": 4, "^": 5}
_OTHER_STRENGTH: Final = 2  # of all other operators, and of those that are qualified


def qualified(text: str) -> str:
    """Return the SQL with qualified functions, operators, types, collations and system catalogs.

    Raises:
        ValueError: it has a construct that can't be qualified, or depends on which of two operators binds stronger:
            qualified ones are all equal.
    """
    if text.startswith("LOCK TABLE"):  # nothing to qualify, and its IN is no operator
        return text
    tokens = [(str(found.lastgroup), found[0]) for found in _TOKEN.finditer(text)]
    if "".join(token for _, token in tokens) != text:
        raise ValueError(f"cannot read the SQL: {text}")
    return "".join(_Qualifier(tokens).parts())


class _Group:
    """What one pair of brackets contains, so far.

    Attributes:
        strength: of the last operator in the current expression; 0 for none.
        is_operator: whether it is a qualified operator, as in `OPERATOR(pg_catalog.=)`.
        in_set: whether a SET is being read, and `assigns`, whether its next `=` is an assignment.
    """

    def __init__(self, *, is_operator: bool = False) -> None:
        self.is_operator = is_operator
        self.strength = 0
        self.in_set = False
        self.assigns = False

    def start_expression(self) -> None:
        self.strength = 0
        self.assigns = self.in_set


class _Qualifier:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._groups = [_Group()]
        self._before = ""  # the last token that is not space

    def parts(self) -> Iterator[str]:
        """Yield each token, qualified."""
        for (kind, token), (_, following) in pairwise([*self._tokens, ("end", "")]):
            match kind:
                case "word":
                    yield self._word(token, following)
                case "operator":
                    yield self._operator(token, following)
                case "operand" if self._before in {"COLLATE", "::"} and following != ".":
                    yield f"pg_catalog.{token}"
                case _:
                    yield token
            if kind != "space":
                self._before = self._bracket(token) if kind == "other" else token

    def _word(self, word: str, following: str) -> str:
        before, group = self._before, self._groups[-1]
        if word.isupper():
            self._keyword(word, group)
            return word
        if before == "CASE":
            raise ValueError(f"CASE {word} finds = by its name: write CASE WHEN")
        is_function = following == "(" and before != "AS" and word not in _GRAMMAR
        is_type = before == "::" and following != "." and word not in _GRAMMAR_TYPES
        is_relation = word.startswith("pg_") and word != "pg_catalog"
        return f"pg_catalog.{word}" if before != "." and (is_function or is_type or is_relation) else word

    def _keyword(self, word: str, group: _Group) -> None:
        found = f"{self._before} {word}"
        advice = _REFUSED.get(found) or _REFUSED.get(word)
        if advice:
            raise ValueError(f"{found} finds its operator by its name: {advice}")
        if word == "OPERATOR":
            group.strength = _OTHER_STRENGTH
            return
        group.in_set = word == "SET" or (group.in_set and word not in {"FROM", "WHERE", "RETURNING"})
        if word not in _INSIDE_EXPRESSIONS:
            group.start_expression()

    def _bracket(self, token: str) -> str:
        """Follow brackets and separators; return what the token is to the next one."""
        if token in {"(", "["}:
            if self._before in {"CASE", "USING"}:
                raise ValueError(f"{self._before} (...) finds = by its name: write CASE WHEN, or ON")
            self._groups.append(_Group(is_operator=self._before == "OPERATOR"))
        elif token in {")", "]"}:
            return "=" if self._groups.pop().is_operator else token
        elif token in {",", ";", ":=", "..", ":"}:
            self._groups[-1].start_expression()
        return token

    def _operator(self, operator: str, following: str) -> str:
        before, group = self._before, self._groups[-1]
        starts = before in {"", "(", "[", ",", "..", ":="} or _is_operator(before)
        starts = starts or (_is_keyword(before) and before not in _INSIDE_EXPRESSIONS)
        if before == "." or (operator == "*" and starts):  # qualified, or all columns
            return operator
        if operator == "-" and starts and following.isdigit():  # a sign
            return operator
        if operator == "=" and group.assigns:
            group.assigns = False
            return operator
        if starts:
            raise ValueError(f"{operator} has no left operand, and can't be qualified")
        strength = _STRENGTHS.get(operator, _OTHER_STRENGTH)
        if group.strength and strength > group.strength:
            raise ValueError(f"{operator} binds stronger than the operator before it: use brackets")
        group.strength = strength
        return f"OPERATOR(pg_catalog.{operator})"


def _is_operator(token: str) -> bool:
    found = _TOKEN.fullmatch(token)
    return found is not None and found["operator"] is not None


def _is_keyword(word: str) -> bool:
    return word.isidentifier() and word.isupper()
