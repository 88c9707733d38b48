from __future__ import annotations

import base64
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgdoc.errors import InvalidResumeToken
from pgdoc.model.positions import Lsn, Position
from pgdoc.model.tokens import Mark, ResumeToken, SnapshotProgress, SnapshotStage, parse_snapshot

lsns = st.integers(0, 2**64 - 1)
change_positions = st.builds(Position, lsns, st.integers(1, 2**64 - 1), st.integers(0, 1), st.integers(0, 10**9 - 1))
positions = lsns.map(Position) | change_positions
tokens = st.builds(
    ResumeToken,
    positions,
    st.integers(0, 2**64 - 1),
    st.integers(1, 2**32 - 1),
    database_oid=st.none() | st.integers(1, 2**32 - 1),
)


@given(lsns)
def test_an_lsn_parses_its_own_text(value):
    assert Lsn.parse(str(Lsn(value))) == value


def test_the_text_of_an_lsn_is_that_of_postgresql():
    assert str(Lsn(0x16_B374_D848)) == "16/B374D848"
    assert str(Lsn(0x1_0000_000A)) == "1/A"
    assert repr(Lsn(10)) == "Lsn('0/A')"
    assert Lsn.parse("16/b374d848") == 0x16_B374_D848


@given(tokens)
def test_a_token_parses_its_own_text(token):
    parsed = ResumeToken.parse(str(token))
    assert (parsed, parsed.database_oid) == (token, token.database_oid)


@given(tokens)
def test_a_token_starts_with_its_lsn_and_ends_in_cluster_timeline_and_database(token):
    text = str(token)
    assert text.startswith(f"{token.lsn}.")
    database = "" if token.database_oid is None else f".{token.database_oid}"
    assert text.endswith(f".{token.system_id}.{token.timeline}{database}")
    assert len(text) < 110


def test_a_token_is_short_text():
    assert str(ResumeToken(Position(0x16B374D848, 0x16B374D000, 1, 2), 7421, 1)) == "16/B374D848.16/B374D000.1.2.7421.1"
    assert str(ResumeToken(Position(0x16B374D848), 7421, 1)) == "16/B374D848.7421.1"
    assert str(ResumeToken(Position(0x16B374D848), 7421, 1, None, 16384)) == "16/B374D848.7421.1.16384"


def test_a_token_of_an_earlier_version_is_the_same_place_as_the_one_that_names_the_database():
    earlier, later = ResumeToken.parse("1/A.1/9.1.0.7421.1"), ResumeToken.parse("1/A.1/9.1.0.7421.1.16384")
    assert (earlier.database_oid, later.database_oid) == (None, 16384)
    assert earlier == later
    assert not earlier < later
    assert hash(earlier) == hash(later)


near = st.integers(0, 2)
near_tokens = st.builds(ResumeToken, st.builds(Position, near, near, near, near), st.just(1), st.just(1))


@given(near_tokens, near_tokens)
def test_tokens_compare_as_their_positions(one, other):
    assert (one < other) == (one.position < other.position)
    assert (one <= other) == (one.position <= other.position)
    assert (one > other) == (one.position > other.position)


@given(change_positions)
def test_a_bare_commit_lsn_lies_before_every_change_that_commits_there(position):
    assert Position(position.commit_lsn) < position < Position(position.commit_lsn + 1)


def test_a_token_compares_with_tokens_only():
    with pytest.raises(TypeError):
        _ = ResumeToken(Position(1), 1, 1) < Position(2)


@st.composite
def nearly_tokens(draw: st.DrawFn) -> str:
    text = str(draw(tokens))
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.text(alphabet="/.0123456789ABCDEFabcdefx-+_ \n\u0660", max_size=3)) + text[at + 1 :]


@given(st.text() | nearly_tokens())
@example("")
@example("16/B374D848")
@example("16/B374D848.7421.1\n")
@example("0/1.0/1.2.0.1.1")
@example("0/1.0/0.1.0.1.1")
def test_text_that_is_not_a_token_is_refused(text):
    try:
        token = ResumeToken.parse(text)
    except InvalidResumeToken:
        return
    assert ResumeToken.parse(str(token)) == token


@pytest.mark.parametrize("text", ["16/B374D848", "16/B374D848.7421.1\n", "0/1.0/1.2.0.1.1", "0/1.0/1.1.1", "", None, 7])
def test_the_error_shows_the_text(text):
    with pytest.raises(InvalidResumeToken) as raised:
        ResumeToken.parse(text)
    assert repr(text) in str(raised.value)


@pytest.mark.parametrize("text", ["", "0", "/", "0/", "G/1", "000000001/1", "0/1 ", "0/-1", "0x1/1"])
def test_text_that_is_not_an_lsn_is_refused(text):
    with pytest.raises(InvalidResumeToken, match="is not an LSN"):
        Lsn.parse(text)


@pytest.mark.parametrize("snapshot", [*SnapshotStage, SnapshotProgress(("orders", "users"), "ö", "digest", 7)])
def test_a_mark_s_snapshot_reads_back_what_is_stored(snapshot):
    assert parse_snapshot(Mark((1, 0, 0, 0), snapshot).text) == snapshot


def test_a_consumer_without_a_snapshot_stores_null_and_one_that_has_yet_to_begin_stores_an_empty_text():
    assert Mark((1, 0, 0, 0), SnapshotStage.NONE).text is None
    assert Mark((1, 0, 0, 0), SnapshotStage.START).text == ""


def test_stored_snapshot_progress_that_is_damaged_is_refused():
    with pytest.raises(ValueError, match="decompressing data"):
        parse_snapshot("damaged")


@pytest.mark.parametrize(
    "progress",
    [
        b"[" * 500_000,
        rb'[["orders"],"\ud800","*",1]',
        b'[["orders"],"o-1","*",10000000000000000000000]',
        b'[["orders"],"o-1","*",9223372036854775807]',
        b'[["orders"],"o-1","*",-1]',
        b'[["orders"],"o-1","*",true]',
    ],
)
def test_progress_that_no_stream_has_written_is_refused(progress):
    """A browser sends its token: each one that parses must have a text, after more documents, too."""
    text = base64.urlsafe_b64encode(zlib.compress(progress, 9)).decode().rstrip("=")
    with pytest.raises(InvalidResumeToken, match="damaged"):
        ResumeToken.parse(f"0/1000000.s{text}.1.1.1")
