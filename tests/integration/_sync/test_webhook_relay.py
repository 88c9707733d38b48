# Written by .ci/twins.py from tests/integration/_async/test_webhook_relay.py: change that file, and run it.
"""Webhooks: every event arrives, signed and in the order of its document, whatever the receiver does."""

from __future__ import annotations

import logging
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat

from pgdoc import ChangeEvent, InvalidInput, RawJson, WebhookGone
from pgdoc._sync import lane
from pgdoc._sync.webhook_relay import WebhookRelay
from pgdoc.runtime.activities import Activity
from tests.integration._sync.streams import PATIENCE_S
from tests.integration._sync.workers import fresh_name, opened, until
from tests.webhook_receiver import (
    CUT,
    CUT_INSIDE,
    DRIP,
    DRIP_BODY,
    FLOOD,
    HANG,
    OK,
    SECRET,
    Received,
    Receiver,
    Reply,
    after,
    order_of,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from pgdoc import Store, DeadLetter

NEW_SECRET = "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="  # noqa: S105


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(lane, "LONGEST_DELAY_S", 0.05)


def relay_to(store: Store, url: str, *names: str, **options: Any) -> WebhookRelay:
    options = {"secrets": SECRET, "timeout": PATIENCE_S, **options}
    return WebhookRelay(store, fresh_name(), url, *(names or ("orders",)), **options)


@contextmanager
def running(relay: WebhookRelay) -> Generator[WebhookRelay]:
    """Run a relay beside the block, and stop it at the end; raise what ended it."""
    activity = Activity("test-relay", relay.run)
    try:
        yield relay
    finally:
        relay.stop()
        assert activity.wait(PATIENCE_S), "the relay does not end"
    if activity.error is not None:
        raise activity.error


def taken(receiver: Receiver, number: int) -> None:
    """Wait until the receiver has taken so many requests."""

    def has_all() -> bool:
        return len(receiver.taken) >= number

    until(has_all)
    assert len(receiver.taken) == number


def letters(store: Store, relay: WebhookRelay, number: int) -> list[DeadLetter]:
    """Wait until there are so many dead letters."""

    def are_there() -> bool:
        return len(store.dead_letters(consumer=relay.consumer)) >= number

    until(are_there)
    return store.dead_letters(consumer=relay.consumer)


def write(store: Store, documents: int, updates: int = 0) -> None:
    """Insert documents, and update each several times: one event after the other for each."""
    orders = store["orders"]
    orders.insert_many((f"o-{number}", {"n": 0}) for number in range(documents))
    for update in range(1, updates + 1):
        orders.update_many({}, {"$set": {"n": update}})


def test_events_arrive_signed_exact_and_side_by_side(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        with Receiver(after(0.02)) as receiver:
            relay = relay_to(store, receiver.url)
            assert relay.declare()
            assert not relay.declare()
            store["orders"].insert("exact", RawJson('{"n": 1.10, "big": 12345678901234567890}'))
            write(store, 20, updates=2)
            with running(relay):
                taken(receiver, 63)
            receiver.verify()
            assert receiver.most_side_by_side > 1
            assert any(b'{"n": 1.10, "big": 12345678901234567890}' in each.body for each in receiver.taken)
            assert receiver.taken[0].headers["content-type"] == "application/json"
            assert all(len(tokens) == 3 for tokens in order_of(receiver.taken).values())
            assert_in_order(receiver)
            assert len({each.headers["webhook-id"] for each in receiver.taken}) == 63
            status = relay.status()
            assert (status.delivered, status.attempts, status.failures, status.state) == (63, 63, 0, "closed")


def assert_in_order(receiver: Receiver) -> None:
    """Check that the events of each document came in their order."""
    for tokens in order_of(receiver.taken).values():
        events = [each.event for each in receiver.taken if str(each.event.resume_token) in tokens]
        places = [event.resume_token for event in events]
        assert places == sorted(places)


@pytest.mark.parametrize("name", ["cloudevents", "cloudevents-binary", "debezium"])
def test_each_format_can_be_sent(shared_dsn: str, schema: str, name: str) -> None:
    with opened(shared_dsn, schema) as store:
        with Receiver() as receiver:
            relay = relay_to(store, receiver.url, format=name)
            relay.declare()
            store["orders"].insert("o-1", RawJson('{"n": 1.10}'))
            with running(relay):
                taken(receiver, 1)
            receiver.verify()
            (found,) = receiver.taken
            assert b"1.10" in found.body
            if name == "debezium":
                values = orjson.loads(found.body)
                assert values["source"]["name"] == relay.consumer
                assert (values["source"]["schema"], values["source"]["table"]) == (schema, "orders")
                assert values["source"]["db"] in shared_dsn
                return
            event = from_http_event(HTTPMessage(headers=found.headers, body=found.body), JSONFormat())
            assert (event.get_type(), event.get_subject()) == ("io.pgdoc.insert", "orders/o-1")
            data = event.get_data()
            assert isinstance(data, dict)
            assert data["full_document"]["data"] == {"n": 1.1}


def test_an_event_that_fails_is_sent_again_and_no_other(shared_dsn: str, schema: str) -> None:
    failed: list[Received] = []

    def rule(request: Received) -> Reply:
        if request.event.document_id == "o-3" and len(failed) < 3:
            failed.append(request)
            return Reply(500, body=b"not now")
        return OK

    with opened(shared_dsn, schema) as store:
        with Receiver(rule) as receiver:
            relay = relay_to(store, receiver.url)
            relay.declare()
            write(store, 10, updates=1)
            with running(relay):
                taken(receiver, 20)
            assert len(receiver.requests) == 23
            assert_in_order(receiver)
            assert len({each.headers["webhook-id"] for each in failed}) == 1
            status = relay.status()
            assert (status.failures, status.dead) == (3, 0)
            assert status.last_failure == "it answered 500: 'not now'"


def test_a_dead_letter_parks_its_document_until_it_is_retried(shared_dsn: str, schema: str) -> None:
    bad = {"o-1"}

    def rule(request: Received) -> Reply:
        return Reply(400, body=b"no o-1") if request.event.document_id in bad else OK

    with opened(shared_dsn, schema) as store:
        with Receiver(rule) as receiver:
            relay = relay_to(store, receiver.url, retries=1)
            relay.declare()
            write(store, 3, updates=1)
            with running(relay):
                taken(receiver, 4)
                found = letters(store, relay, 2)
                assert [(each.state, each.document_id) for each in found] == [("dead", "o-1"), ("parked", "o-1")]
                assert found[0].error == f"EventFailed: {receiver.url}: it answered 400: 'no o-1'"
                assert found[0].attempts == 2
                assert SECRET not in str(found[0].traceback)
                bad.clear()
                store.retry_dead_letters(consumer=relay.consumer)
                taken(receiver, 6)
            assert store.dead_letters(consumer=relay.consumer) == []
            assert_in_order(receiver)


def test_a_receiver_that_wants_to_wait_is_waited_for_and_nothing_counts_as_failed(shared_dsn: str, schema: str) -> None:
    refused: list[Received] = []

    def rule(request: Received) -> Reply:
        if len(refused) < 2:
            refused.append(request)
            return Reply([429, 503][len(refused) - 1], {"retry-after": "1"})
        return OK

    with opened(shared_dsn, schema) as store:
        with Receiver(rule) as receiver:
            relay = relay_to(store, receiver.url, retries=0, concurrency=1)
            relay.declare()
            write(store, 4, updates=1)
            with running(relay):
                taken(receiver, 8)
            assert [each.headers["webhook-id"] for each in refused] == [receiver.taken[0].headers["webhook-id"]] * 2
            assert (relay.status().failures, relay.status().dead) == (0, 0)
            assert store.dead_letters(consumer=relay.consumer) == []


def test_a_stop_does_not_wait_as_long_as_the_receiver_wants(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        with Receiver(lambda _request: Reply(429, {"retry-after": "3000"})) as receiver:
            relay = relay_to(store, receiver.url)
            relay.declare()
            write(store, 1)
            with running(relay):

                def is_throttled() -> bool:
                    return relay.status().state == "throttled"

                until(is_throttled)
                assert relay.status().throttled_s > 1000
            assert len(receiver.requests) == 1
            receiver.rule = lambda _request: OK
            with running(relay):
                taken(receiver, 1)


def test_gone_ends_the_relay_and_its_event_comes_first_when_it_runs_again(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        with Receiver(lambda _request: Reply(410)) as receiver:
            relay = relay_to(store, receiver.url)
            relay.declare()
            write(store, 1, updates=2)
            with pytest.raises(WebhookGone, match="answered 410 Gone: it wants no more events"):
                relay.run()
            assert relay.status().state == "gone"
            assert store.dead_letters(consumer=relay.consumer) == []
            receiver.rule = lambda _request: OK
            with running(relay):
                taken(receiver, 3)
            assert_in_order(receiver)


def test_a_redirect_is_a_failure_and_is_not_followed(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        with Receiver() as other, Receiver(lambda _request: Reply(307, {"location": other.url})) as receiver:
            relay = relay_to(store, receiver.url, retries=0)
            relay.declare()
            write(store, 1)
            with running(relay):
                (letter,) = letters(store, relay, 1)
            assert letter.error is not None
            assert "it answered 307" in letter.error
            assert other.requests == []


@pytest.mark.parametrize("act", [HANG, CUT, DRIP])
def test_a_receiver_that_does_not_answer_gets_the_event_again(shared_dsn: str, schema: str, act: str) -> None:
    with opened(shared_dsn, schema) as store:
        with Receiver(lambda request: Reply(act=act) if request.number < 2 else OK) as receiver:
            relay = relay_to(store, receiver.url, timeout=0.5)
            relay.declare()
            write(store, 1, updates=1)
            with running(relay):
                taken(receiver, 2)
            assert_in_order(receiver)
            assert len({each.headers["webhook-id"] for each in receiver.requests[:3]}) == 1
            said = relay.status().last_failure or ""
            assert said.startswith("RemoteProtocolError" if act == CUT else "it did not answer within 0.5 s")


@pytest.mark.parametrize("act", [FLOOD, CUT_INSIDE, DRIP_BODY])
def test_the_body_of_an_answer_does_not_matter(shared_dsn: str, schema: str, act: str) -> None:
    with opened(shared_dsn, schema) as store:
        with Receiver(lambda _request: Reply(act=act)) as receiver:
            relay = relay_to(store, receiver.url)
            relay.declare()
            write(store, 1)
            with running(relay):
                taken(receiver, 1)
            assert (relay.status().failures, len(receiver.requests)) == (0, 1)


def test_a_receiver_that_is_away_is_tried_again(shared_dsn: str, schema: str) -> None:
    with Receiver() as receiver:
        url = receiver.url
    with opened(shared_dsn, schema) as store:
        relay = relay_to(store, url, retries=1)
        relay.declare()
        write(store, 1)
        with running(relay):
            (letter,) = letters(store, relay, 1)
        assert letter.error is not None
        assert "ConnectError: [Errno 111]" in letter.error


def test_an_event_that_is_too_large_becomes_a_dead_letter_at_once(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        with Receiver() as receiver:
            relay = relay_to(store, receiver.url, max_body=5000, retries=None)
            relay.declare()
            store["orders"].insert_many([("o-0", {}), ("big", {"text": "x" * 5000}), ("o-2", {})])
            store["orders"].update("big", {"$set": {"text": "small"}})
            with running(relay):
                taken(receiver, 2)
                large, parked = letters(store, relay, 2)
            assert large.error is not None
            assert "bytes, and max_body is 5,000" in large.error
            assert (large.attempts, parked.state, parked.document_id) == (1, "parked", "big")
            assert sorted(map(str, receiver.ids)) == ["o-0", "o-2"]


def test_while_a_secret_is_replaced_both_verify_every_message(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        with Receiver() as receiver:
            relay = relay_to(store, receiver.url, secrets=[SECRET, NEW_SECRET])
            relay.declare()
            write(store, 3)
            with running(relay):
                taken(receiver, 3)
            receiver.verify(SECRET, NEW_SECRET)


def test_the_secret_comes_from_the_environment_and_is_never_shown(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with opened(shared_dsn, schema) as store:
        with Receiver(lambda request: Reply(500) if request.number == 0 else OK) as receiver:
            url = receiver.url.replace("://", "://user:hunter2@") + "?key=hidden"
            with pytest.raises(InvalidInput, match="set the environment variable PGDOC_WEBHOOK_SECRET"):
                relay_to(store, url, secrets=())
            monkeypatch.setenv("PGDOC_WEBHOOK_SECRET", SECRET)
            relay = relay_to(store, url, secrets=())
            relay.declare()
            write(store, 1)
            with running(relay):
                taken(receiver, 1)
            receiver.verify()
            assert receiver.taken[0].path == "/hooks?key=hidden"
            assert receiver.taken[0].headers["authorization"] == "Basic dXNlcjpodW50ZXIy"
            shown = f"{relay!r} {relay.status()} {caplog.text}"
            assert receiver.url in shown
            for secret in (SECRET, SECRET.removeprefix("whsec_"), "hunter2", "hidden"):
                assert secret not in shown


def test_no_proxy_of_the_environment_is_used(shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with opened(shared_dsn, schema) as store:
        with Receiver() as receiver:
            relay = relay_to(store, receiver.url)
            relay.declare()
            write(store, 1)
            with running(relay):
                taken(receiver, 1)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate for 127.0.0.1 that no public authority has signed, with its key."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run(
        ["openssl", "req", "-x509", *options, *subject, "-keyout", path, "-out", path.with_name("c.pem")],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + path.with_name("c.pem").read_text())
    return path


def test_a_relay_whose_receiver_hangs_ends_in_time_and_its_event_comes_again(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        with Receiver(lambda _request: Reply(act=HANG)) as receiver:
            relay = relay_to(store, receiver.url, timeout=2, shutdown_timeout=0.1)
            relay.declare()
            write(store, 3)
            with running(relay):

                def have_come() -> bool:
                    return len(receiver.requests) >= 3

                until(have_come)
            assert relay.status().state == "closed"
            receiver.rule = lambda _request: OK
            with running(relay):
                taken(receiver, 3)
            assert store.dead_letters(consumer=relay.consumer) == []


def test_a_relay_that_loses_its_consumer_sends_no_more_of_the_batch(
    shared_dsn: str, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    goes_on = threading.Event()

    def rule(request: Received) -> Reply:
        if request.number == 0:
            goes_on.wait(PATIENCE_S)
        return OK

    with opened(shared_dsn, schema) as store:
        with Receiver(rule) as receiver:
            relay = relay_to(store, receiver.url, concurrency=1)
            relay.declare()
            write(store, 5)

            def has_come() -> bool:
                return len(receiver.requests) == 1

            def is_lost() -> bool:
                return relay._is_lost()

            def is_open_again() -> bool:
                return caplog.text.count("is open, and runs") == 2

            with caplog.at_level(logging.INFO, "pgdoc.worker"):
                with running(relay):
                    until(has_come)
                    with store.transaction() as tx:  # another process takes the consumer over, for a moment
                        tx.connection.execute(
                            "UPDATE pgdoc.owners SET epoch = epoch + 1, holder = gen_random_uuid() WHERE name = %s",
                            [relay.consumer],
                        )
                        tx.connection.execute(
                            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name LIKE %s",
                            [f"%{relay.consumer}"],
                        )
                    try:
                        until(is_lost)
                    finally:
                        goes_on.set()
                    until(is_open_again)
                    taken(receiver, 5)
            assert len(receiver.requests) == 5  # the first is remembered as delivered


def test_only_a_certificate_that_is_trusted_gets_events(
    shared_dsn: str, schema: str, certificate: Path, tmp_path: Path
) -> None:
    with opened(shared_dsn, schema) as store:
        with pytest.raises(InvalidInput, match="can't be read as certificates"):
            relay_to(store, "https://127.0.0.1/", ca_file=str(tmp_path / "missing.pem"))
        with Receiver(certificate=certificate) as receiver:
            distrusting = relay_to(store, receiver.url, retries=0)
            trusting = relay_to(store, receiver.url, ca_file=str(certificate.with_name("c.pem")))
            distrusting.declare()
            trusting.declare()
            write(store, 1)
            with running(distrusting):
                (letter,) = letters(store, distrusting, 1)
            assert letter.error is not None
            assert "certificate verify failed" in letter.error
            assert receiver.requests == []
            with running(trusting):
                taken(receiver, 1)


def test_a_second_relay_stands_by_and_takes_over(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        with Receiver() as receiver:
            first = relay_to(store, receiver.url)
            second = WebhookRelay(store, first.consumer, receiver.url, "orders", secrets=SECRET)
            first.declare()
            with running(second):
                with running(first):
                    write(store, 5)
                    taken(receiver, 5)
                    assert {first.status().state, second.status().state} >= {"standby"}
                store["orders"].insert("later", {})
                taken(receiver, 6)
            assert first.status().delivered + second.status().delivered == 6


def test_an_event_of_a_whole_collection_comes_between_those_of_its_documents(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        with Receiver(after(0.01)) as receiver:
            relay = relay_to(store, receiver.url)
            relay.declare()
            write(store, 10)
            with store.transaction() as tx:
                tx.connection.execute(f'TRUNCATE "{schema}".orders'.encode())
            write(store, 10)
            with running(relay):
                taken(receiver, 21)
            assert receiver.ids[10] is None
            assert set(receiver.ids[:10]) == set(receiver.ids[11:])


def test_a_snapshot_is_sent_first(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        write(store, 30)
        with Receiver() as receiver:
            relay = relay_to(store, receiver.url, snapshot=True)
            with running(relay):
                taken(receiver, 30)
                store["orders"].insert("later", {})
                taken(receiver, 31)
            kinds = [str(ChangeEvent.from_json(each.body).event_type) for each in receiver.taken]
            assert kinds == ["snapshot"] * 30 + ["insert"]


def test_the_check_tells_whether_the_receiver_can_be_reached(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        with Receiver() as receiver:
            relay = relay_to(store, receiver.url)
            relay.declare()
            found = {each.id: each for each in relay.check()}
            assert {each.verdict for each in found.values()} == {"ok"}
            assert found["webhook-receiver"].text == f"{receiver.url} can be reached: it answered 200: 'ok'"
            assert [each.method for each in receiver.requests] == ["OPTIONS"]
        found = {each.id: each for each in relay.check()}
        assert found["webhook-receiver"].verdict == "wrong"
        assert "can't be reached: ConnectError" in found["webhook-receiver"].text
        plain = relay_to(store, "http://192.0.2.1/", timeout=0.1)
        assert {each.id: each.verdict for each in plain.check()}["webhook-plain"] == "warn"
        nameless = relay_to(store, "https://a..b/")
        assert {each.id: each.verdict for each in nameless.check()}["webhook-receiver"] == "wrong"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout": 0}, "timeout must be a number of seconds above 0 and below 3600, got 0"),
        ({"timeout": 3600}, "timeout must be a number of seconds above 0 and below 3600, got 3600"),
        ({"timeout": "5"}, "timeout must be a number of seconds"),
        ({"concurrency": 0}, "concurrency must be a whole number of at least 1"),
        ({"max_body": 0}, "max_body must be a whole number of at least 1"),
        ({"retries": -1}, "retries must be a whole number of at least 0"),
        ({"on_dead": "drop"}, "on_dead must be"),
        ({"format": "xml"}, "format must be one of"),
        ({"secrets": "plain"}, "secret 1 does not begin with whsec_"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    shared_dsn: str, schema: str, options: dict[str, Any], said: str
) -> None:
    with opened(shared_dsn, schema) as store:
        with pytest.raises(ValueError, match=said):
            relay_to(store, "https://example.com/", **options)
