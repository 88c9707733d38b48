"""Which way a reader takes around a change that the server can't send."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from unittest import mock

import psycopg
import pytest

from pgdoc.changes.router import Selection
from pgdoc.decoding.parts import EVERYTHING, Part
from pgdoc.decoding.records import Begin
from pgdoc.errors import DatabaseError, PublicationIncomplete, ServerUnreachable
from pgdoc.replication.detours import find_poison, open_detour, unreadable, wants_any
from pgdoc.replication.routes import STRAIGHT, Route, UnsentChange, as_unsent
from pgdoc.runtime.deadline import deadline_scope

if TYPE_CHECKING:
    from pgdoc.replication.session import ReplicationSession

BEGIN = Begin(100, 7, "")
ROW = UnsentChange(DatabaseError("too large"), BEGIN, 90)
MESSAGE = UnsentChange(DatabaseError("too large"), None, 90, is_message=True)
QUIET = Part(has_messages=False)


class Reported(psycopg.Error):
    def __init__(self, sqlstate: str | None, context: str) -> None:
        super().__init__("")
        self.sqlstate = sqlstate
        self._context = context

    @property
    def diag(self) -> Any:
        return mock.Mock(context=self._context)


def session(plugin: str, part: Part = EVERYTHING) -> ReplicationSession:
    return mock.Mock(slot_start=mock.Mock(plugin=plugin), route=Route(None, part))


@pytest.mark.parametrize(
    ("plugin", "part", "unsent", "route"),
    [
        ("wal2json", EVERYTHING, ROW, Route("pgoutput", EVERYTHING, 101)),
        ("wal2json", EVERYTHING, MESSAGE, Route("pgoutput", QUIET, 90)),
        ("pgoutput", EVERYTHING, MESSAGE, Route("pgoutput", QUIET, 90)),
        ("wal2json", Part(only=frozenset("a")), MESSAGE, Route("wal2json", Part(False, frozenset("a")), 90)),
        ("pgoutput", EVERYTHING, ROW, None),
        ("pgoutput", QUIET, MESSAGE, None),
        ("wal2json", Part(only=frozenset("a")), ROW, None),
    ],
)
def test_the_next_route(plugin: str, part: Part, unsent: UnsentChange, route: Route | None) -> None:
    open_route = mock.Mock()
    if route is None:
        with pytest.raises(UnsentChange):
            open_detour(open_route, session(plugin, part), unsent)
        assert not open_route.called
    else:
        open_detour(open_route, session(plugin, part), unsent)
        assert open_route.mock_calls == [mock.call(route)]


def test_a_route_that_would_miss_changes_is_not_taken() -> None:
    open_route = mock.Mock(side_effect=PublicationIncomplete("lacks a table"))
    with pytest.raises(UnsentChange):
        open_detour(open_route, session("wal2json"), ROW)
    open_route.side_effect = ServerUnreachable("cut")
    with pytest.raises(ServerUnreachable):
        open_detour(open_route, session("wal2json"), ROW)


class Transaction:
    """Opens routes through a transaction that has changes of these collections, some unreadable."""

    def __init__(self, names: str, poison: str) -> None:
        self.names, self.poison = frozenset(names), frozenset(poison)
        self.reads = 0

    def open(self, route: Route) -> Any:
        assert route.plugin == "wal2json"
        assert route.part.only is not None
        assert not route.part.has_messages
        self.reads += 1
        if route.part.only & self.poison:
            reader = mock.Mock()
            reader.read.side_effect = ROW
            return mock.Mock(has_arrived=False, reader=reader)
        return mock.Mock(has_arrived=True, assembler=mock.Mock(names=self.names))


@pytest.mark.parametrize("poison", ["", "a", "h", "bc", "aceg", "abcdefgh"])
@pytest.mark.parametrize("names", [None, frozenset("abcdefgh"), frozenset("ah"), frozenset()])
def test_it_finds_the_poisonous_collections_among_those_wanted(names: frozenset[str] | None, poison: str) -> None:
    transaction = Transaction("abcdefgh", poison)
    wanted = transaction.names if names is None else names
    found, route = find_poison(transaction.open, names, ROW)
    assert found == wanted & frozenset(poison)
    assert route == Route("wal2json", Part(only=wanted - frozenset(poison)), 101)
    assert transaction.reads <= 2 * len(wanted) + 1


def test_a_thread_that_has_to_end_gives_up_the_search() -> None:
    closing = threading.Event()
    closing.set()
    opened = mock.Mock(**{"return_value.has_arrived": False})
    with deadline_scope(closing=closing), pytest.raises(ServerUnreachable, match="is being closed"):
        find_poison(opened, frozenset("a"), ROW)
    assert opened.return_value.reader.close.called


def test_without_wal2json_nothing_is_found() -> None:
    refused = mock.Mock(side_effect=DatabaseError("no wal2json"))
    assert find_poison(refused, frozenset("a"), ROW) == (None, STRAIGHT)


@pytest.mark.parametrize(
    ("names", "poison", "wants"),
    [(None, "a", True), (None, "", False), ("ab", "a", True), ("b", "a", False), ("b", None, True), (None, None, True)],
)
def test_who_wants_it(names: str | None, poison: str | None, wants: bool) -> None:
    selection = Selection(None if names is None else frozenset(names))
    assert wants_any(selection, None if poison is None else frozenset(poison)) == wants


def test_the_error_names_transaction_collection_and_position() -> None:
    error = unreadable(ROW, frozenset("ba"), "the stream", "Do this")
    assert (error.commit_lsn, error.xid, error.position) == ("0/64", 7, "0/5A")
    assert (error.collection, error.collections) == ("a", ("a", "b"))
    assert unreadable(MESSAGE, None, "the stream", "Do this").collection is None


def test_reading_goes_on_behind_a_commit_but_where_a_message_ends() -> None:
    assert ROW.until == 101  # LSN 100 is the start of the record
    assert MESSAGE.until == 90  # LSN 90 is its end, and where the next commit may begin


def test_only_a_message_can_fail_outside_of_transactions() -> None:
    error = DatabaseError("failed")
    error.__cause__ = Reported("XX000", "in the change callback, associated LSN 0/7")
    assert as_unsent(error, None) is None
    error.__cause__ = Reported("54000", "in the message callback, associated LSN 0/7")
    assert as_unsent(error, None) is not None


@pytest.mark.parametrize(
    ("sqlstate", "context", "lsn"),
    [
        ("54000", 'slot "a", output plugin "wal2json", in the message callback, associated LSN 1/2A', (1 << 32) + 42),
        ("XX000", "Slot »a«, Ausgabe-Plugin »pgoutput«, im Callback change, zugehörige LSN 0/7", 7),
        ("57P01", "in the change callback, associated LSN 0/7", None),
        ("42704", "in the change callback, associated LSN 0/7", None),
        ("58030", "in the change callback, associated LSN 0/7", None),
        ("54000", "while reading", None),
        (None, "", None),
    ],
)
def test_the_server_says_where_it_failed(sqlstate: str | None, context: str, lsn: int | None) -> None:
    error = DatabaseError("failed")
    error.__cause__ = Reported(sqlstate, context)
    unsent = as_unsent(error, BEGIN)
    assert (unsent.lsn if unsent else None) == lsn
    if unsent:
        assert unsent.is_message == ("message" in context)
        assert unsent.until == 101
