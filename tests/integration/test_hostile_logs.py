"""Logs into which somebody else has written, and servers that are not what the URL asks for."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import nats
import pytest
import redis

from pgdoc import RemoteStream
from pgdoc.errors import InvalidInput, LogRefused, MissingExtra
from tests.integration._sync.relays import fresh_stream
from tests.made_logs import append, fill, message_of, token_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engines import NatsServer
    from tests.redis_server import RedisServer


def publish(url: str, headers: dict[str, str] | None, body: bytes = b"x") -> None:
    async def run() -> None:
        server, _, stream = url.rpartition("/")
        client = await nats.connect(server)
        await client.jetstream().publish(f"{stream}.0.orders", body, headers=headers)
        await client.close()

    asyncio.run(run())


def read_until_refused(url: str) -> tuple[list[int], LogRefused]:
    found: list[Any] = []
    with RemoteStream(url, start="beginning") as stream:
        while True:
            try:
                batch = stream.next_batch(timeout=8)
            except LogRefused as exc:
                assert stream.closed
                return [event.full_document.data["n"] for event in found], exc
            assert batch, "what somebody else has written was not noticed"
            found += batch


@pytest.mark.parametrize("part", [None, "abc", "1/", "0/0", "-1/3", "4/3", "1/9999999999"])
def test_a_message_that_no_relay_wrote_ends_reading_after_what_is_before_it(
    nats_server: NatsServer, part: str | None
) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    fill(url, range(1, 3))
    publish(url, None if part is None else {"Pgdoc-Token": token_of(3), "Pgdoc-Part": part})
    found, error = read_until_refused(url)
    assert found == [1, 2]
    assert error.reason == "foreign"
    with RemoteStream(url) as stream:  # from now on: it is behind
        assert stream.next(timeout=0) is None
    with pytest.raises(LogRefused, match="no relay wrote"):
        append(url, [message_of(4)])


@pytest.mark.parametrize(
    ("entry_id", "fields"),
    [
        ("3-0", {"x": "y"}),
        ("3-0", {"previous": "a", "token": "t", "collection": "c", "type": "i", "body": "{}"}),
        ("3-1", {"previous": "0", "token": "t", "collection": "c", "type": "i", "body": "{}"}),
        ("3-0", {"previous": "0", "token": b"\xff", "collection": "c", "type": "i", "body": "{}"}),
        ("3-0", {"previous": "0", "token": "t", "collection": "c", "type": "i", "body": "{}", "part": "abc"}),
    ],
)
def test_an_entry_that_no_relay_wrote_ends_reading(
    redis_server: RedisServer, entry_id: str, fields: dict[str, Any]
) -> None:
    name = fresh_stream()
    url = f"{redis_server.url}/{name}"
    fill(url, range(1, 3))
    with redis.Redis.from_url(redis_server.url) as client:
        client.xadd(f"{{{name}}}:0", fields, id=entry_id)
        client.hset(f"{{{name}}}:log", mapping={"sequence": 3, "last:0": 3})
    _, error = read_until_refused(url)
    assert error.reason == "foreign"


def test_a_server_without_tls_gets_no_credentials_where_the_url_asks_for_tls(nats_server: NatsServer) -> None:
    url = nats_server.url.replace("nats://", "tls://joe:secret@")
    with pytest.raises(LogRefused, match="has no TLS") as caught:
        RemoteStream(f"{url}/{fresh_stream()}")
    assert caught.value.reason == "credentials"
    assert "secret" not in str(caught.value)


def test_a_user_without_a_password_is_a_token(private_nats: NatsServer) -> None:
    private_nats.stop()
    private_nats.config = 'authorization { token: "t0ken" }'
    private_nats.start()
    url = private_nats.url.replace("nats://", "nats://t0ken@")
    fill(f"{url}/S", range(1, 3))
    with RemoteStream(f"{url}/S", start="beginning") as stream:
        assert stream.next(timeout=10) is not None


@pytest.mark.parametrize("option", ["creds", "nkey"])
def test_a_file_of_credentials_that_can_not_be_read_is_not_waited_for(
    nats_server: NatsServer, tmp_path: Path, option: str
) -> None:
    with pytest.raises(InvalidInput, match=f"the file of {option}="):
        RemoteStream(f"{nats_server.url}/S?{option}={tmp_path}/missing")


def test_credentials_in_a_file_without_their_package_say_what_to_install(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nkeys", None)
    (tmp_path / "joe.creds").write_text("x")
    with pytest.raises(MissingExtra, match=r"pgdoc\[nats\]"):
        RemoteStream(f"{nats_server.url}/S?creds={tmp_path}/joe.creds")
