"""The times of `bench.latency` count from the right moments."""

from __future__ import annotations

import pytest

from bench import alternatives
from bench.harness import Commit
from bench.latency import WARM_UP, latencies

US = 1_000  # nanoseconds


def test_a_latency_counts_from_sending_the_write_and_from_the_return_of_its_commit():
    commits = [Commit(sent=n * 10_000 * US, returned=n * 10_000 * US + 400 * US) for n in range(WARM_UP + 300)]
    late = [60] * 296 + [100, 500, 800, 900]  # the third from the end is just above 99%
    seen = [commit.returned + after * US for commit, after in zip(commits, [5_000] * WARM_UP + late, strict=True)]

    found = latencies(seen, commits)

    assert (found.since_sent, found.after_commit, found.commit) == (460, 60, 400)
    assert found.after_commit_99 == pytest.approx(0.01 * 100 + 0.99 * 500)


def test_an_event_can_be_there_before_its_writer_knows_of_the_commit():
    commits = [Commit(sent=0, returned=400 * US)] * (WARM_UP + 3)

    found = latencies([390 * US] * len(commits), commits)

    assert (found.since_sent, found.after_commit) == (390, -10)


def test_a_document_for_mongodb_is_the_one_that_postgresql_makes():
    # SELECT bench.document(7, 200)
    lines = [
        {"sku": "a514839c4971406ff865a3f340e4ea36", "count": 1},
        {"sku": "6ab5dbc886d46770a86e6cc0be54a9d1", "count": 2},
    ]
    assert alternatives.document(7) == {"n": 7, "total": 8.75, "status": "new", "lines": lines}
