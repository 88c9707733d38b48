from __future__ import annotations

from typing import Any

import pytest

from pgdoc.changes.router import Selection
from pgdoc.errors import HistoryLost, InvalidName, InvalidResumeToken
from pgdoc.model.positions import Lsn, Position
from pgdoc.model.tokens import ResumeToken
from pgdoc.replication.checks import check_position, check_published, no_longer_there
from pgdoc.replication.source import Cluster
from pgdoc.streams.options import check_buffer, make_selection, read_token
from pgdoc.streams.status import plugin_reason

ORIGIN = Cluster(7421, 3, ((1, 1000), (2, 2000)))


def token(commit_lsn: int, *, timeline: int = 3, system_id: int = 7421, inside: bool = True) -> ResumeToken:
    position = Position(commit_lsn, commit_lsn - 8, 1, 0) if inside else Position(commit_lsn)
    return ResumeToken(position, system_id, timeline)


def test_a_position_can_be_a_token_its_text_or_a_bare_lsn():
    assert read_token(token(3000)) == token(3000)
    assert read_token(str(token(3000))) == token(3000)
    assert read_token("16/B374D848") == Lsn(0x16_B374_D848)
    assert isinstance(read_token(Lsn(5)), Lsn)


@pytest.mark.parametrize("given", ["", "yesterday", "16/", "0/1.7421", 7, None, b"0/1", Position(1)])
def test_a_value_that_is_not_a_position_is_refused(given):
    with pytest.raises(InvalidResumeToken):
        read_token(given)


@pytest.mark.parametrize(
    "resume_after", [token(3000), token(4000), token(2000, timeline=2, inside=False), token(999, timeline=1)]
)
def test_a_token_of_this_server_is_its_position(resume_after):
    assert check_position(resume_after, ORIGIN, 4000) == resume_after.position


def test_a_bare_lsn_lies_before_every_change_that_commits_there():
    assert check_position(Lsn(3000), ORIGIN, 4000) == Position(3000)


@pytest.mark.parametrize(
    ("resume_after", "reason"),
    [
        (token(3000, system_id=1), "belongs to cluster 1, but this server is cluster"),
        (token(1001, timeline=1), "not part of this server's history"),
        (token(2001, timeline=2), "not part of this server's history"),
        (token(3000, timeline=4), "not part of this server's history"),
        (token(4001), "beyond the end"),
        (Lsn(4001), "beyond the end"),
    ],
)
def test_a_position_that_this_server_does_not_have_is_refused(resume_after, reason):
    with pytest.raises(InvalidResumeToken, match=reason):
        check_position(resume_after, ORIGIN, 4000)


def test_a_commit_that_would_begin_where_its_timeline_was_left_was_never_part_of_what_came_after():
    with pytest.raises(InvalidResumeToken, match="not part of this server's history"):
        check_position(token(1000, timeline=1), ORIGIN, 4000)


def test_what_is_older_than_what_pgoutput_publishes_is_refused():
    check_published(3000, 3000, "docs")
    with pytest.raises(HistoryLost, match='older than the publication "pgdoc"') as raised:
        check_published(2999, 3000, "docs")
    assert raised.value.oldest_available == str(Lsn(3000))


@pytest.mark.parametrize(
    ("wanted", "plugin", "refusal", "follows_ddl", "says"),
    [
        ("pgoutput", "pgoutput", "", True, "the store asks for it"),
        ("auto", "wal2json", "", True, "the server has and allows wal2json"),
        ("auto", "pgoutput", "the server has no wal2json", True, "the server has no wal2json"),
        ("auto", "pgoutput", "", False, "no event trigger follows DDL, and pgoutput tells tables apart even so"),
        ("auto", "auto", None, True, "none could be tried"),
    ],
)
def test_why_a_plugin_is_read(wanted, plugin, refusal, follows_ddl, says):
    assert plugin_reason(wanted, plugin, refusal, follows_ddl=follows_ddl) == says


def test_a_plugin_that_loses_no_values_is_read_for_that_reason():
    reason = plugin_reason("auto", "pgoutput", "", follows_ddl=True, loses_values=True)
    assert reason == "a watched table has numbers that can be NaN or infinite, which wal2json sends as null"


@pytest.mark.parametrize(
    ("name", "sizes"), [("buffer_size", (0, 1)), ("buffer_bytes", (1, -1)), ("buffer_size", (1.5, 1))]
)
def test_a_buffer_that_could_hold_nothing_is_refused(name, sizes):
    with pytest.raises(ValueError, match=name):
        check_buffer(*sizes)
    check_buffer(1, 1)


def test_a_stream_is_on_names_topics_or_all_collections() -> None:
    assert make_selection((), None, tables=False) == Selection()
    assert make_selection(["*"], None, tables=False) == Selection()
    assert make_selection((), None, tables=False, topics=["a.*"]) == Selection(
        frozenset(), topics=frozenset({"topic:a.*"})
    )
    mixed = make_selection(["orders", "s.t"], None, tables=False, topics=["a"])
    assert mixed == Selection(frozenset({"orders", "s.t"}), topics=frozenset({"topic:a"}))
    everything = make_selection((), None, tables=True, topics=["a"])
    assert everything == Selection(with_tables=True, topics=frozenset({"topic:a"}))
    for names, tables in ((["*", "orders"], False), (["orders"], True)):
        with pytest.raises(ValueError, match="leave out"):
            make_selection(names, None, tables=tables)


@pytest.mark.parametrize("name", [["orders"], 5, None, "no name", "topic:a", "topic:a.b"])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidName):
        make_selection([name], None, tables=False)


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
