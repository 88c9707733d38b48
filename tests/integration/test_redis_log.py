"""The log in Redis: what its writer does when the server, or somebody else, does something else."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc.errors import InvalidInput, LogFull, LogRefused, LogUnreachable
from pgdoc.relay.messages import MessagePart
from pgdoc.relay.redis.writer import RedisWriter
from pgdoc.relay.targets import LogTarget
from tests.engines import free_port
from tests.logs import CONFIG, PARTITIONS, check_exact, fresh_log, messages
from tests.proxy import Proxy
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pgdoc.relay.log import LogEnd


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[RedisWriter]:
    writer = RedisWriter(LogTarget.parse(url))
    try:
        yield writer
    finally:
        await writer.close()


async def opened(writer: RedisWriter) -> LogEnd:
    """Open the log again until the server takes it."""
    for _ in range(100):
        try:
            return await writer.open(CONFIG)
        except LogUnreachable:
            await asyncio.sleep(0.1)
    raise AssertionError("the log did not open")


async def refusal(url: str, **changes: Any) -> LogRefused:
    async with writing(url) as writer:
        with pytest.raises(LogRefused) as refused:
            await writer.open(replace(CONFIG, **changes))
    return refused.value


async def test_a_log_ends_where_the_last_window_ended(redis_server: RedisServer) -> None:
    name = fresh_log()
    async with writing(f"{redis_server.url}/{name}") as writer:
        made = await writer.open(CONFIG)
        assert made[:3] == (0, None, None)
        assert [*await asyncio.gather(writer.send(messages(1, 30)), writer.send(messages(31, 60)))] == [30, 60]
        assert (await writer.open(CONFIG))[:4] == (60, messages(60, 60)[0].token, None, made.identity)
        assert await writer.send(messages(61, 70)) == 70
    found = redis_server.entries(name)
    check_exact(found, 70)
    assert [fields["token"] for _, fields, _ in found] == [message.token for message in messages(1, 70)]


async def test_each_entry_names_the_one_before_it_in_its_stream(redis_server: RedisServer) -> None:
    name = fresh_log()
    async with writing(f"{redis_server.url}/{name}") as writer:
        await writer.open(CONFIG)
        await writer.send(messages(1, 33))
        await writer.open(CONFIG)
        await writer.send(messages(34, 60))
    last: dict[str, int] = {}
    for sequence, fields, _ in redis_server.entries(name):
        assert int(fields["previous"]) == last.get(fields["stream"], 0)
        last[fields["stream"]] = sequence
    assert set(last) == {"all", *map(str, range(PARTITIONS))} & set(last)
    assert len(last) > 2


async def test_of_two_relays_only_one_appends_a_window(redis_server: RedisServer) -> None:
    name = fresh_log()
    url = f"{redis_server.url}/{name}"
    async with writing(url) as one, writing(url) as other:
        await one.open(CONFIG)
        await other.open(CONFIG)
        await one.send(messages(1, 10))
        with pytest.raises(LogUnreachable, match="another one writes"):
            await other.send(messages(1, 12))
        assert (await other.open(CONFIG)).sequence == 10
        await other.send(messages(11, 12))
    check_exact(redis_server.entries(name), 12)


async def test_a_snapshot_is_appended_only_by_the_relay_that_opened_the_log_last(redis_server: RedisServer) -> None:
    name = fresh_log()
    url = f"{redis_server.url}/{name}"
    inside = [each._replace(token=f"0/{n:X}.sAAAA.7.1") for n, each in enumerate(messages(1, 6), 100)]
    async with writing(url) as former, writing(url) as successor:
        await former.open(CONFIG)
        await former.send(inside[:2])
        assert (await successor.open(CONFIG)).sequence == 2
        with pytest.raises(LogUnreachable, match="opened by another relay"):
            await former.send(inside[2:4])
        await successor.send(inside[2:4])
        assert (await former.open(CONFIG)).sequence == 4
        await successor.send(messages(5, 6))  # after the snapshot, it does not matter which
    assert [body for _, _, body in redis_server.entries(name)] == [each.body for each in messages(1, 6)]


async def test_the_end_inside_an_event_of_a_snapshot_names_the_event_before(redis_server: RedisServer) -> None:
    async with writing(f"{redis_server.url}/{fresh_log()}") as writer:
        await writer.open(CONFIG)
        first, large = "0/64.sAAAA.7.1", "0/64.sBBBB.7.1"
        one = messages(1, 1)[0]
        await writer.send([one._replace(token=first)])
        await writer.send([one._replace(token=large, part=MessagePart(number, 3)) for number in (1, 2)])
        end = await writer.open(CONFIG)
        assert (end.sequence, end.token, end.part, end.before) == (3, large, MessagePart(2, 3), first)
        await writer.send(
            [one._replace(token=large, part=MessagePart(3, 3)), messages(2, 2)[0]._replace(part=MessagePart(1, 2))]
        )
        assert (await writer.open(CONFIG)).before is None


async def test_a_log_that_went_back_does_not_have_what_it_acknowledged(redis_server: RedisServer) -> None:
    name = fresh_log()
    async with writing(f"{redis_server.url}/{name}") as writer:
        await writer.open(CONFIG)
        await writer.send(messages(1, 10))
        await writer.check(10)
        redis_server.ask("HSET", f"{{{name}}}:log", "sequence", "9")
        with pytest.raises(LogUnreachable, match="ends at sequence 9"):
            await writer.check(10)
        redis_server.ask("DEL", f"{{{name}}}:log")
        with pytest.raises(LogUnreachable, match="deleted"):
            await writer.check(0)


async def test_what_a_script_that_failed_midway_has_appended_is_not_appended_again(redis_server: RedisServer) -> None:
    name = fresh_log()
    async with writing(f"{redis_server.url}/{name}") as writer:
        await writer.open(CONFIG)
        await writer.send(messages(1, 9))
        window = [*messages(11, 12), *messages(10, 10)]  # number 10 belongs to all partitions: the first of its stream
        redis_server.ask("SET", f"{{{name}}}:all", "in the way")
        with pytest.raises(LogRefused, match="WRONGTYPE"):
            await writer.send(window)
        redis_server.ask("DEL", f"{{{name}}}:all")
        end = await writer.open(CONFIG)
        assert (end.sequence, end.token) == (11, window[1].token)
        await writer.send(window[2:])
    found = redis_server.entries(name)
    assert [body for _, _, body in found] == [message.body for message in [*messages(1, 9), *window]]
    by_stream = [(fields["stream"], int(fields["previous"]), sequence) for sequence, fields, _ in found]
    for at, (stream, previous, _) in enumerate(by_stream):
        assert previous == max((other for name, _, other in by_stream[:at] if name == stream), default=0)


async def test_a_full_server_takes_more_once_it_has_room(private_redis: RedisServer) -> None:
    name = fresh_log()
    async with writing(f"{private_redis.url}/{name}") as writer:
        await writer.open(CONFIG)
        await writer.send(messages(1, 10))
        private_redis.ask("CONFIG", "SET", "maxmemory", "1kb")
        with pytest.raises(LogFull, match="make room"):
            await writer.send(messages(11, 20))
        with pytest.raises(LogFull):
            await writer.open(CONFIG)
        private_redis.ask("CONFIG", "SET", "maxmemory", "0")
        assert (await writer.open(CONFIG)).sequence == 10
        await writer.send(messages(11, 20))
    check_exact(private_redis.entries(name), 20)


async def test_a_server_that_can_not_save_is_full(private_redis: RedisServer, tmp_path_factory: Any) -> None:
    name, folder = fresh_log(), tmp_path_factory.mktemp("gone")
    private_redis.ask("CONFIG", "SET", "appendonly", "no")
    private_redis.ask("CONFIG", "SET", "save", "3600 1")
    private_redis.ask("CONFIG", "SET", "dir", str(folder))
    async with writing(f"{private_redis.url}/{name}") as writer:
        await writer.open(CONFIG)
        folder.rmdir()
        private_redis.ask("BGSAVE")
        private_redis.wait_until(lambda: b"rdb_last_bgsave_status:err" in _info(private_redis, "persistence"))
        with pytest.raises(LogFull, match="persist"):
            await writer.send(messages(1, 1))


def _info(server: RedisServer, section: str) -> bytes:
    with server.client() as client:
        client.response_callbacks.clear()
        found: bytes = client.execute_command("INFO", section)
    return found


async def test_a_replica_is_waited_for_until_it_is_promoted(
    private_redis: RedisServer, second_redis: RedisServer
) -> None:
    name = fresh_log()
    second_redis.ask("REPLICAOF", "127.0.0.1", str(private_redis.port))
    second_redis.wait_until(lambda: b"master_link_status:up" in _info(second_redis, "replication"))
    both = f"redis://127.0.0.1:{private_redis.port},127.0.0.1:{second_redis.port}/{name}?wait_replicas=1"
    async with writing(both) as writer:
        made = await writer.open(CONFIG)
        await writer.send(messages(1, 10))
        async with writing(f"{second_redis.url}/{name}") as other:
            with pytest.raises(LogUnreachable, match="replica"):
                await other.open(CONFIG)
        private_redis.kill()
        with pytest.raises(LogUnreachable):
            await writer.send(messages(11, 20))
        second_redis.ask("REPLICAOF", "NO", "ONE")
    async with writing(f"redis://127.0.0.1:{private_redis.port},127.0.0.1:{second_redis.port}/{name}") as writer:
        end = await opened(writer)
        assert (end.sequence, end.identity) == (10, made.identity)
        await writer.send(messages(11, 20))
    check_exact(second_redis.entries(name), 20)


async def test_a_window_that_too_few_replicas_have_is_not_acknowledged(redis_server: RedisServer) -> None:
    async with writing(f"{redis_server.url}/{fresh_log()}?wait_replicas=1&timeout=100ms") as writer:
        with pytest.raises(LogUnreachable, match="0 of 1 replicas"):
            await writer.open(CONFIG)


async def test_a_server_that_is_demoted_is_waited_for(private_redis: RedisServer, second_redis: RedisServer) -> None:
    async with writing(f"{private_redis.url}/{fresh_log()}") as writer:
        await writer.open(CONFIG)
        private_redis.ask("REPLICAOF", "127.0.0.1", str(second_redis.port))
        with pytest.raises(LogUnreachable):
            await writer.send(messages(1, 10))


async def test_a_server_that_was_killed_has_all_that_it_acknowledged(private_redis: RedisServer) -> None:
    name = fresh_log()
    async with writing(f"{private_redis.url}/{name}") as writer:
        made = await writer.open(CONFIG)
        assert writer.confirm_after_s == 0
        await writer.send(messages(1, 500))
        private_redis.kill()
        with pytest.raises(LogUnreachable):
            await writer.send(messages(501, 510))
        private_redis.start()
        assert (await opened(writer))[:4] == (500, messages(500, 500)[0].token, None, made.identity)
        await writer.send(messages(501, 510))
    check_exact(private_redis.entries(name), 510)


async def test_a_server_that_forgot_all_has_another_log(private_redis: RedisServer) -> None:
    private_redis.ask("CONFIG", "SET", "appendonly", "no")
    name = fresh_log()
    async with writing(f"{private_redis.url}/{name}?confirm_after=0s") as writer:
        made = await writer.open(CONFIG)
        await writer.send(messages(1, 10))
        private_redis.ask("FLUSHALL")
        with pytest.raises(LogUnreachable, match="deleted or made anew"):
            await writer.send(messages(11, 12))
        end = await writer.open(CONFIG)
        assert end.sequence == 0
        assert end.identity != made.identity


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({"appendfsync": "everysec"}, 2),
        ({"appendfsync": "no"}, 60),
        ({"appendonly": "no", "save": "300 100 3600 1"}, 3660),
    ],
)
async def test_what_may_not_be_on_disk_yet_is_not_confirmed(
    private_redis: RedisServer, settings: dict[str, str], seconds: int
) -> None:
    for setting, value in settings.items():
        private_redis.ask("CONFIG", "SET", setting, value)
    async with writing(f"{private_redis.url}/{fresh_log()}") as writer:
        await writer.open(CONFIG)
        assert writer.confirm_after_s == seconds
    async with writing(f"{private_redis.url}/{fresh_log()}?confirm_after=7s") as writer:
        await writer.open(CONFIG)
        assert writer.confirm_after_s == 7


async def test_a_server_that_keeps_nothing_on_disk_is_refused(private_redis: RedisServer) -> None:
    private_redis.ask("CONFIG", "SET", "appendonly", "no")
    error = await refusal(f"{private_redis.url}/{fresh_log()}")
    assert (error.reason, "survive a restart" in str(error)) == ("config", True)


async def test_a_server_that_may_evict_the_log_is_refused(private_redis: RedisServer) -> None:
    private_redis.ask("CONFIG", "SET", "maxmemory", "100mb")
    private_redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    error = await refusal(f"{private_redis.url}/{fresh_log()}")
    assert (error.reason, "allkeys-lru" in str(error)) == ("config", True)
    private_redis.ask("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    async with writing(f"{private_redis.url}/{fresh_log()}") as writer:
        await writer.open(CONFIG)


async def test_a_log_of_another_relay_is_refused(redis_server: RedisServer) -> None:
    url = f"{redis_server.url}/{fresh_log()}"
    async with writing(url) as writer:
        await writer.open(CONFIG)
    assert (await refusal(url, system_id=8)).reason == "other_relay"
    assert (await refusal(url, partitions=8)).reason == "config"


async def test_keys_that_no_relay_made_are_refused(redis_server: RedisServer) -> None:
    name = fresh_log()
    redis_server.ask("XADD", f"{{{name}}}:2", "*", "a", "b")
    assert (await refusal(f"{redis_server.url}/{name}")).reason == "foreign"
    name = fresh_log()
    redis_server.ask("SET", f"{{{name}}}:log", "text")
    assert (await refusal(f"{redis_server.url}/{name}")).reason == "foreign"


async def test_an_entry_that_no_relay_wrote_is_refused(redis_server: RedisServer) -> None:
    name = fresh_log()
    async with writing(f"{redis_server.url}/{name}") as writer:
        await writer.open(CONFIG)
        redis_server.ask("XADD", f"{{{name}}}:2", "*", "a", "b")
    error = await refusal(f"{redis_server.url}/{name}")
    assert (error.reason, f"{{{name}}}:2" in str(error)) == ("foreign", True)


async def test_a_window_of_large_messages_is_sent_in_several_scripts(redis_server: RedisServer) -> None:
    name = fresh_log()
    async with writing(f"{redis_server.url}/{name}") as writer:
        await writer.open(CONFIG)
        assert writer.limit == 8 << 20
        await writer.send(messages(1, 12, size=7 << 20))
    check_exact(redis_server.entries(name), 12, size=7 << 20)
    redis_server.ask("FLUSHALL")


async def test_a_log_keeps_the_limit_that_it_began_with(redis_server: RedisServer) -> None:
    name = fresh_log()
    for option, limit in (("?max_message=64k", 65536), ("", 65536)):
        async with writing(f"{redis_server.url}/{name}{option}") as writer:
            await writer.open(CONFIG)
            assert writer.limit == limit


async def test_a_part_of_an_event_can_be_the_end_of_a_log(redis_server: RedisServer) -> None:
    name = fresh_log()
    async with writing(f"{redis_server.url}/{name}") as writer:
        await writer.open(CONFIG)
        await writer.send([messages(1, 1)[0]._replace(part=MessagePart(1, 3), traceparent="00-ab-cd-01")])
        assert (await writer.open(CONFIG)).part == (1, 3)
    ((_, fields, _),) = redis_server.entries(name)
    assert (fields["part"], fields["traceparent"]) == ("1/3", "00-ab-cd-01")


async def test_a_log_is_trimmed_to_its_length_and_keeps_its_end(redis_server: RedisServer) -> None:
    name = fresh_log()
    async with writing(f"{redis_server.url}/{name}?max_len=100") as writer:
        await writer.open(CONFIG)
        for first in range(1, 1000, 50):
            await writer.send(messages(first, first + 49))
        check_exact(redis_server.entries(name), 1000, first=901)
        for stream in ("all", *range(PARTITIONS)):
            redis_server.ask("XTRIM", f"{{{name}}}:{stream}", "MAXLEN", "0")
        assert (await writer.open(CONFIG))[:2] == (1000, messages(1000, 1000)[0].token)
        await writer.send(messages(1001, 1002))
    check_exact(redis_server.entries(name), 1002, first=1001)


async def test_a_log_forgets_entries_by_their_age(redis_server: RedisServer) -> None:
    name = fresh_log()
    async with writing(f"{redis_server.url}/{name}?max_age=1s") as writer:
        await writer.open(CONFIG)
        await writer.send(messages(1, 10))
        at = 10
        while redis_server.entries(name)[0][0] == 1:
            assert at < 1000
            await asyncio.sleep(0.1)
            await writer.send(messages(at + 1, at + 1))
            at += 1
    assert redis_server.entries(name)[0][0] >= 11
    assert redis_server.entries(name)[-1][0] == at


async def test_a_log_forgets_entries_by_their_age_after_the_clock_of_the_server_was_ahead(
    redis_server: RedisServer,
) -> None:
    name = fresh_log()
    async with writing(f"{redis_server.url}/{name}?max_age=1s") as writer:
        await writer.open(CONFIG)
        await writer.send(messages(1, 10))
        redis_server.ask("RPUSH", f"{{{name}}}:marks", f"{int(time.time()) + 86_400}:10")
        at = 10
        while redis_server.entries(name)[0][0] <= 15:
            assert at < 60
            await asyncio.sleep(0.1)
            await writer.send(messages(at + 1, at + 1))
            at += 1
    assert redis_server.entries(name)[-1][0] == at


async def test_a_connection_that_is_cut_loses_and_doubles_nothing(redis_server: RedisServer) -> None:
    name, count = fresh_log(), 4000
    with Proxy("127.0.0.1", redis_server.port) as proxy:
        async with writing(f"redis://127.0.0.1:{proxy.port}/{name}") as writer:
            cuts = 0
            at = (await writer.open(CONFIG)).sequence
            while at < count:
                windows = [writer.send(messages(n + 1, n + 100)) for n in range(at, min(at + 400, count), 100)]
                sent = [asyncio.ensure_future(window) for window in windows]
                if cuts < 10:
                    await sent[cuts % 2]
                    await asyncio.to_thread(proxy.cut)
                    cuts += 1
                await asyncio.gather(*sent, return_exceptions=True)
                at = (await opened(writer)).sequence
    check_exact(redis_server.entries(name), count)


async def test_a_server_that_hangs_is_waited_for(private_redis: RedisServer) -> None:
    name = fresh_log()
    async with writing(f"{private_redis.url}/{name}?ack_wait=300ms") as writer:
        await writer.open(CONFIG)
        private_redis.send(signal.SIGSTOP)
        with pytest.raises(LogUnreachable, match="has not answered"):
            await writer.send(messages(1, 10))
        private_redis.send(signal.SIGCONT)
        while (end := await opened(writer)).sequence < 20:
            with suppress(LogUnreachable):  # it can have had the window, and run its script only now
                await writer.send(messages(end.sequence + 1, 20))
    check_exact(private_redis.entries(name), 20)


async def test_a_server_that_hangs_does_not_hold_a_window_that_fills_its_buffers(private_redis: RedisServer) -> None:
    name = fresh_log()
    async with writing(f"{private_redis.url}/{name}?ack_wait=300ms") as writer:
        await writer.open(CONFIG)
        private_redis.send(signal.SIGSTOP)
        try:
            with pytest.raises(LogUnreachable):
                await asyncio.wait_for(writer.send(messages(1, 10, size=7 << 20)), 30)
        finally:
            private_redis.send(signal.SIGCONT)
    async with writing(f"{private_redis.url}/{name}") as patient:
        while (end := await opened(patient)).sequence < 10:
            with suppress(LogUnreachable):  # the server can have had a whole script, and run it only now
                await patient.send(messages(end.sequence + 1, 10, size=7 << 20))
    check_exact(private_redis.entries(name), 10, size=7 << 20)


async def test_a_user_needs_a_password_and_rights(private_redis: RedisServer) -> None:
    name = fresh_log()
    private_redis.ask("ACL", "SETUSER", "relay", "on", ">se/cret", f"~{{{name}}}:*", "+@all")
    private_redis.ask("ACL", "SETUSER", "other", "on", ">se/cret", "~other:*", "+@all")
    host = f"127.0.0.1:{private_redis.port}/{name}"
    async with writing(f"redis://relay:se%2Fcret@{host}") as writer:
        await writer.open(CONFIG)
    error = await refusal(f"redis://relay:wrong@{host}")
    assert (error.reason, "wrong" in str(error)) == ("credentials", False)
    assert (await refusal(f"redis://other:se%2Fcret@{host}")).reason == "rights"


async def test_a_log_can_be_in_another_database_and_reached_by_a_socket(private_redis: RedisServer) -> None:
    name = fresh_log()
    async with writing(f"redis://localhost/{name}?socket={private_redis.socket}&db=3") as writer:
        await writer.open(CONFIG)
    with private_redis.client(db=3) as client:
        assert client.exists(f"{{{name}}}:log")


@pytest.mark.parametrize("url", ["/", "/a{b}", "/ok?max_len=0", "/ok?maxlen=1", "/ok?ca=/x", "/ok?max_message=1"])
async def test_a_url_that_names_no_log_is_refused(redis_server: RedisServer, url: str) -> None:
    with pytest.raises(InvalidInput):
        async with writing(f"{redis_server.url}{url}") as writer:
            await writer.open(CONFIG)


async def test_a_log_is_reached_through_tls(tmp_path: Path) -> None:
    certificate, key = certificate_of(tmp_path)
    server = RedisServer(tmp_path / "redis")
    secure = free_port()
    server.config = (
        f"tls-port {secure}\ntls-cert-file {certificate}\ntls-key-file {key}\ntls-ca-cert-file {certificate}\n"
    )
    server.start()
    try:
        name = fresh_log()
        url = f"rediss://localhost:{secure}/{name}"
        async with writing(f"{url}?ca={certificate}&cert={certificate}&key={key}") as writer:
            await writer.open(CONFIG)
            await writer.send(messages(1, 10))
        check_exact(server.entries(name), 10)
        async with writing(url) as stranger:
            with pytest.raises(LogUnreachable):
                await stranger.open(CONFIG)
    finally:
        server.kill()


def certificate_of(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost; return the files of it and of its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


async def test_a_log_in_a_cluster_is_written_at_the_node_that_has_it(tmp_path: Path) -> None:
    nodes = [RedisServer(tmp_path / str(number)) for number in range(2)]
    for node in nodes:
        node.config = f"cluster-enabled yes\ncluster-port {free_port()}"
        node.start()
    try:
        port = nodes[1].config.rpartition(" ")[2]
        nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", str(nodes[1].port), port)
        nodes[0].ask("CLUSTER", "ADDSLOTSRANGE", "0", "8191")
        nodes[1].ask("CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
        for node in nodes:
            node.wait_until(partial(has_whole_cluster, node))
        for name in ("A", "B", "C", "D"):
            async with writing(f"{nodes[0].url}/{name}") as writer:
                await writer.open(CONFIG)
                await writer.send(messages(1, 10))
        assert all(node.ask("DBSIZE") for node in nodes)
    finally:
        for node in nodes:
            node.kill()


def has_whole_cluster(node: RedisServer) -> bool:
    return b"cluster_state:ok" in node.ask("CLUSTER", "INFO")
