"""Which positions a server can still serve."""

from __future__ import annotations

import pytest

from pgdoc.errors import HistoryLost, InvalidResumeToken
from pgdoc.model.positions import Lsn, Position
from pgdoc.model.tokens import ResumeToken
from pgdoc.replication.checks import check_position, check_published
from pgdoc.replication.source import Cluster

ORIGIN = Cluster(7421, 3, ((1, 1000), (2, 2000)))


def token(commit_lsn: int, *, timeline: int = 3, system_id: int = 7421, inside: bool = True) -> ResumeToken:
    position = Position(commit_lsn, commit_lsn - 8, 1, 0) if inside else Position(commit_lsn)
    return ResumeToken(position, system_id, timeline)


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
