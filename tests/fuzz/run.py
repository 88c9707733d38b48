"""Run random cases in both interpreters, many in one statement, and report differences."""

from __future__ import annotations

import functools
import os
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import psycopg

from pgdoc.errors import InvalidInput, InvalidUpdate, PgdocError
from pgdoc.model.json_codec import decode_comparable, decode_decimals, encode
from pgdoc.model.short_repr import short_repr
from pgdoc.query import (
    apply_update,
    compare,
    compile_first,
    compile_sort,
    compile_update,
    matches,
    parse_filter,
    parse_sort,
    parse_update,
)
from pgdoc.query.filters.collations import COLLATIONS, collated
from pgdoc.query.filters.projection import compile_fields, project
from pgdoc.query.filters.projection_parse import parse_fields
from tests.fuzz.dice import Dice
from tests.fuzz.pools import MOMENT
from tests.hostile_settings import HARMLESS, IN_STATEMENTS, known
from tests.indexed import times_found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

    from pgdoc.query import Compiled

SEED: Final = int(os.environ.get("PGDOC_FUZZ_SEED", "0"))
DOCUMENTS: Final = "hgfedcba"
ROUND: Final = {"filter": 22, "update": 22, "sort": 3, "fields": 3}
"""The number of cases per statement."""

_ROWS: Final = "unnest(%s::text[], %s::jsonb[]) WITH ORDINALITY AS row(id, data, place)"
_FROM: Final = f"FROM (SELECT * FROM {_ROWS}) AS documents"
_DATED: Final = "replace(({})::text, pgdoc.transaction_time(), '" + f"{MOMENT:%Y-%m-%dT%H:%M:%S.%f}Z')"


@dataclass
class Case:
    """One filter, update, sort or projection for all documents of a round: its SQL and Python's results."""

    kind: str
    given: Any
    compiled: Compiled
    expected: Any
    read: Callable[[Any], Any]


@dataclass
class Outcome:
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in sorted(self.counts.items()))


def run(connection: psycopg.Connection, seed: int, cases: int) -> Outcome:
    """Run a number of cases, or stop after ten failures."""
    outcome = Outcome()
    number = 0
    while sum(outcome.counts.values()) < cases and len(outcome.wrong) < 10:
        group = random.Random(f"{seed} {number} settings").choice(["", *IN_STATEMENTS])
        set_session(connection, group)
        name = f"seed {seed}, round {number}, settings {group!r}"
        _Round(connection, random.Random(f"{seed} {number}"), outcome, name).run()
        number += 1
    connection.execute("RESET ALL")
    return outcome


def set_session(connection: psycopg.Connection, group: str) -> None:
    """Give the session hostile settings, or those of a new server, and always without JIT, which takes too long."""
    connection.execute("RESET ALL")
    for name, value in known(connection, HARMLESS.get(group, {}) | {"jit": "off"}).items():
        connection.execute("SELECT set_config(%s, %s, false)", [name, value])


def print_outcome(capsys: pytest.CaptureFixture[str], seed: int, outcome: Outcome) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\nseed {seed}: {outcome}\n")


class _Round:
    def __init__(self, connection: psycopg.Connection, rng: random.Random, outcome: Outcome, name: str) -> None:
        self.connection, self.outcome, self.name = connection, outcome, name
        self.dice = Dice(rng)
        self.documents = {key: self._document() for key in DOCUMENTS}
        self.texts = [encode(data).decode() for data in self.documents.values()]
        stored = [row[0] for row in self._rows("data::text", [])]
        self.data = dict(zip(self.documents, map(decode_comparable, stored), strict=True))
        self.digits = list(map(decode_decimals, stored))

    def _document(self) -> dict[str, Any]:
        data = self.dice.document()
        try:
            encode(data)
        except PgdocError:
            return {}
        return data

    def run(self) -> None:
        cases = list(self._cases())
        query = ", ".join(case.compiled.text for case in cases)
        params = [item for case in cases for item in case.compiled.params]
        try:
            rows = self._rows(query, params)
        except psycopg.Error:
            for case in cases:
                self._run_alone(case)
            return
        for column, case in enumerate(cases):
            self._compare(case, [row[column] for row in rows])

    def _rows(self, query: str, params: list[Any]) -> list[Any]:
        every = [*params, list(self.documents), self.texts]
        return self.connection.execute(f"SELECT {query} {_FROM} ORDER BY place", every).fetchall()

    def _run_alone(self, case: Case) -> None:
        try:
            rows = self._rows(case.compiled.text, case.compiled.params)
        except psycopg.Error as exc:
            self._fail(case.kind, case.given, f"the server fails with {exc}")
        else:
            self._compare(case, [row[0] for row in rows])

    def _compare(self, case: Case, answers: list[Any]) -> None:
        for text, answer, expected in zip(self.texts, map(case.read, answers), case.expected, strict=True):
            if answer != expected:
                self._fail(case.kind, case.given, f"for {text} the server returns {answer}, Python {expected}")
                return

    def _fail(self, kind: str, given: Any, what: str) -> None:
        self.outcome.wrong.append(f"{self.name}, {kind} {_written(given)}: {what}"[:5_000])

    def _cases(self) -> Iterator[Case]:
        for name in [name for name, count in ROUND.items() for _ in range(count)]:
            given = getattr(self.dice, name)(self.dice.pick(list(self.documents.values())))
            case = self._build(name, getattr(self, f"_{name}"), given)
            self.outcome.counts[f"{name.removesuffix('s')}s{'' if case else ' refused'}"] += 1
            if case is not None:
                yield case

    def _build(self, name: str, make: Callable[[Any], Case], given: Any) -> Case | None:
        """Build a case; any error but pgdoc's `InvalidInput` with a short message is a failure."""
        try:
            return make(given)
        except InvalidInput as exc:
            if not str(exc) or len(str(exc)) > 1_000:
                self._fail(name, given, f"the error message is empty or longer than 1,000 characters: {exc}")
        except Exception as exc:  # noqa: BLE001 (unexpected errors are what the test looks for)
            self._fail(name, given, f"{type(exc).__name__}: {exc}")
        return None

    def _filter(self, given: Any) -> Case:
        collation = self.dice.pick([None, None, *COLLATIONS])
        node = parse_filter(given, collation=collation)
        compiled = times_found(node, (None, collation) if collation else (None,))
        return Case("filter", given, compiled, [{int(matches(node, *item))} for item in self.data.items()], set)

    def _update(self, given: Any) -> Case:
        changes, array_filters, wanted = given
        update = parse_update(changes, array_filters=array_filters, matched=parse_filter(wanted))
        inserting = self.dice.one_in(8)
        max_calls = 0 if self.dice.one_in(2) else 1_000  # a tree of changes, or calls
        compiled = compile_first(update) if inserting else compile_update(update, max_calls=max_calls)
        compiled = type(compiled)(_DATED.format(compiled.text), compiled.params)
        pairs = zip(self.data, self.digits, strict=True)
        expected = [self._updated(update, key, {} if inserting else data, inserting) for key, data in pairs]
        return Case("update", given, compiled, expected, lambda text: text and exact(decode_decimals(text)))

    def _updated(self, update: Any, key: str, data: dict[str, Any], inserting: bool) -> Any:
        try:
            updated = apply_update(update, data, now=MOMENT, inserting=inserting, document_id=key, decimals=True)
            return exact(decode_decimals(encode(updated)))
        except InvalidUpdate:
            return None

    def _fields(self, given: Any) -> Case:
        fields, wanted = given
        projection = parse_fields(fields, lambda: parse_filter(wanted))
        compiled = compile_fields(projection)
        compiled = type(compiled)(f"({compiled.text})::text", compiled.params)
        expected = [exact(project(projection, data, name)) for name, data in self.data.items()]
        return Case("fields", given, compiled, expected, lambda text: exact(decode_comparable(text)))

    def _sort(self, given: Any) -> Case:
        collation = self.dice.pick([None, None, *COLLATIONS])
        keys = parse_sort(given, collation)
        compiled = compile_sort(keys)
        compiled = type(compiled)(f"row_number() OVER (ORDER BY {compiled.text})", compiled.params)
        order = sorted(self.data)
        for key in reversed(keys):
            found = {name: name if key.path == ("_id",) else value_at(self.data[name], key.path) for name in order}
            if key.collation is not None:
                found = {name: collated(value, key.collation) for name, value in found.items()}
            comparable = functools.cmp_to_key(compare)
            order.sort(key=lambda name: comparable(found[name]), reverse=key.descending)
        return Case("sort", given, compiled, [order.index(name) + 1 for name in self.data], int)


def _written(given: Any) -> str:
    try:
        return repr(given)
    except ValueError:  # an integer with too many digits for repr
        return short_repr(given)


def value_at(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part in map(str, range(len(value))):
            value = value[int(part)]
        else:
            return None
    return value


def exact(value: Any) -> Any:
    """Return a form of the value in which 1, 1.0, 1.00 and True differ, although Python considers them equal."""
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    if isinstance(value, Decimal):
        return "Decimal", f"{value or abs(value):f}"  # PostgreSQL has no -0
    return type(value).__name__, value
