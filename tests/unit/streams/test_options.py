from __future__ import annotations

from typing import Any

import pytest

from pgdoc.changes.router import Selection
from pgdoc.errors import InvalidName, InvalidResumeToken
from pgdoc.model.positions import Lsn, Position
from pgdoc.model.tokens import ResumeToken
from pgdoc.streams.options import check_buffer, make_selection, read_token
from pgdoc.streams.status import plugin_reason


def test_a_position_can_be_a_token_its_text_or_a_bare_lsn():
    token = ResumeToken(Position(3000, 2992, 1, 0), 7421, 3)
    assert read_token(token) == token
    assert read_token(str(token)) == token
    assert read_token("16/B374D848") == Lsn(0x16_B374_D848)
    assert isinstance(read_token(Lsn(5)), Lsn)


@pytest.mark.parametrize("given", ["", "yesterday", "16/", "0/1.7421", 7, None, b"0/1", Position(1)])
def test_a_value_that_is_not_a_position_is_refused(given):
    with pytest.raises(InvalidResumeToken):
        read_token(given)


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
