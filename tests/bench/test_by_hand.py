"""The loops by hand, which show what is out of reach, do what they say."""

from __future__ import annotations

import threading

import pytest

import pgdoc
from bench import ceiling, hub
from bench.counted import changes_of
from bench.load_by_hand import Queue, Row, RowDocument
from bench.reading_by_contract import READERS
from bench.snapshot import StreamByHand, use
from pgdoc.errors import PluginMissing, ServerNotFound
from pgdoc.server.installation import find_installation


def row(document_id: str, data: str) -> bytes:
    """Return a row in COPY's text format, which doubles each backslash."""
    return "\t".join([document_id, data.replace("\\", "\\\\"), "1", "2026-11-30", "2026-11-30"]).encode()


def test_a_snapshot_by_hand_has_the_documents_that_no_change_has_replaced():
    stream = StreamByHand(iter([row("a", '{"number": 1}'), row("b", "{}"), row("c", '{"number": "q\\""}')]))
    stream.replaced.add("b")

    events = [next(stream), next(stream)]

    assert [use(event) for event in events] == ["a", "c"]
    assert [event.full_document.data["number"] for event in events] == [1, 'q"']
    assert (stream.last, stream.delivered, events[1].number) == (events[1], 2, 2)
    with pytest.raises(StopIteration):
        next(stream)


def test_a_snapshot_by_hand_reads_long_numbers_exactly_and_names_what_it_can_not_read():
    stream = StreamByHand(iter([row("a", f'{{"number": {2**64}}}'), row("b", "{")]))

    assert next(stream).full_document.data == {"number": 2**64}
    with pytest.raises(pgdoc.UnreadableDocument, match="'b'"):
        _ = next(stream).full_document.data


def test_a_thread_by_hand_gets_every_row_in_order_and_ends():
    queue = Queue()
    got: list[Row] = []
    thread = threading.Thread(target=lambda: got.extend(queue))
    thread.start()
    rows = [Row(str(number), RowDocument({})) for number in range(1_000)]

    for at in range(0, len(rows), 10):
        queue.put(rows[at : at + 10])
    queue.end()
    thread.join(20)

    assert got == rows


def test_a_stream_by_hand_hands_every_change_over_in_order_although_its_queue_is_small(monkeypatch):
    monkeypatch.setattr(ceiling, "MOST_CHANGES", 10)
    changes = changes_of("wal2json", 400)
    stream = ceiling.StreamByHand("wal2json")
    bursts = [changes[at : at + 7] for at in range(0, len(changes), 7)]

    def put_all() -> None:
        for burst in bursts:
            stream.put(burst)

    thread = threading.Thread(target=put_all)
    thread.start()

    got = [next(stream).document_id for _ in changes]
    thread.join(20)

    assert got == [f"d-{n:06}" for n in range(400)]
    assert (stream.delivered, stream.last) == (400, changes[-1].position)


def test_each_step_of_the_hub_is_timed(monkeypatch, capsys):
    monkeypatch.setattr(hub, "CHANGES", 100)
    monkeypatch.setattr("sys.argv", ["hub", "1"])
    assert hub.main() == 0
    printed = capsys.readouterr().out
    assert printed.count("decode") == printed.count("assemble") == 2


def test_one_thread_and_two_read_the_whole_backlog_by_hand(monkeypatch, capsys):
    try:
        find_installation(plugin="wal2json")
    except (ServerNotFound, PluginMissing) as error:
        pytest.skip(str(error))
    monkeypatch.setattr("sys.argv", ["ceiling", "1", "--changes", "400"])
    assert ceiling.main() == 0
    printed = capsys.readouterr().out
    for plugin in READERS:
        assert f"{plugin}: the walsender of pg_recvlogical takes" in printed
    counts = [printed.count(each) for each in ("in one thread", "as the contract says", "in pgdoc's stream")]
    assert counts == [4, 6, 4]
