from __future__ import annotations

import os

from pgdoc.runtime.census import OTHER, Census


class Thing:
    """Something that an entry belongs to."""


class Counted:
    def __init__(self, name: str, number: float = 0) -> None:
        self.name, self.number, self.is_open = name, number, True

    def counts(self):
        yield ("events", (self.name,)), self.number

    def gauges(self):
        if self.is_open:
            yield ("buffered", (self.name,)), 1

    def goes_on_in_child(self):
        self.number = 0
        return self.name == "pool"


def test_counts_stay_when_the_owner_is_freed_and_gauges_do_not():
    census, owner, entry = Census(), Thing(), Counted("orders", 3)
    census.enter(owner, entry)
    entry.number = 5
    assert census.counts() == {("events", ("orders",)): 5}
    assert census.gauges() == [(("buffered", ("orders",)), 1)]
    del owner
    assert census.counts() == {("events", ("orders",)): 5}
    assert census.gauges() == []


def test_counts_of_the_same_labels_are_added_up_and_never_fall():
    census, seen = Census(), []
    for number in range(20):
        owner = Thing()
        census.enter(owner, Counted("orders", number))
        seen.append(census.counts()["events", ("orders",)])
    assert seen == sorted(seen)
    assert seen[-1] == sum(range(20))


def test_what_has_ended_takes_no_memory_although_nobody_asks():
    census = Census()
    for _ in range(1000):
        census.enter(Thing(), Counted("orders", 1))
    assert len(census._open) <= 1
    assert census.counts() == {("events", ("orders",)): 1000}


def test_what_happens_is_counted():
    census = Census()
    census.add(("reconnects", ("app", "live")))
    census.add(("reconnects", ("app", "live")))
    assert census.counts() == {("reconnects", ("app", "live")): 2}


def test_only_so_many_labels_are_kept_apart():
    census = Census()
    found = {census.bounded("source", (f"tenant{number}", "docs"), (OTHER, OTHER)) for number in range(1000)}
    assert len(found) == 101
    assert (OTHER, OTHER) in found
    assert census.bounded("source", ("tenant5", "docs"), (OTHER, OTHER)) == ("tenant5", "docs")


def test_a_child_process_begins_with_what_it_can_use_and_counts_anew():
    census, owner, pool = Census(), Thing(), Thing()
    census.enter(owner, Counted("orders", 3))
    census.enter(pool, Counted("pool", 3))
    child = os.fork()
    if child == 0:
        is_new = census.counts() == {("events", ("pool",)): 0} and census.gauges() == [(("buffered", ("pool",)), 1)]
        del owner, pool  # the end of the first belongs to the parent
        os._exit(0 if is_new and census.counts() == {("events", ("pool",)): 0} and not census.gauges() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert census.counts() == {("events", ("orders",)): 3, ("events", ("pool",)): 3}
