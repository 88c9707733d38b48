from __future__ import annotations

import pytest

from pgdoc.database.slot_losses import HistoryLimits, cure_of_loss, describe_loss
from pgdoc.errors import InvalidResumeToken
from pgdoc.replication.checks import history_lost
from pgdoc.replication.source import Cluster

WAL = "max_slot_wal_keep_size"
IDLE = "idle_replication_slot_timeout"


@pytest.mark.parametrize(
    ("reason", "finding", "cure"),
    [
        (None, "has lost its WAL", WAL),
        ("wal_removed", WAL, WAL),
        ("idle_timeout", IDLE, IDLE),
        ("rows_removed", "removed rows", "hot_standby_feedback"),
        ("wal_level_insufficient", "wal_level", "wal_level"),
    ],
)
def test_each_reason_has_a_finding_and_a_cure(reason: str | None, finding: str, cure: str) -> None:
    assert finding in describe_loss(reason)
    assert cure in cure_of_loss(reason)


def test_a_reason_of_a_later_server_is_shown_as_it_is() -> None:
    assert describe_loss("moon_phase") == "was invalidated (moon_phase)"
    assert cure_of_loss("moon_phase") == ""


@pytest.mark.parametrize(
    ("limits", "ending"),
    [
        (
            HistoryLimits(),
            "(no history is kept): rebuild from the collections, stream from now, and keep more with set_history()",
        ),
        (
            HistoryLimits(wal="1GB"),
            "max_slot_wal_keep_size of 1GB): rebuild from the collections, stream from now, and raise that",
        ),
        (
            HistoryLimits(idle="1min"),
            "of 1min): rebuild from the collections, stream from now, and set idle_replication_slot_timeout to 0",
        ),
        (HistoryLimits("1GB", "1min"), "and raise that and set idle_replication_slot_timeout to 0"),
    ],
)
def test_lost_history_names_the_limits_that_shortened_it(limits: HistoryLimits, ending: str) -> None:
    assert str(history_lost(4096, None, limits)).endswith(ending)


def test_a_token_from_before_an_upgrade_says_so() -> None:
    cluster = Cluster(8, 1, (), 5, "app", former=(7,))
    with pytest.raises(InvalidResumeToken, match="cluster 7, which was upgraded to this cluster, 8"):
        cluster.check((4096, 0, 0, 0), (7, 1, 5))
    with pytest.raises(InvalidResumeToken, match="belongs to cluster 6, but this server is cluster 8"):
        cluster.check((4096, 0, 0, 0), (6, 1, 5))
