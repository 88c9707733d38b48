# Written by .ci/twins.py from tests/integration/_async/test_groups_of_new_logs.py: change that file, and run it.
"""Members of a group go on when the engine has forgotten the log, and a relay has written it anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgdoc import RemoteStream, Store, ConsumerLost, LogRefused, drop_log_group
from pgdoc.relay.partitions import partition_of
from pgdoc.runtime.primitives import call
from tests.integration._sync.relays import fresh_stream
from tests.integration._sync.workers import opened
from tests.made_logs import PARTITIONS, append, fill, message_of

if TYPE_CHECKING:
    from tests.redis_server import RedisServer


def write_anew(
    server: RedisServer, name: str, numbers: range, *, with_records: bool = True, partitions: int = PARTITIONS
) -> None:
    """Replace a log in one step by one with these events, as a relay does after the server has forgotten it."""
    other = fresh_stream()
    made = [message_of(number) for number in numbers]
    made = [each._replace(partition=partition_of(each.document_id, partitions)) for each in made]
    append(f"{server.url}/{other}", made, partitions=partitions)
    with server.client() as client:
        keys = [key.decode() for key in client.scan_iter(f"{{{other}}}:*", count=1000)]
        kept = f"{{{name}}}:records".encode() if with_records else None
        together = client.pipeline(transaction=True)
        for key in client.scan_iter(f"{{{name}}}:*", count=1000):
            if key != kept:
                together.delete(key)
        for key in keys:
            together.rename(key, key.replace(other, name))
        together.execute()


def store_effects(stream: RemoteStream, store: Store, until: int) -> list[int]:
    """Return the numbers of the events whose checkpoints were taken, up to one."""
    stored: list[int] = []
    while until not in stored:
        event = stream.next(timeout=10)
        assert event is not None, stored
        assert event.full_document is not None
        try:
            with store.transaction() as tx:
                stream.checkpoint(event, tx)
        except ConsumerLost:
            continue
        stored.append(event.full_document.data["n"])
    return stored


@pytest.mark.parametrize("with_records", [True, False])
def test_each_event_has_one_effect_though_the_log_is_written_anew(
    shared_dsn: str, schema: str, redis_server: RedisServer, *, with_records: bool
) -> None:
    name = fresh_stream()
    url = f"{redis_server.url}/{name}"
    call(fill, url, range(0, 3000, 100))  # of one document
    with (
        opened(shared_dsn, schema) as store,
        RemoteStream(url, group="billing", start="beginning", store=store, lease=2.0) as stream,
    ):
        stored = store_effects(stream, store, 2900)
        call(lambda: write_anew(redis_server, name, range(2000, 4000, 100), with_records=with_records))
        stored += store_effects(stream, store, 3900)
    assert stored == list(range(0, 4000, 100))


def read_on(stream: RemoteStream) -> set[str | None]:
    """Return the ids of the documents of the events that come, until none comes for a while."""
    found = set()
    while (event := stream.next(timeout=8)) is not None:
        found.add(event.document_id)
    return found


def test_a_group_does_not_read_other_partitions_after_the_positions_of_its_own(redis_server: RedisServer) -> None:
    name = fresh_stream()
    url = f"{redis_server.url}/{name}"
    call(fill, url, range(50))
    with RemoteStream(url, group="billing", start="beginning") as stream:
        assert len([stream.next(timeout=10) for _ in range(25)]) == 25  # some partitions, and some not at all
        call(lambda: write_anew(redis_server, name, range(50), partitions=4))
        with pytest.raises(LogRefused, match="was made anew with 4 partitions, and had 8"):
            read_on(stream)
    with pytest.raises(
        LogRefused, match=r'group "billing" has read this log when that had 8 partitions, and now it has 4'
    ):
        RemoteStream(url, group="billing")
    assert drop_log_group(url, "billing")
    with RemoteStream(url, group="billing", start="beginning") as stream:
        assert len({(stream.next(timeout=10)).document_id for _ in range(50)}) == 50  # type: ignore[union-attr]
