from __future__ import annotations

from pgdoc.model.positions import (
    BEFORE_ALL,
    Position,
    before_commits_at,
    commit_lsn_of,
    is_collection_event,
    just_after,
    just_before,
    resume_point,
)

DROP = (100, 90, 0, 0)
ROW = (100, 90, 1, 0)
BETWEEN_TRANSACTIONS = (100, 0, 0, 0)


def test_only_a_message_with_an_lsn_is_a_collection_event():
    assert is_collection_event(DROP)
    assert is_collection_event(Position(*DROP))
    assert not is_collection_event(ROW)
    assert not is_collection_event(BETWEEN_TRANSACTIONS)


def test_no_other_change_lies_between_a_position_and_the_ones_just_before_and_after_it():
    assert just_before(DROP) < DROP < just_after(DROP)
    assert just_before(DROP) > (100, 89, 1, 10**6)
    assert just_after(DROP) < ROW


def test_a_stream_resumes_before_a_collection_event_and_after_everything_else():
    assert resume_point(DROP) == just_before(DROP)
    assert resume_point(ROW) == ROW
    assert resume_point(BETWEEN_TRANSACTIONS) == BETWEEN_TRANSACTIONS


def test_a_commit_lsn_alone_lies_before_every_change_that_commits_there_or_later():
    assert BEFORE_ALL < (99, 90, 1, 10**6) < before_commits_at(100) < just_before(DROP)
    assert before_commits_at(100) == BETWEEN_TRANSACTIONS == Position(100)
    assert commit_lsn_of(ROW) == commit_lsn_of(Position(*ROW)) == 100
