"""`pgdoc groups`, and what it says of logs that it can't read."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from typing import TYPE_CHECKING

import nats
import pytest

import pgdoc
from pgdoc.relay.engines import open_records
from pgdoc.relay.groups.dropping import GroupDropping
from pgdoc.relay.targets import LogTarget
from tests.commands import pgdoc_command
from tests.logs import fresh_log
from tests.made_logs import PARTITIONS, fill, write_records

if TYPE_CHECKING:
    from tests.engines import NatsServer
    from tests.logs import Engine
    from tests.redis_server import RedisServer


def with_group(url: str) -> str:
    """Make a log with a group that has read all but two of its entries."""
    fill(url, range(10))
    with pgdoc.RemoteStream(url, group="billing", start="beginning") as stream:
        for _ in range(10):
            assert stream.next(timeout=20) is not None
        stream.ack()
    fill(url, range(10, 12))
    return url


def test_groups_lists_shows_and_drops_the_groups_of_a_log(engine: Engine) -> None:
    log = ("--from-relay", with_group(engine.url(fresh_log())))
    listed = pgdoc_command("groups", *log)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.split()[:6] == ["group", "members", "partitions", "behind", "rows", "billing"]
    assert listed.stdout.splitlines()[1].split()[:5] == ["billing", "0", "0", "of", str(PARTITIONS)]
    shown = pgdoc_command("groups", *log, "show", "billing").stdout.splitlines()
    assert shown[0].split() == ["partition", "owner", "sequence", "behind"]
    assert [line.split()[:2] for line in shown[1:]] == [[str(number), "no"] for number in range(PARTITIONS)]
    found = json.loads(pgdoc_command("groups", "list", *log, "--json").stdout)
    assert (found["name"], found["members"], found["rows"], found["behind"] > 0) == ("billing", [], None, True)
    assert json.loads(pgdoc_command("groups", "show", "billing", *log, "--json").stdout) == found
    dropped = pgdoc_command("groups", "drop", "billing", *log)
    assert dropped.stdout == "Dropped group billing. Rows that it has in a database stay: name that with --dsn.\n"
    for command in ("show", "drop"):
        unknown = pgdoc_command("groups", command, "billing", *log)
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert unknown.stderr == "pgdoc: the log has no group billing: `pgdoc groups` lists them\n"
    assert json.loads(pgdoc_command("groups", "drop", "billing", *log, "--json").stdout)["dropped"] is False


def test_a_drop_says_whom_it_waits_for_and_until_when(engine: Engine) -> None:
    log = ("--from-relay", with_group(engine.url(fresh_log())))
    write_records(log[1], {"billing.m.a": b'{"beat":7,"lease":0.5,"host":"web1","pid":4711}'})
    dropped = pgdoc_command("groups", "drop", "billing", *log)
    assert dropped.returncode == 0
    assert re.fullmatch(
        r'pgdoc: group "billing" of \S+ is dropped at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d if '
        r"nothing is heard until then of its members \(pid 4711 on web1\)\n",
        dropped.stderr,
    )


def test_a_group_with_a_damaged_record_is_named_beside_the_others(engine: Engine) -> None:
    log = ("--from-relay", with_group(engine.url(fresh_log())))
    write_records(log[1], {"damaged.p.0": b"nonsense"})
    listed = pgdoc_command("groups", *log)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["group", "billing", "damaged"]
    named = "pgdoc: the record p.0 of group damaged is damaged: drop the group, or use another\n"
    assert (listed.returncode, listed.stderr) == (0, named)
    assert pgdoc_command("groups", "show", "damaged", *log).stderr == named
    assert "Dropped group damaged." in pgdoc_command("groups", "drop", "damaged", *log).stdout


def test_groups_drops_the_rows_of_a_group_in_the_database_that_is_named(dsn: str, nats_server: NatsServer) -> None:
    url = with_group(f"{nats_server.url}/{fresh_log()}")
    log = ("--from-relay", url, "--dsn", dsn)
    with pgdoc.Store(dsn) as store, pgdoc.RemoteStream(url, group="billing", store=store) as stream:
        event = stream.next(timeout=20)
        assert event is not None
        with store.transaction() as tx:
            stream.checkpoint(event, tx)
        held = pgdoc_command("groups", *log, "drop", "billing")
        assert held.returncode == 1
        assert "end their processes first" in held.stderr
        owner = f"{pgdoc.log_groups(url)[0].members[0].host} pid"
        assert owner in pgdoc_command("groups", *log, "show", "billing").stdout
    assert json.loads(pgdoc_command("groups", *log, "--json").stdout)["rows"] > 0
    assert pgdoc_command("groups", *log, "drop", "billing").stdout == "Dropped group billing.\n"
    assert pgdoc_command("groups", *log, "list", "--json").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "name the log, such as nats://host/ORDERS"),
        (["--from-relay", "http://127.0.0.1/hook"], 2, "is not a log that can be read"),
        (["--from-relay", "orders"], 2, "no log has the scheme"),
        (["--from-relay", "nats://127.0.0.1:1/X?timeout=1s"], 1, "check that the server runs"),
        (["--from-relay", "redis://127.0.0.1:1/X?timeout=1s"], 1, 'the log "X" of redis://127.0.0.1:1/X: '),
    ],
)
def test_groups_says_what_is_wrong_with_a_url(
    arguments: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGDOC_FROM_RELAY", raising=False)
    ended = pgdoc_command("groups", *arguments)
    assert ended.returncode == code
    assert message in " ".join(ended.stderr.replace("│", " ").split())


def refusal(url: str) -> pgdoc.LogRefused:
    with pytest.raises(pgdoc.LogRefused) as listed:
        pgdoc.log_groups(url)
    with pytest.raises(pgdoc.LogRefused) as dropped:
        pgdoc.drop_log_group(url, "billing")
    assert listed.value.reason == dropped.value.reason
    return listed.value


def test_a_log_that_does_not_exist_has_no_groups_and_gets_none(engine: Engine) -> None:
    url = engine.url(fresh_log())
    assert refusal(url).reason == "missing"
    assert refusal(url).reason == "missing"  # the first call has made nothing


def test_what_is_not_the_log_of_a_relay_is_refused(nats_server: NatsServer, redis_server: RedisServer) -> None:
    name = fresh_log()
    asyncio.run(_make_stream(nats_server.url, name))
    redis_server.ask("HSET", f"{{{name}}}:log", "a", "b")
    for server in (nats_server, redis_server):
        found = refusal(f"{server.url}/{name}")
        assert found.reason == "foreign"
        assert "was not made by pgdoc relay" in str(found)


async def _make_stream(url: str, name: str) -> None:
    client = await nats.connect(url)
    await client.jetstream().add_stream(name=name, subjects=[f"{name}.>"])
    await client.close()


def test_a_group_that_a_member_joins_while_it_is_dropped_stays(engine: Engine) -> None:
    url = with_group(engine.url(fresh_log()))
    with pytest.raises(pgdoc.ConsumerBusy, match="has members"):
        asyncio.run(_drop_while_one_joins(url))
    assert pgdoc.log_groups(url)[0].behind  # it knows yet where it stands


def test_a_group_that_two_calls_drop_at_the_same_time_is_dropped(engine: Engine) -> None:
    url = with_group(engine.url(fresh_log()))
    write_records(url, {"billing.m.a": b'{"lease":1.0}'})
    assert asyncio.run(_drop_twice(url)) == (True, False)
    assert pgdoc.log_groups(url) == []


async def _drop_twice(url: str) -> tuple[bool, bool]:
    one, other = GroupDropping(LogTarget.parse(url), "billing"), GroupDropping(LogTarget.parse(url), "billing")
    try:
        await asyncio.gather(one.open(), other.open())
        return await one.delete(), await other.delete()
    finally:
        await one.close()
        await other.close()


def test_a_drop_that_waits_goes_on_when_another_one_deletes_records(engine: Engine) -> None:
    url = with_group(engine.url(fresh_log()))
    write_records(url, {"billing.m.a": b'{"lease":1.0}'})
    assert asyncio.run(_drop_while_records_vanish(url))
    assert pgdoc.log_groups(url) == []


async def _drop_while_records_vanish(url: str) -> bool:
    dropping = GroupDropping(LogTarget.parse(url), "billing")
    records = open_records(LogTarget.parse(url))
    await records.open()
    try:
        waiting = asyncio.create_task(dropping.open())
        await asyncio.sleep(0.3)  # it has looked once; before that, this would show nothing
        for key, record in (await records.read("billing.p.")).items():
            assert await records.delete(key, record.revision)
        await waiting
        return await dropping.delete()
    finally:
        await dropping.close()
        await records.close()


async def _drop_while_one_joins(url: str) -> None:
    dropping = GroupDropping(LogTarget.parse(url), "billing")
    try:
        await dropping.open()
        await asyncio.to_thread(join, url)
        await dropping.delete()
    finally:
        await dropping.close()


def join(url: str) -> None:
    """Join the group, take its partitions, and leave it."""
    with pgdoc.RemoteStream(url, group="billing"):
        pass


async def test_no_thread_is_left_of_a_drop_that_is_cancelled_twice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"nats://127.0.0.1:{silent.getsockname()[1]}/ORDERS"
        dropping = asyncio.create_task(pgdoc.async_drop_log_group(url, "billing"))
        accepted, _ = await asyncio.to_thread(silent.accept)
        with accepted:
            dropping.cancel()
            await asyncio.sleep(0)
            dropping.cancel()
            await asyncio.wait([dropping])
    assert dropping.cancelled()
    assert not [thread for thread in threading.enumerate() if thread.name == "pgdoc-groups"]


USERS = """
authorization { users: [
  {user: all, password: pw}
  {user: looker, password: pw, permissions: {
    publish: ["$JS.API.STREAM.INFO.S", "$JS.API.STREAM.MSG.GET.S", "$JS.API.STREAM.INFO.S-groups",
      "$JS.API.STREAM.MSG.GET.S-groups"], subscribe: ["_INBOX.>"]}}
  {user: member, password: pw, permissions: {
    publish: ["$JS.API.STREAM.INFO.S", "$JS.API.STREAM.MSG.GET.S", "S-groups.>", "$JS.API.STREAM.*.S-groups",
      "$JS.API.STREAM.MSG.GET.S-groups"], subscribe: ["_INBOX.>"]}}
  {user: nobody, password: pw, permissions: {
    publish: ["$JS.API.STREAM.INFO.S", "$JS.API.STREAM.MSG.GET.S"], subscribe: ["_INBOX.>"]}}
] }
"""


def test_a_user_of_nats_needs_rights_to_list_and_to_drop(private_nats: NatsServer) -> None:
    private_nats.stop()
    private_nats.config = USERS
    private_nats.start()
    names, address = ("all", "looker", "member", "nobody"), f"127.0.0.1:{private_nats.port}/S?timeout=1s"
    urls = {name: f"nats://{name}:pw@{address}" for name in names}
    with_group(urls["all"])
    lacking = refusal(urls["nobody"])
    assert lacking.reason == "rights"
    assert "$js.api.stream.info.s-groups" in str(lacking).lower()
    assert [group.name for group in pgdoc.log_groups(urls["looker"])] == ["billing"]
    with pytest.raises(pgdoc.LogRefused) as refused:
        pgdoc.drop_log_group(urls["looker"], "billing")
    assert refused.value.reason == "rights"
    assert pgdoc.drop_log_group(urls["member"], "billing")


def test_a_user_of_redis_needs_rights_to_list_and_to_drop(private_redis: RedisServer) -> None:
    address, name = f"127.0.0.1:{private_redis.port}", fresh_log()
    with_group(f"redis://{address}/{name}")
    private_redis.ask("ACL", "SETUSER", "nobody", "on", ">pw", f"~{{{name}}}:log", "+@all")
    private_redis.ask(
        "ACL", "SETUSER", "looker", "on", ">pw", f"~{{{name}}}:*", "+@read", "+@connection", "+role", "+eval"
    )
    assert refusal(f"redis://nobody:pw@{address}/{name}").reason == "rights"
    looker = f"redis://looker:pw@{address}/{name}"
    assert [group.name for group in pgdoc.log_groups(looker)] == ["billing"]
    with pytest.raises(pgdoc.LogRefused) as refused:
        pgdoc.drop_log_group(looker, "billing")
    assert refused.value.reason == "rights"
    assert len(pgdoc.log_groups(looker)) == 1
