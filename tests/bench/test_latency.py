"""The times of `bench.latency` count from the right moments."""

from __future__ import annotations

from bench.harness import Commit
from bench.latency import WARM_UP, latencies

US = 1_000  # nanoseconds


def test_a_latency_counts_from_sending_the_write_and_from_the_return_of_its_commit():
    commits = [Commit(sent=n * 10_000 * US, returned=n * 10_000 * US + 400 * US) for n in range(WARM_UP + 101)]
    late = [60] * 100 + [900]
    seen = [commit.returned + after * US for commit, after in zip(commits, [5_000] * WARM_UP + late, strict=True)]

    found = latencies(seen, commits)

    assert (found.since_sent, found.after_commit, found.commit) == (460, 60, 400)
    assert 60 < found.after_commit_99 <= 900


def test_an_event_can_be_there_before_its_writer_knows_of_the_commit():
    commits = [Commit(sent=0, returned=400 * US)] * (WARM_UP + 3)

    found = latencies([390 * US] * len(commits), commits)

    assert (found.since_sent, found.after_commit) == (390, -10)
