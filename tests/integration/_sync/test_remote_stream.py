# Written by .ci/twins.py from tests/integration/_async/test_remote_stream.py: change that file, and run it.
"""Streams of a log in JetStream: the face of a change stream, its tokens and its errors."""

from __future__ import annotations

import gc
import os
import threading
from typing import TYPE_CHECKING

import pytest

from pgdoc import (
    Relay,
    RemoteStream,
    HistoryLost,
    InvalidFilter,
    InvalidInput,
    InvalidResumeToken,
    LogRefused,
    LogUnreachable,
    Lsn,
    NotAConsumer,
    StreamClosed,
    StreamError,
    WaitTimeout,
)
from pgdoc.runtime.primitives import call
from tests.engines import free_port
from tests.integration._sync.relays import fresh_stream, relaying, until
from tests.integration._sync.workers import fresh_name, opened
from tests.made_logs import append, delete, fill, forget, message_of, token_of

if TYPE_CHECKING:
    from pgdoc import ChangeEvent
    from tests.engines import NatsServer


def numbers(events: list[ChangeEvent]) -> list[int]:
    return [event.full_document.data["n"] for event in events if event.full_document is not None]


def read(stream: RemoteStream, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        batch = stream.next_batch(count - len(found), timeout=20)
        assert batch, f"only {len(found)} of {count} events came"
        found += numbers(batch)
    return found


def test_a_token_of_a_watch_resumes_the_log_and_one_of_the_log_resumes_a_watch(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url, consumer = f"{nats_server.url}/{fresh_stream()}", fresh_name()
    with opened(shared_dsn, schema) as store, store.watch("orders") as watched:
        relay = Relay(store, consumer, url, "orders", partitions=4)
        with relaying(relay):
            until(lambda: relay.status().state == "relaying")
            store["orders"].insert_many([(f"o-{n}", {"n": n}) for n in range(20)])
            until(lambda: relay.status().stored == 20)
        direct = [event for _ in range(20) if (event := watched.next(timeout=20)) is not None]
        with RemoteStream(url, start="beginning") as stream:
            events = [event for _ in range(20) if (event := stream.next(timeout=20)) is not None]
            assert events == direct
            assert stream.resume_token == direct[-1].resume_token
        with RemoteStream(url, resume_after=direct[4].resume_token) as stream:
            assert stream.next(timeout=20) == direct[5]
        with store.watch("orders", resume_after=events[9].resume_token) as resumed:
            assert resumed.next(timeout=20) == direct[10]


def test_now_is_the_end_of_the_log_when_the_stream_opens(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    call(fill, url, range(5))
    with RemoteStream(url) as stream:
        assert str(stream.resume_token) == token_of(4)
        assert stream.try_next() is None
        call(fill, url, range(5, 8))
        assert read(stream, 3) == [5, 6, 7]


def test_a_bare_lsn_resumes_with_the_transactions_that_commit_there_or_later(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    call(fill, url, range(50))
    with RemoteStream(url, resume_after=str(Lsn(1000 + 10 * 30))) as stream:
        assert read(stream, 20) == list(range(30, 50))


def test_a_stream_of_some_collections_passes_over_the_others(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    call(append, url, [message_of(n, "orders" if n % 3 == 0 else "carts") for n in range(31)])
    with RemoteStream(url, "orders", start="beginning") as stream:
        assert read(stream, 11) == list(range(0, 31, 3))
        call(fill, url, range(31, 40), "carts")
        until(lambda: stream.stats().buffered == 1)  # it only advances the token
        assert stream.next(timeout=0) is None
        assert str(stream.resume_token) == token_of(39)


def test_a_filter_leaves_events_out_and_the_token_passes_them(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    call(fill, url, range(40))
    where = {"full_document.data.n": {"$gte": 10, "$lt": 20}}
    with RemoteStream(url, where=where, start="beginning") as stream:
        assert read(stream, 10) == list(range(10, 20))
        assert stream.next(timeout=0.5) is None
        assert str(stream.resume_token) == token_of(39)
        assert stream.stats().delivered == 10


def test_parts_of_large_events_are_put_together_also_around_the_place_of_a_token(
    nats_server: NatsServer,
) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    pad = "x" * 3_000_000
    call(append, url, [message_of(0), message_of(1, pad=pad), message_of(2), message_of(3, pad=pad)])
    with RemoteStream(url, start="beginning", buffer_size=2) as stream:
        assert read(stream, 4) == [0, 1, 2, 3]
    with RemoteStream(url, resume_after=token_of(1)) as stream:
        assert read(stream, 2) == [2, 3]
    with RemoteStream(url, resume_after=token_of(0)) as stream:
        event = stream.next(timeout=20)
        assert event is not None
        assert event.full_document is not None
        assert event.full_document.data["pad"] == pad
    call(forget, url, 4)  # inside the first large event
    with RemoteStream(url, start="beginning") as stream:
        assert read(stream, 2) == [2, 3]


def test_entries_that_the_log_has_forgotten_are_lost_history(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    call(fill, url, range(50))
    call(forget, url, 21)  # the oldest entry is of event 20
    with pytest.raises(HistoryLost, match="has forgotten") as lost:
        RemoteStream(url, resume_after=token_of(10))
    assert lost.value.oldest_available == str(Lsn(1000 + 10 * 20))
    with pytest.raises(HistoryLost):  # whether something followed the token is not known
        RemoteStream(url, resume_after=token_of(18))
    with RemoteStream(url, resume_after=token_of(20)) as stream:
        assert read(stream, 29) == list(range(21, 50))


def test_a_token_from_before_the_log_began_is_lost_history(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    call(lambda: append(url, [message_of(9)], begun_at=f"0/{1000 + 80:X}.5.1.6"))
    with pytest.raises(HistoryLost, match="begins at"):
        RemoteStream(url, resume_after=token_of(5))
    with RemoteStream(url, resume_after=token_of(8)) as stream:
        assert read(stream, 1) == [9]


@pytest.mark.parametrize("names", [(), ("orders",)], ids=["all", "one collection"])
def test_entries_that_are_forgotten_while_a_stream_is_slow_end_it(
    nats_server: NatsServer, names: tuple[str, ...]
) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    call(fill, url, range(20_000))
    with RemoteStream(url, *names, start="beginning", buffer_size=10) as stream:
        until(lambda: stream.stats().buffered > 0)
        call(forget, url, 19_000)
        with pytest.raises(HistoryLost, match="has forgotten"):
            read(stream, 20_000)
        assert stream.closed


def test_tokens_of_other_clusters_and_databases_are_refused(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    call(fill, url, range(3))
    with pytest.raises(InvalidResumeToken, match="cluster"):
        RemoteStream(url, resume_after=token_of(1).replace(".5.1.6", ".7.1.6"))
    with pytest.raises(InvalidResumeToken, match="another database"):
        RemoteStream(url, resume_after=token_of(1).replace(".5.1.6", ".5.1.7"))


def test_wrong_arguments_are_refused_at_once(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    with pytest.raises(InvalidInput, match="no log has the scheme"):
        RemoteStream("ftp://host/x")
    with pytest.raises(InvalidInput, match="start must be"):
        RemoteStream(url, start="never")
    with pytest.raises(InvalidInput, match="leave out start"):
        RemoteStream(url, start="beginning", resume_after=token_of(1))
    with pytest.raises(InvalidResumeToken):
        RemoteStream(url, resume_after="rubbish")
    with pytest.raises(InvalidFilter):
        RemoteStream(url, where={"nothing": 1})
    with pytest.raises(InvalidInput, match="has no option"):
        RemoteStream(f"{url}?wrong=1")


def test_a_log_that_does_not_exist_or_has_another_format_is_refused(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    with pytest.raises(LogRefused, match="does not exist") as refused:
        RemoteStream(url)
    assert refused.value.reason == "missing"
    call(lambda: append(url, [message_of(0)], format="debezium"))
    with pytest.raises(LogRefused, match="debezium") as refused:
        RemoteStream(url)
    assert refused.value.reason == "format"


def test_an_engine_that_does_not_answer_is_unreachable() -> None:
    with pytest.raises(LogUnreachable):
        RemoteStream(f"nats://127.0.0.1:{free_port()}/ORDERS?timeout=1s")


def test_a_stream_goes_on_when_the_engine_was_away(private_nats: NatsServer) -> None:
    url = f"{private_nats.url}/ORDERS"
    call(fill, url, range(1000))
    with RemoteStream(url, start="beginning", buffer_size=50) as stream:
        assert read(stream, 10) == list(range(10))
        call(private_nats.kill)
        call(private_nats.start)
        call(fill, url, range(1000, 1100))
        assert read(stream, 1090) == list(range(10, 1100))


def test_a_log_that_is_made_again_is_read_on_by_the_token(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    call(fill, url, range(10))
    with RemoteStream(url, start="beginning") as stream:
        assert read(stream, 10) == list(range(10))
        call(delete, url)
        call(fill, url, range(5, 20))  # it begins anew, before the token
        last = stream.resume_token
    with RemoteStream(url, resume_after=last) as stream:
        assert read(stream, 10) == list(range(10, 20))


def test_a_stream_whose_log_was_put_back_to_an_older_copy_repeats_nothing(private_nats: NatsServer) -> None:
    url = f"{private_nats.url}/ORDERS"
    call(fill, url, range(6))
    with RemoteStream(url, start="beginning") as stream:
        assert read(stream, 6) == list(range(6))
        call(delete, url)
        call(fill, url, range(4))  # the older copy
        call(private_nats.stop)
        call(private_nats.start)
        call(fill, url, range(4, 8))  # the relay writes the same events again
        assert read(stream, 2) == [6, 7]


def test_ack_and_checkpoint_need_a_group(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    call(fill, url, range(1))
    with RemoteStream(url, start="beginning") as stream:
        with pytest.raises(NotAConsumer, match="group"):
            stream.ack()


def test_waiting_for_an_lsn_ends_with_an_event_from_there_or_later(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    call(fill, url, range(3))
    with RemoteStream(url, start="beginning") as stream:
        read(stream, 3)
        stream.wait_for(Lsn(1020), timeout=0)
        with pytest.raises(WaitTimeout, match="no later event"):
            stream.wait_for(Lsn(1021), timeout=0)


def test_a_closed_stream_delivers_nothing_and_keeps_its_token(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    call(fill, url, range(10))
    stream = RemoteStream(url, start="beginning")
    with stream:
        assert numbers([event for event in [stream.next(timeout=20)] if event]) == [0]
    assert stream.closed
    assert stream.stats().mode == "closed"
    with pytest.raises(StreamClosed):
        stream.next()
    assert [event for event in stream] == []
    assert str(stream.resume_token) == token_of(0)


def test_nothing_is_left_of_a_stream_that_is_closed_or_dropped(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    call(fill, url, range(10))

    def readers() -> list[str]:
        gc.collect()
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("pgdoc-read")]

    with RemoteStream(url, start="beginning") as stream:
        stream.next(timeout=20)
        assert readers()
    assert not readers()
    stream = RemoteStream(url, start="beginning")
    stream.next(timeout=20)
    del stream
    until(lambda: not readers())


def test_a_forked_child_is_refused_and_leaves_the_stream_of_its_parent_alone(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    call(fill, url, range(10))
    with RemoteStream(url, start="beginning") as stream:
        assert stream.next(timeout=20) is not None
        pid = os.fork()
        if not pid:
            try:
                stream._delivery.next_event()
                stream._inbox.refill()
            except StreamError:
                os._exit(7)
            finally:
                os._exit(1)
        _, status = call(os.waitpid, pid, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        call(fill, url, range(10, 20))
        assert (read(stream, 19))[-1] == 19
