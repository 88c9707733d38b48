"""A checkpoint is confirmed once the standbys have its commit."""

from __future__ import annotations

from pgdoc.consumers.acknowledgements import ConsumerProgress
from pgdoc.consumers.claims import Checkpoint


def found(at: int, inserted: int, standbys_have: int | None) -> Checkpoint:
    return Checkpoint((at, 1, 1, 0), None, inserted, standbys_have)


def test_without_a_standby_each_checkpoint_counts_at_once() -> None:
    progress = ConsumerProgress()
    assert progress.await_standbys(found(10, 100, None)) == found(10, 100, None)


def test_a_checkpoint_waits_for_the_standbys_even_if_later_ones_follow_all_the_time() -> None:
    progress = ConsumerProgress()
    assert progress.await_standbys(found(10, 100, 90)) is None
    assert progress.await_standbys(found(20, 200, 99)) is None
    assert progress.await_standbys(found(30, 300, 150)) == found(10, 100, 90)
    assert progress.await_standbys(found(40, 400, 299)) is None
    assert progress.await_standbys(found(50, 500, 300)) == found(30, 300, 150)
    assert progress.await_standbys(found(50, 600, 700)) == found(50, 500, 300)


def test_a_checkpoint_that_a_promoted_server_may_lack_is_forgotten() -> None:
    progress = ConsumerProgress()
    assert progress.await_standbys(found(10, 100, 90)) is None
    progress.forget_awaited()
    assert progress.await_standbys(Checkpoint((0, 0, 0, 0), None, 50, None)) is None


def test_a_new_owner_confirms_nothing_before_the_standbys_have_the_stored_position() -> None:
    progress = ConsumerProgress()
    progress.watermark = 50
    progress.hold(20, 100)
    assert progress.confirmable() == 20
    progress.await_standbys(Checkpoint((0, 0, 0, 0), None, 120, 99))
    assert progress.confirmable() == 20
    progress.await_standbys(Checkpoint((0, 0, 0, 0), None, 130, 100))
    assert progress.confirmable() == 50
