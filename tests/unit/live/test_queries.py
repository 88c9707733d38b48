"""The live queries of one collection: where results move, and which reads count."""

from __future__ import annotations

from typing import Any

import pytest

from pgdoc.changes.change import Change, TransactionInfo
from pgdoc.changes.events import from_change
from pgdoc.decoding.records import Images, RowChange
from pgdoc.live.images import RowImage
from pgdoc.live.inbox import LiveInbox, LivePlace
from pgdoc.live.queries import LiveQueries, no_longer_there
from pgdoc.live.routing import LiveRouter, required_value
from pgdoc.live.shared import LiveRows, LiveWanted, SharedQuery
from pgdoc.live.window import LiveWindow
from pgdoc.model.documents import Document
from pgdoc.query import parse_filter

IDS = (1, 1, 5)


class Source:
    """Drives the queries as a source does: transactions commit at the LSNs 100, 200 and so on, with xids 1, 2, ..."""

    def __init__(self) -> None:
        self.queries = LiveQueries()
        self.queries.place = LivePlace((50, 0, 0, 0), IDS)

    def change(self, xid: int, key: str, n: int | None, before: int | None = None, message: bytes = b"") -> None:
        images = Images(_image(key, n), _image(key, before))
        kind = "I" if before is None else "D" if n is None else "U"
        row = RowChange(xid * 100 - 50, kind, "orders", message, True, lambda _: images, 0)
        change = Change((xid * 100, xid * 100 - 50, 1, 0), TransactionInfo(xid, "2026-01-01 00:00:00+00", None), row)
        self.queries.take([from_change(change, IDS)], IDS)

    def truncate(self, xid: int) -> None:
        row = RowChange(xid * 100 - 40, "T", "orders", b"", True, lambda _: Images({}, {}), 0)
        change = Change((xid * 100, xid * 100 - 40, 1, 0), TransactionInfo(xid, "2026-01-01 00:00:00+00", None), row)
        self.queries.take([from_change(change, IDS)], IDS)

    def come_to(self, lsn: int) -> None:
        self.queries.come_to(LivePlace((lsn, 0, 0, 0), IDS))

    def read(self, end_lsn: int, seen: set[int], rows: dict[str, int], *, is_all: bool = True) -> bool:
        query = self.queries.begin_read(0.0)
        assert query is not None
        return self.end_read(query, end_lsn, seen, rows, is_all=is_all)

    def end_read(
        self,
        query: SharedQuery[Any],
        end_lsn: int,
        seen: set[int],
        rows: dict[str, int],
        *,
        is_all: bool = True,
        timeline: int = 1,
    ) -> bool:
        images = [RowImage(_document(key, n)) for key, n in rows.items()]
        state: Any = query.state
        rows_of = state.prepared(images)
        found = LiveRows(rows_of, is_all, seen.__contains__, lambda change: change.xid in seen, end_lsn, timeline)
        return self.queries.end_read(query, query.read, found)


def _document(key: str, n: int) -> Document:
    return Document.from_text(key, f'{{"n": {n}}}', 1, None, None)


def _image(key: str, n: int | None) -> dict[str, Any]:
    if n is None:
        return {}
    times = {"created_at": "2026-01-01 00:00:00+00", "updated_at": "2026-01-01 00:00:00+00"}
    return {"id": key, "data": f'{{"n": {n}}}', "version": n, "replaced_version": 0, **times}


def followed(source: Source, limit: int | None = None, *, spare: int = 0) -> tuple[SharedQuery[Any], LiveInbox[Any]]:
    inbox: LiveInbox[Any] = LiveInbox(lambda: None)
    wanted = LiveWanted("key", None, lambda: LiveWindow(parse_filter({}), (), limit, spare=spare), None)
    return source.queries.join(wanted, inbox), inbox


def shown(query: SharedQuery[Any]) -> list[tuple[str, int]]:
    state: Any = query.state
    return [(document.id, document["n"]) for document in state.documents]


def test_a_read_counts_where_the_stream_has_come_to_its_end() -> None:
    source = Source()
    query, inbox = followed(source)
    assert source.read(150, {1}, {"a": 1})
    source.come_to(149)
    assert [each.is_current for each in source.queries] == [False]
    source.come_to(150)
    assert [each.is_current for each in source.queries] == [True]
    assert shown(query) == [("a", 1)]
    assert not inbox.batches, "a handle that has not begun gets what is shown"


def test_what_the_stream_takes_during_a_read_is_applied_unless_the_statement_saw_it() -> None:
    source = Source()
    query, _ = followed(source)
    reading = source.queries.begin_read(0.0)
    assert reading is query
    source.change(1, "a", 1)
    source.change(2, "b", 2)
    assert source.end_read(query, 450, {2, 4}, {"b": 2, "d": 4})
    source.change(3, "c", 3)
    source.change(4, "d", 4)
    source.come_to(449)
    assert shown(query) == []
    source.come_to(450)
    assert shown(query) == [("a", 1), ("b", 2), ("c", 3), ("d", 4)]


def test_a_read_that_misses_what_was_taken_before_is_repeated() -> None:
    source = Source()
    query, _ = followed(source)
    source.change(1, "a", 1)
    source.come_to(120)
    assert not source.read(150, set(), {})
    assert source.read(150, {1}, {"a": 1})
    source.come_to(150)
    assert shown(query) == [("a", 1)]


def test_a_read_is_held_against_what_was_taken_when_it_began_although_a_later_one_saw_it() -> None:
    source = Source()
    _, _ = followed(source)
    source.queries.join(LiveWanted("other", None, lambda: LiveWindow(parse_filter({})), None), LiveInbox(lambda: None))
    source.change(1, "a", 1)
    first, second = source.queries.begin_read(0.0), source.queries.begin_read(0.0)
    assert first is not None
    assert second is not None
    assert source.end_read(second, 150, {1}, {"a": 1})
    assert not source.end_read(first, 140, set(), {})


def test_a_result_moves_only_where_a_transaction_ends() -> None:
    source = Source()
    query, inbox = followed(source)
    assert source.read(50, set(), {})
    source.come_to(60)
    inbox.begin()
    source.change(1, "a", 1)
    source.come_to(100)
    assert shown(query) == []
    source.change(1, "b", 1)
    source.change(2, "c", 2)
    assert shown(query) == [("a", 1), ("b", 1)]
    assert inbox.batches[0].place.position == (101, 0, 0, 0)
    source.come_to(201)
    assert shown(query) == [("a", 1), ("b", 1), ("c", 2)]
    assert [len(batch.changes) for batch in inbox.batches] == [2, 1]


def test_a_query_that_needs_a_read_hands_nothing_out_until_then() -> None:
    source = Source()
    query, inbox = followed(source, limit=1)
    assert source.read(50, set(), {"a": 1}, is_all=False)
    source.come_to(50)
    inbox.begin()
    source.change(1, "a", None, before=1)
    source.come_to(101)
    source.change(2, "c", 2)
    source.come_to(201)
    assert (shown(query), len(inbox.batches)) == ([("a", 1)], 0)
    assert source.read(250, {1, 2}, {"b": 0}, is_all=False)
    source.come_to(250)
    assert shown(query) == [("b", 0)]
    (batch,) = inbox.batches
    assert [(each.kind, each.document.id) for each in batch.changes] == [("removed", "a"), ("added", "b")]
    assert batch.changes[0].event.document_id == "a"


def test_a_handle_that_is_far_behind_drops_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgdoc.live.inbox.MOST_BATCHES", 2)
    source = Source()
    _, inbox = followed(source)
    assert source.read(50, set(), {})
    source.come_to(50)
    inbox.begin()
    for xid in (1, 2):
        source.change(xid, f"k{xid}", xid)
        source.come_to(xid * 100 + 1)
    assert (len(inbox.batches), inbox.is_behind) == (2, False)
    source.change(3, "k3", 3)
    source.come_to(301)
    assert (len(inbox.batches), inbox.is_behind) == (0, True)


def test_a_new_stream_lets_everything_be_read_again() -> None:
    source = Source()
    query, inbox = followed(source)
    assert source.read(50, set(), {"a": 1, "b": 1})
    source.come_to(50)
    inbox.begin()
    source.change(1, "c", 1)
    source.queries.restart(LivePlace((1000, 0, 0, 0), IDS))
    source.come_to(1100)
    assert (shown(query), len(inbox.batches)) == ([("a", 1), ("b", 1)], 0)
    assert source.read(1150, {1}, {"b": 1, "c": 1})
    source.come_to(1150)
    assert shown(query) == [("b", 1), ("c", 1)]
    assert [each.kind for each in inbox.batches[0].changes] == ["removed", "added"]


def test_the_place_does_not_go_back() -> None:
    source = Source()
    source.come_to(70)
    source.come_to(60)
    assert source.queries.place.position[0] == 70


def test_a_query_without_handles_is_dropped() -> None:
    source = Source()
    query, inbox = followed(source)
    source.queries.leave(query, inbox)
    assert len(source.queries) == 0
    assert source.queries.begin_read(0.0) is None


@pytest.mark.parametrize(
    ("filter", "required"),
    [
        ({}, None),
        ({"a": 1}, (("a",), {1})),
        ({"a": {"$in": [1, 2]}, "b": "x"}, (("b",), {"x"})),
        ({"a": "x", "_id": {"$in": ["p", "q"]}}, (("_id",), {"p", "q"})),
        ({"a": None}, None),
        ({"a": {"$gt": 1}}, None),
        ({"$or": [{"a": 1}, {"a": 2}]}, None),
        ({"a": {"b": 1}}, None),
        ({"a": {"$ne": 1}}, None),
        ({"$and": [{"a": 1}, {"b": {"$exists": True}}]}, (("a",), {1})),
    ],
)
def test_a_filter_is_looked_up_by_a_value_that_it_requires(filter: dict[str, Any], required: Any) -> None:  # noqa: A002
    assert required_value(parse_filter(filter)) == (None if required is None else (required[0], frozenset(required[1])))


def test_a_texts_collation_keeps_a_filter_from_being_looked_up() -> None:
    assert required_value(parse_filter({"a": "x"}, None, "ci")) is None


def test_the_router_finds_each_query_that_a_change_can_concern() -> None:
    router: LiveRouter[str] = LiveRouter()
    filters: dict[str, dict[str, Any]] = {
        "one": {"a": 1},
        "two": {"a": {"$in": [1, 2]}},
        "text": {"a": "1"},
        "every": {},
        "deep": {"b.c": True},
    }
    required = {name: required_value(parse_filter(each)) for name, each in filters.items()}
    for name in filters:
        router.add(name, required[name])

    def found(*data: str) -> set[str]:
        return set(router.find([RowImage(Document.from_text("k", each, 1, None, None)) for each in data]))

    assert found('{"a": 1}') == {"one", "two", "every"}
    assert found('{"a": 2.0}', '{"a": "1"}') == {"two", "text", "every"}
    assert found('{"a": [3, 1]}') == {"one", "two", "every"}
    assert found('{"b": [{"c": true}]}') == {"deep", "every"}
    assert found("{") == set(filters), "what can't be read may concern all"
    for name in filters:
        router.remove(name, required[name])
    assert found('{"a": 1}') == set()


def test_a_query_that_fails_is_named_and_the_others_go_on() -> None:
    source = Source()
    query, inbox = followed(source)
    other = LiveWanted("broken", None, lambda: LiveWindow(parse_filter({})), None)
    broken = source.queries.join(other, LiveInbox(lambda: None))
    state: Any = broken.state
    state.apply = lambda *_: 1 / 0
    for _ in range(2):
        assert source.read(50, set(), {})
    source.come_to(50)
    inbox.begin()
    source.change(1, "a", 1)
    source.come_to(101)
    assert [(each, type(exc)) for each, exc in source.queries.failed] == [(broken, ZeroDivisionError)]
    assert (shown(query), len(inbox.batches)) == ([("a", 1)], 1)


def test_a_truncation_makes_no_result_before_its_transaction_ends() -> None:
    source = Source()
    query, _ = followed(source)
    source.truncate(1)
    source.come_to(60)
    assert [each.is_current for each in source.queries] == [False]
    source.change(1, "a", 1)
    source.come_to(101)
    assert [each.is_current for each in source.queries] == [True]
    assert shown(query) == [("a", 1)]


def test_a_result_that_waits_for_a_read_is_not_current_inside_a_transaction_that_truncates() -> None:
    source = Source()
    followed(source, limit=1)
    assert source.read(50, set(), {"a": 1}, is_all=False)
    source.come_to(50)
    source.change(1, "a", None, before=1)
    source.come_to(101)
    source.truncate(2)
    source.come_to(150)
    assert [each.is_current for each in source.queries] == [False]
    source.come_to(201)
    assert [each.is_current for each in source.queries] == [True]


def test_a_read_of_another_timeline_does_not_count() -> None:
    source = Source()
    query, _ = followed(source)
    assert source.queries.begin_read(0.0) is query
    assert not source.end_read(query, 150, set(), {"a": 1}, timeline=2)
    assert source.read(150, set(), {"a": 1})
    source.queries.come_to(LivePlace((160, 0, 0, 0), (1, 2, 5)))  # the stream has followed to a promoted server
    assert [each.is_current for each in source.queries] == [False]
    assert source.queries.begin_read(0.0) is query
    assert source.end_read(query, 170, set(), {"b": 1}, timeline=2)
    source.queries.come_to(LivePlace((180, 0, 0, 0), (1, 2, 5)))
    assert shown(query) == [("b", 1)]


def test_no_more_is_taken_while_much_waits_for_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgdoc.live.shared.MOST_WAITING_BYTES", 1000)
    source = Source()
    query, _ = followed(source)
    assert source.queries.begin_read(0.0) is query
    rooms = []
    for xid in (1, 2):
        source.change(xid, "a", xid, message=bytes(600))
        rooms.append(source.queries.has_room)
    assert source.end_read(query, 150, {1}, {"a": 1})
    assert [*rooms, source.queries.has_room] == [True, False, True]


def test_what_ends_a_live_query_says_how_to_go_on() -> None:
    gone = str(no_longer_there('collection "docs.orders"', "drop", None))
    assert gone.startswith(
        'collection "docs.orders" was dropped, which ends its live queries and mirrors: open new ones'
    )
    unwatched = str(no_longer_there('table "public.bids"', "drop", None))
    assert unwatched.startswith('table "public.bids" was dropped, or is no longer watched, which ends its live queries')
    assert "store.add_table()" in unwatched
    renamed = str(no_longer_there('collection "docs.orders"', "rename", "sales"))
    assert renamed.startswith('collection "docs.orders" is called "sales" now, which ends its live queries and mirrors')
    assert renamed.endswith("open new ones under the new name")
