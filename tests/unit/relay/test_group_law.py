"""The law of groups, against a model of an engine and of PostgreSQL, with members that die, pause and come.

Whatever happens, the effects of each partition are those of its events, once and in order; no two members may deliver
events of a partition at a time; a position never goes back; and once the faults end, the partitions are shared out.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, rule

from pgdoc.errors import LogUnreachable
from pgdoc.relay.finding import LogPosition
from pgdoc.relay.groups.lease import PartitionLease
from pgdoc.relay.groups.membership import GroupMembership
from pgdoc.relay.log import GroupRecord

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, TypeVar

    from pgdoc.relay.groups.partition import OwnedPartition

    T = TypeVar("T")

LEASE_S = 10.0
PARTITIONS = 5
SEEDS = st.integers(0, 1 << 30)


class World:
    """The clock, and the records of the engine."""

    def __init__(self) -> None:
        self.now = 100.0
        self.dice = random.Random(0)
        self.longest_pause_s = 0.0
        self.records: dict[str, GroupRecord] = {}
        self.revision = 0
        self.members: list[Member] = []

    async def wait(self) -> None:
        """Let others go on, perhaps for long, and time pass."""
        turns = 200 if self.longest_pause_s and self.dice.random() < 0.02 else self.dice.randrange(3)
        for _ in range(turns):
            await asyncio.sleep(0)
        if self.dice.random() < 0.1:
            self.now += self.dice.uniform(0, self.longest_pause_s)
        self.check()

    def check(self) -> None:
        """No two members may deliver events of one partition."""
        for number in range(PARTITIONS):
            assert sum(each.may_deliver(number) is not None for each in self.members) <= 1


class ModelRecords:
    """See `LogRecords`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def open(self, *, creates: bool = True) -> bool:
        """Do nothing."""
        return creates

    async def close(self) -> None:
        """Do nothing."""

    async def read(self, prefix: str) -> dict[str, GroupRecord]:
        found = {}
        for key in [key for key in self._world.records if key.startswith(prefix)]:
            await self._world.wait()  # they are read one after the other
            if key in self._world.records:
                found[key] = self._world.records[key]
        await self._world.wait()
        return found

    async def write(self, key: str, value: bytes, revision: int) -> int | None:
        world = self._world
        await world.wait()
        before = world.records.get(key, GroupRecord(b"", 0))
        written = None
        if before.revision == revision:
            if ".p." in key and before.revision:
                assert (
                    PartitionLease.parse(GroupRecord(value, 0), key).position
                    >= PartitionLease.parse(before, key).position
                )
            world.revision += 1
            written = world.revision
            world.records[key] = GroupRecord(value, written)
        await world.wait()
        return written

    async def delete(self, key: str, revision: int) -> bool:
        world = self._world
        await world.wait()
        if key not in world.records or world.records[key].revision != revision:
            return False
        del world.records[key]
        return True


class Member:
    """A member, and what it does with the events."""

    def __init__(self, world: World, table: dict[int, tuple[int, int]]) -> None:
        self.world, self.table = world, table
        self.membership = GroupMembership(
            ModelRecords(world),
            "g",
            lease_s=LEASE_S,
            taken=lambda _: None,
            dropped=lambda _: None,
            clock=lambda: world.now,
        )

    def may_deliver(self, number: int) -> OwnedPartition | None:
        """Return a partition whose events the stream would deliver now."""
        found = self.membership.owned.get(number)
        is_valid = self.world.now < self.membership.valid_until
        return found if found is not None and is_valid and not found.is_dropped else None


class Groups(RuleBasedStateMachine):
    """Members of one group."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.table: dict[int, tuple[int, int]] = {}  # in PostgreSQL, by partition: the epoch and the sequence
        self.effects: dict[int, list[int]] = {number: [] for number in range(PARTITIONS)}
        self.members = self.world.members
        self.held: list[tuple[Member, OwnedPartition, int]] = []  # delivered, and their transaction is not over

    def do(self, *steps: Coroutine[Any, Any, Any]) -> None:
        async def together() -> None:
            await asyncio.gather(*steps)

        asyncio.run(together())

    @rule(seed=SEEDS)
    def join(self, seed: int) -> None:
        if len(self.members) < 4:
            self.world.dice.seed(seed)
            member = Member(self.world, self.table)
            self.members.append(member)
            self.do(member.membership.open(PARTITIONS, LogPosition(0, "", "log")))

    @rule(seed=SEEDS, pause_s=st.sampled_from([0.0, 1.0, 3.0, 15.0]), choice=st.integers(1, 15))
    def beat(self, seed: int, pause_s: float, choice: int) -> None:
        self.world.dice.seed(seed)
        self.world.longest_pause_s = pause_s
        chosen = [each for number, each in enumerate(self.members) if choice >> number & 1]
        self.do(*(self._beats(each) for each in chosen))

    async def _beats(self, member: Member) -> None:
        for _ in range(self.world.dice.randrange(1, 6)):
            await member.membership.beat()
            self.world.now += self.world.dice.uniform(0, 1.5)
            self.world.check()

    @rule(seed=SEEDS, choice=st.integers(1, 15))
    def store(self, seed: int, choice: int) -> None:
        self.world.dice.seed(seed)
        self.world.longest_pause_s = 0.0
        chosen = [each for number, each in enumerate(self.members) if choice >> number & 1]
        self.do(*(each.membership.store() for each in chosen))

    @rule(seconds=st.sampled_from([0.5, 2.0, 4.0, 9.0, 11.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(number=st.integers(0, 3), partition=st.integers(0, PARTITIONS - 1), waits=st.booleans())
    def deliver(self, number: int, partition: int, *, waits: bool) -> None:
        if number >= len(self.members):
            return
        member = self.members[number]
        owned = member.may_deliver(partition)
        if owned is None:
            return
        self.world.check()
        if not owned.is_claimed and not self._claim(owned):
            return
        if any(held[1] is owned for held in self.held):
            return
        owned.delivered = max(owned.delivered, self.table[partition][1]) + 1
        self.held.append((member, owned, owned.delivered))
        if not waits:
            self._finish(len(self.held) - 1)

    def _claim(self, owned: OwnedPartition) -> bool:
        epoch, sequence = self.table.get(owned.number, (0, 0))
        if epoch > owned.epoch:
            owned.lose()
            return False
        self.table[owned.number] = owned.epoch, sequence
        owned.delivered = max(owned.delivered, sequence)
        owned.is_claimed = True
        return True

    @rule(index=st.integers(0, 5))
    def finish(self, index: int) -> None:
        if index < len(self.held):
            self._finish(index)

    def _finish(self, index: int) -> None:
        """Commit an event's effect with its checkpoint, or roll both back."""
        _, owned, sequence = self.held.pop(index)
        epoch, stored = self.table[owned.number]
        if epoch == owned.epoch and stored < sequence:
            self.table[owned.number] = epoch, sequence
            self.effects[owned.number].append(sequence)
        owned.checkpointed = sequence
        if not owned.is_lost:
            owned.acknowledged = LogPosition(sequence, "", "log")

    @rule(number=st.integers(0, 3))
    def die(self, number: int) -> None:
        if number < len(self.members):
            member = self.members.pop(number)
            self.held = [each for each in self.held if each[0] is not member]

    @rule(number=st.integers(0, 3), seed=SEEDS)
    def close(self, number: int, seed: int) -> None:
        if number < len(self.members):
            self.world.dice.seed(seed)
            self.world.longest_pause_s = 0.0
            member = self.members.pop(number)
            self.held = [each for each in self.held if each[0] is not member]
            self.do(member.membership.close())

    def teardown(self) -> None:
        for sequences in self.effects.values():
            assert sequences == list(range(1, len(sequences) + 1))
        while self.held:
            self._finish(0)
        if not self.members:
            return
        self.world.longest_pause_s = 0.0
        for _ in range(25):
            self.world.now += LEASE_S / 4
            for member in self.members:
                self.do(member.membership.beat())
                self.do(member.membership.store())
        shares = [[number for number in range(PARTITIONS) if each.may_deliver(number)] for each in self.members]
        assert sorted(number for share in shares for number in share) == list(range(PARTITIONS))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        recorded = {key.rpartition(".")[2] for key in self.world.records if ".m." in key}
        assert recorded == {each.membership.member for each in self.members}  # those that are gone are forgotten


Groups.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestGroups = Groups.TestCase


class CutRecords(ModelRecords):
    """Records whose writes come through, and whose answers do not while `is_cut`."""

    is_cut = False

    async def write(self, key: str, value: bytes, revision: int) -> int | None:
        written = await super().write(key, value, revision)
        if self.is_cut:
            raise LogUnreachable("the answer is lost")
        return written


def test_a_member_that_leaves_gives_all_up_also_if_the_answers_to_its_last_writes_were_lost() -> None:
    async def run() -> None:
        world = World()
        member = Member(world, {})
        records = member.membership._records = CutRecords(world)
        await member.membership.open(2, LogPosition(0, "", "log"))
        await member.membership.beat()
        member.membership.owned[1].acknowledged = LogPosition(1, "", "log")
        records.is_cut = True
        for write in (member.membership.beat, member.membership.store):
            with pytest.raises(LogUnreachable):
                await write()
        records.is_cut = False
        await member.membership.close()
        left = {key.partition(".")[2]: record for key, record in world.records.items()}
        assert sorted(left) == ["begun", "p.0", "p.1"]
        leases = [PartitionLease.parse(left[key], key) for key in ("p.0", "p.1")]
        assert [(each.owner, each.position.sequence) for each in leases] == [("", 0), ("", 1)]

    asyncio.run(run())


class InterruptedRecords(ModelRecords):
    """Records whose reader is overtaken before it writes the record of a partition."""

    def __init__(self, world: World, interrupt: Member) -> None:
        super().__init__(world)
        self._interrupt = interrupt

    async def write(self, key: str, value: bytes, revision: int) -> int | None:
        if ".p." in key:
            await self._interrupt.membership.beat()
        return await super().write(key, value, revision)


def test_a_member_that_comes_back_keeps_another_from_taking_what_it_saw_free_before() -> None:
    async def run() -> None:
        world = World()
        first, second = Member(world, {}), Member(world, {})
        first.membership.member, second.membership.member = "a", "b"
        second.membership._records = InterruptedRecords(world, first)
        for member in (first, second):
            world.members.append(member)
            await member.membership.open(1, LogPosition(0, "", "log"))
        await first.membership.beat()
        await second.membership.beat()
        assert first.may_deliver(0)
        world.now += LEASE_S + 1
        await second.membership.beat()  # it has found the first one gone when that comes back
        assert first.may_deliver(0)
        world.check()

    asyncio.run(run())


def position_of(world: World) -> int:
    record = world.records["g.p.0"]
    return PartitionLease.parse(record, "p.0").position.sequence


async def acknowledge(member: Member, sequence: int) -> None:
    member.membership.owned[0].acknowledged = LogPosition(sequence, "", "log")
    await member.membership.store()


async def go_on(world: World, *members: Member) -> None:
    """Let members run for two leases."""
    for _ in range(8):
        world.now += LEASE_S / 4
        for member in members:
            await member.membership.beat()
            await member.membership.store()
        world.check()


def test_positions_move_again_after_the_engine_has_lost_its_last_writes() -> None:
    async def run() -> None:
        world = World()
        member = Member(world, {})
        world.members.append(member)
        await member.membership.open(1, LogPosition(0, "", "log"))
        await member.membership.beat()
        await acknowledge(member, 1)
        kept, revision = dict(world.records), world.revision
        for sequence in (2, 3):
            await acknowledge(member, sequence)
        world.records, world.revision = dict(kept), revision
        owned = member.membership.owned[0]
        await go_on(world, member)
        assert member.may_deliver(0) is owned  # it delivers nothing again
        assert position_of(world) == 3
        world.records, world.revision = dict(kept), revision
        await acknowledge(member, 4)
        await member.membership.close()
        assert position_of(world) == 4

    asyncio.run(run())


def test_one_member_has_a_partition_after_the_engine_has_forgotten_who_took_it_last() -> None:
    async def run() -> None:
        world = World()
        first, second, third = (Member(world, {}) for _ in range(3))
        second.membership.member, third.membership.member = "a", "b"  # the second one keeps the partition
        await first.membership.open(1, LogPosition(0, "", "log"))
        await first.membership.beat()
        await first.membership.close()
        kept = dict(world.records), world.revision
        await second.membership.open(1, LogPosition(0, "", "log"))
        await second.membership.beat()
        for sequence in range(1, 9):
            await acknowledge(second, sequence)
        assert second.may_deliver(0)
        world.records, world.revision = kept
        await third.membership.open(1, LogPosition(0, "", "log"))
        await third.membership.beat()
        assert third.may_deliver(0)
        for _ in range(2):
            await second.membership.beat()
        world.members += [second, third]
        await go_on(world, third, second)

    asyncio.run(run())


class AbsentRecords(ModelRecords):
    """Records of an engine that is away for a while."""

    def __init__(self, world: World, times: int) -> None:
        super().__init__(world)
        self.times = times

    async def open(self, *, creates: bool = True) -> bool:
        return await self._answer(creates)

    async def read(self, prefix: str) -> dict[str, GroupRecord]:
        return await self._answer(await super().read(prefix))

    async def _answer(self, found: T) -> T:
        self.times -= 1
        if self.times > 0:
            raise LogUnreachable("the engine is away")
        return found


def test_an_outage_of_the_engine_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.relay.groups.membership._LONGEST_DELAY_S", 0.001)
    monkeypatch.setattr("pgdoc.relay.groups.membership._FIRST_DELAY_S", 0.001)

    async def run() -> None:
        world = World()
        member = Member(world, {})
        await member.membership.open(1, LogPosition(0, "", "log"))
        records = member.membership._records = AbsentRecords(world, 10)
        taken = asyncio.Event()
        member.membership._taken = lambda _: taken.set()
        running = asyncio.create_task(member.membership.run(lambda exc: pytest.fail(str(exc))))
        await taken.wait()
        assert records.times < 0
        member.membership.stop()
        await running

    asyncio.run(run())
    assert [record.getMessage() for record in caplog.records] == [
        "the records of a group are out of reach, trying again: the engine is away"
    ]


class SlowRecords(ModelRecords):
    """Records of an engine of which each answer takes 50 ms of the world's clock."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []

    async def _answer(self) -> None:
        answered = asyncio.get_running_loop().create_future()
        self._waiting.append((self._world.now + 0.05, len(self._waiting), answered))
        await answered

    async def read(self, prefix: str) -> dict[str, GroupRecord]:
        await self._answer()
        return {key: record for key, record in self._world.records.items() if key.startswith(prefix)}

    async def write(self, key: str, value: bytes, revision: int) -> int | None:
        await self._answer()
        return await super().write(key, value, revision)

    async def serve(self, step: Coroutine[Any, Any, Any]) -> None:
        """Let time pass whenever a step waits, until it is over."""
        running = asyncio.ensure_future(step)
        while not running.done():
            for _ in range(20):
                await asyncio.sleep(0)
            if self._waiting:
                self._world.now = max(self._world.now, min(self._waiting)[0])
                due = [each for each in self._waiting if each[0] <= self._world.now]
                self._waiting = [each for each in self._waiting if each not in due]
                for _, _, answered in due:
                    answered.set_result(None)
        await running


def test_a_member_of_a_distant_engine_delivers_the_events_of_many_partitions() -> None:
    async def run() -> None:
        world = World()
        member = Member(world, {})
        records = member.membership._records = SlowRecords(world)
        await records.serve(member.membership.open(1024, LogPosition(0, "", "log")))
        for number in range(3):
            await records.serve(member.membership.beat())
            assert all(member.may_deliver(each) for each in range(1024))
            for owned in member.membership.owned.values():
                owned.acknowledged = LogPosition(number + 1, "", "log")
            await records.serve(member.membership.store())
            assert all(member.may_deliver(each) for each in range(1024))
        await records.serve(member.membership.close())
        assert sorted(world.records) == sorted(["g.begun", *(f"g.p.{each}" for each in range(1024))])

    asyncio.run(run())
