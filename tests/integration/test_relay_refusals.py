"""Logs that a relay may not write: the error says why; and the ways to show who one is."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from pgdoc import Relay
from pgdoc.errors import InvalidInput, LogRefused
from tests.integration._sync.relays import fresh_stream
from tests.integration.relay_tests import EAGER, edit, in_stream, relayed

if TYPE_CHECKING:
    from pathlib import Path

    from nats.js import JetStreamContext

    from tests.engines import NatsServer
    from tests.integration.relay_tests import Relayed


def refused(test: Relayed, url: str = "", options: str = EAGER, **given: Any) -> LogRefused:
    with pytest.raises(LogRefused) as caught:
        test.run_to_its_end(url, options, **given)
    return caught.value


def test_a_stream_that_no_relay_has_made_is_refused(shared_dsn: str, schema: str, nats_server: NatsServer) -> None:
    with relayed(shared_dsn, schema, nats_server.url, fresh_stream()) as test:
        config = StreamConfig(name=test.stream, subjects=[f"{test.stream}.>"])
        in_stream(nats_server.url, lambda context: context.add_stream(config))
        error = refused(test)
        assert error.reason == "foreign"
        assert "was not made by pgdoc relay" in str(error)


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        ({"subjects": ["elsewhere.>"]}, "has the subjects"),
        ({"max_msgs_per_subject": 1, "discard": DiscardPolicy.OLD}, "max_msgs_per_subject must be -1"),
        ({"max_msg_size": 1000}, "max_msg_size must be -1"),
        ({"discard": DiscardPolicy.OLD}, "which is not when_full=stop"),
        ({"sealed": True}, "is sealed"),
    ],
)
def test_settings_that_lose_messages_are_refused(
    shared_dsn: str, schema: str, nats_server: NatsServer, settings: dict[str, Any], finding: str
) -> None:
    with relayed(shared_dsn, schema, nats_server.url, fresh_stream()) as test:
        options = f"{EAGER}&when_full=stop"
        with test.run(options=options):
            test.write(1)
            test.wait()
        edit(nats_server.url, test.stream, **settings)
        error = refused(test, options=options)
        assert error.reason == "config"
        assert finding in str(error)


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        ({"storage": StorageType.MEMORY}, "keeps its entries in memory"),
        ({"retention": RetentionPolicy.WORK_QUEUE}, "it must be limits"),
    ],
)
def test_settings_that_no_edit_can_make_are_refused(
    shared_dsn: str, schema: str, nats_server: NatsServer, settings: dict[str, Any], finding: str
) -> None:
    with relayed(shared_dsn, schema, nats_server.url, fresh_stream()) as test:
        with test.run():
            test.write(1)
            test.wait()

        async def make_anew(context: JetStreamContext) -> None:
            config = (await context.stream_info(test.stream)).config
            await context.delete_stream(test.stream)
            await context.add_stream(config.evolve(**settings))

        in_stream(nats_server.url, make_anew)
        error = refused(test)
        assert error.reason == "config"
        assert finding in str(error)


def test_a_relay_with_other_options_is_refused(shared_dsn: str, schema: str, nats_server: NatsServer) -> None:
    with relayed(shared_dsn, schema, nats_server.url, fresh_stream()) as test:
        with test.run(partitions=4):
            test.write(1)
            test.wait()
        assert "another number of partitions" in str(refused(test, partitions=8))
        assert "another filter" in str(refused(test, partitions=4, where={"document_id": "x"}))
        assert "other subjects" in str(refused(test, partitions=4, options="subjects=id"))
        with test.run(partitions=4):
            test.write(1)
            test.wait()


def test_a_message_of_somebody_else_ends_the_relay(shared_dsn: str, schema: str, nats_server: NatsServer) -> None:
    with relayed(shared_dsn, schema, nats_server.url, fresh_stream()) as test:
        with test.run():
            test.write(1)
            test.wait()
        in_stream(nats_server.url, lambda context: context.publish(f"{test.stream}.all.orders", b"{}"))
        error = refused(test)
        assert error.reason == "foreign"
        assert "nobody else may publish" in str(error)


def test_a_server_without_jetstream_is_refused(shared_dsn: str, schema: str, private_nats: NatsServer) -> None:
    private_nats.stop()
    private_nats.jetstream = ""
    private_nats.start()
    with relayed(shared_dsn, schema, private_nats.url, "S") as test:
        assert "JetStream is not enabled" in str(refused(test))


def test_a_server_with_small_messages_is_refused(shared_dsn: str, schema: str, private_nats: NatsServer) -> None:
    private_nats.stop()
    private_nats.config = "max_payload: 20000"
    private_nats.start()
    with relayed(shared_dsn, schema, private_nats.url, "S") as test:
        assert "max_payload" in str(refused(test))


def test_a_smaller_max_payload_than_the_log_began_with_is_refused(
    shared_dsn: str, schema: str, private_nats: NatsServer
) -> None:
    with relayed(shared_dsn, schema, private_nats.url, "S") as test:
        with test.run():
            test.write(1)
            test.wait()
        private_nats.stop()
        private_nats.config = "max_payload: 100000"
        private_nats.start()
        assert "raise its max_payload" in str(refused(test))


USERS = """
authorization { users: [
  {user: writer, password: "p/w", permissions: {
    publish: ["S.>", "$JS.API.STREAM.INFO.S", "$JS.API.STREAM.CREATE.S", "$JS.API.STREAM.MSG.GET.S"],
    subscribe: ["_INBOX.>"]}}
  {user: looker, password: pw, permissions: {
    publish: ["$JS.API.STREAM.INFO.S", "$JS.API.STREAM.MSG.GET.S"], subscribe: ["_INBOX.>"]}}
  {user: nobody, password: pw, permissions: {publish: ["nothing"], subscribe: ["_INBOX.>"]}}
] }
"""


def test_users_need_a_few_rights_and_the_error_names_the_one_that_lacks(
    shared_dsn: str, schema: str, private_nats: NatsServer
) -> None:
    private_nats.stop()
    private_nats.config = USERS
    private_nats.start()
    with relayed(shared_dsn, schema, private_nats.url, "S") as test:
        address = f"127.0.0.1:{private_nats.port}"
        error = refused(test, f"nats://writer:wrong@{address}")
        assert error.reason == "credentials"
        assert "wrong" not in str(error)
        assert refused(test).reason == "credentials"
        error = refused(test, f"nats://nobody:pw@{address}")
        assert error.reason == "rights"
        assert "$js.api.stream.info.s" in str(error).lower()
        with test.run(f"nats://writer:p%2Fw@{address}"):
            test.write(3)
            test.wait()
        test.write(1)
        error = refused(test, f"nats://looker:pw@{address}")
        assert error.reason == "rights"
        assert "publish to" in str(error).lower()


def test_a_relay_shows_a_certificate_and_checks_that_of_the_server(
    shared_dsn: str, schema: str, private_nats: NatsServer, tmp_path: Path
) -> None:
    make_certificates(tmp_path)
    private_nats.stop()
    private_nats.config = (
        f'tls {{ cert_file: "{tmp_path}/server.pem", key_file: "{tmp_path}/server.key", '
        f'ca_file: "{tmp_path}/ca.pem", verify: true }}'
    )
    private_nats.start()
    with relayed(shared_dsn, schema, private_nats.url, "S") as test:
        address = f"tls://127.0.0.1:{private_nats.port}"
        error = refused(test, address)
        assert error.reason == "credentials"
        assert "ca=FILE" in str(error)
        shown = f"ca={tmp_path}/ca.pem&cert={tmp_path}/client.pem&key={tmp_path}/client.key"
        with test.run(address, options=f"{EAGER}&{shown}"):
            test.write(3)
            test.wait()
        with pytest.raises(InvalidInput, match="certificate file can't be read"):
            test.run_to_its_end(address, options=f"ca={tmp_path}/none.pem")


def make_certificates(folder: Path) -> None:
    """Make an authority, and certificates that it has signed for a server and a client."""
    openssl(folder, "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        openssl(folder, f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}")
        openssl(folder, f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -out {name}.pem -days 2 -extfile names")


def openssl(folder: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True, timeout=60)


def test_a_seed_in_a_file_shows_who_the_relay_is(
    shared_dsn: str, schema: str, private_nats: NatsServer, tmp_path: Path
) -> None:
    nkeys = pytest.importorskip("nkeys")
    seed = nkeys.encode_seed(b"pgdoc's test has 32 secret bytes", nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(seed).public_key.decode()
    (tmp_path / "seed.nk").write_bytes(seed)
    private_nats.stop()
    private_nats.config = f"authorization {{ users: [ {{ nkey: {public} }} ] }}"
    private_nats.start()
    with relayed(shared_dsn, schema, private_nats.url, "S") as test:
        assert refused(test).reason == "credentials"
        with test.run(options=f"{EAGER}&nkey={tmp_path}/seed.nk"):
            test.write(3)
            test.wait()


@pytest.mark.parametrize(
    ("rest", "finding"),
    [
        ("", "names no stream"),
        ("/a.b", "names no stream"),
        ("/S?replica=3", "has no option 'replica'"),
        ("/S?replicas=9", "whole number from 1 to 5"),
        ("/S?max_age=7", "is not a duration"),
        ("/S?max_bytes=big", "is not a size"),
        ("/S?when_full=wait", "must be stop or forget"),
        ("/S?subjects=none", "must be partition or id"),
    ],
)
def test_a_url_that_says_nothing_sensible_is_refused(
    shared_dsn: str, schema: str, nats_server: NatsServer, rest: str, finding: str
) -> None:
    with relayed(shared_dsn, schema, nats_server.url, "S") as test, pytest.raises(InvalidInput, match=finding):
        Relay(test.store, test.consumer, f"{nats_server.url}{rest}", "orders").run()
