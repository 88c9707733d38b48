from __future__ import annotations

from pgdoc.changes.assemble import Change, Transaction
from pgdoc.decoding.records import Images, RowChange
from pgdoc.mailbox import Mailbox

_NO_IMAGES = Images({}, {})


def changes(count: int) -> list[Change]:
    row = RowChange(1, "I", "orders", b"x" * 10, complete=True, read=lambda _: _NO_IMAGES)
    return [Change((5, 1, 1, number), Transaction(7, "", None), row) for number in range(count)]


def test_what_is_full_has_room_again_when_half_is_taken() -> None:
    mailbox = Mailbox(4, 1000)
    told: list[str] = []
    assert mailbox.put(changes(6), (9, 0, 0, 0)) == 4
    mailbox.call_when_room(lambda: told.append("room"))
    assert len(mailbox.take(0)) == 4
    assert told == []  # what was taken for the loop counts until the loop comes back
    assert mailbox.take(0) == []
    assert told == ["room"]


def test_bytes_fill_it_too_and_one_change_always_fits() -> None:
    assert Mailbox(100, 25).put(changes(6), (9, 0, 0, 0)) == 2
    assert Mailbox(100, 1).put(changes(6), (9, 0, 0, 0)) == 1


def test_who_waits_for_room_is_told_when_it_is_closed() -> None:
    mailbox = Mailbox(1, 1000)
    told: list[str] = []
    mailbox.put(changes(1), (9, 0, 0, 0))
    mailbox.call_when_room(lambda: told.append("room"))
    mailbox.close()
    assert told == ["room"]


def test_it_has_reached_nothing_while_it_holds_something() -> None:
    mailbox = Mailbox(10, 1000)
    mailbox.put([], (8, 0, 0, 0))
    assert mailbox.reached == (8, 0, 0, 0)
    mailbox.put(changes(1), (9, 0, 0, 0))
    assert mailbox.reached == (0, 0, 0, 0)
    mailbox.take(0)
    assert mailbox.reached == (0, 0, 0, 0)
    assert mailbox.take(0) == []
    assert mailbox.reached == (9, 0, 0, 0)
    mailbox.put(changes(1), (9, 1, 1, 0))
    mailbox.close()
    assert mailbox.reached == (0, 0, 0, 0)
