"""The ring of recent entries: whatever it forgets, a reader misses nothing and gets nothing twice."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pgdoc.model.tokens import ResumeToken, token_at
from pgdoc.web.entries import ChangesEntry, SourceEntry
from pgdoc.web.messages import server_sent
from pgdoc.web.ring import LiveRing, Ring, StreamRing

IDS = (7, 1, 16384)


def place(number: int, ids: tuple[int, int, int | None] = IDS) -> ResumeToken:
    return token_at((number, number, 0, 0), ids)


class Numbered(SourceEntry):
    def __init__(self, number: int, size: int = 10) -> None:
        super().__init__(place(number))
        self.number, self._size = number, size

    def _render(self) -> bytes:
        return b"x" * self._size


def ring(*numbers: int, start: int = 0, keep: int = 100, keep_bytes: int = 1000) -> Ring:
    made = StreamRing(place(start), keep, keep_bytes)
    for number in numbers:
        made.extend([Numbered(number)], place(number))
    return made


@given(st.data())
def test_a_reader_gets_every_entry_after_its_token_once_or_is_told_to_leave(data: st.DataObject) -> None:
    made = StreamRing(place(0), data.draw(st.integers(1, 5)), data.draw(st.integers(10, 60)))
    last, written = 0, [0]
    token = data.draw(st.integers(0, 60))
    begun, number = token, None
    got: list[int] = []
    for _ in range(data.draw(st.integers(1, 30))):
        batch = []
        for _ in range(data.draw(st.integers(0, 4))):
            last += data.draw(st.integers(1, 3))
            batch.append(Numbered(last, data.draw(st.integers(1, 20))))
        last += data.draw(st.integers(0, 2))
        made.extend(batch, place(last))
        written += [entry.number for entry in batch]
        if number is None:
            number = made.number_after(place(token))
            assert (number is None) <= (token > last or token < last)
            if number is None:
                continue
        if data.draw(st.booleans()):
            entries: Any = made.read(number, data.draw(st.integers(1, 4)))
            if entries is None:
                number, token = None, got[-1] if got else token
                continue
            got += [entry.number for entry in entries]
            number += len(entries)
    if got:
        assert got == [each for each in written if begun < each <= got[-1]]


def test_a_token_between_two_entries_resumes_with_the_second() -> None:
    made = ring(10, 20, 30)
    assert [made.number_after(place(number)) for number in (0, 5, 10, 15, 29, 30)] == [0, 0, 1, 1, 2, 3]
    assert made.number_after(place(31)) is None
    assert made.is_behind(place(31))


def test_what_it_has_forgotten_can_not_be_resumed() -> None:
    made = ring(10, 20, 30, keep=2)
    assert made.number_after(place(9)) is None
    assert made.number_after(place(10)) == 1
    assert made.read(0, 5) is None
    assert len(made.read(1, 5) or ()) == 2


def test_one_entry_always_fits() -> None:
    made = ring(10, 20, keep_bytes=1)
    assert len(made.read(1, 5) or ()) == 1


def test_a_token_of_another_history_does_not_resume() -> None:
    made = ring(10, 20)
    for ids in [(8, 1, 16384), (7, 2, 16384), (7, 1, 5), (7, 1, None)]:
        assert made.number_after(place(15, ids)) is None
        assert not made.is_behind(place(25, ids))


def test_a_live_query_resumes_only_where_its_list_held() -> None:
    made = LiveRing(place(0), 100, 1000)
    made.extend([ChangesEntry([], place(5), place(10))], place(12))
    made.extend([ChangesEntry([], place(15), place(20))], place(20))
    found = {number: made.number_after(place(number)) for number in (0, 5, 7, 10, 12, 15, 16, 20)}
    assert found == {0: 0, 5: 0, 7: None, 10: 1, 12: 1, 15: 1, 16: None, 20: 2}


def test_only_what_several_readers_share_keeps_its_text() -> None:
    alone, shared = Numbered(1, 10_000), Numbered(2, 10_000)
    StreamRing(place(0), 100, 1 << 20).extend([shared], place(2))
    assert shared.text(server_sent) is shared.text(server_sent)
    assert alone.text(server_sent) is not alone.text(server_sent)
