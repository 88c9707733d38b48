"""The loops by hand, which show what is out of reach, do what they say."""

from __future__ import annotations

import threading

import pytest

import pgdoc
from bench.load_by_hand import Queue, Row, RowDocument
from bench.snapshot import StreamByHand, use


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
