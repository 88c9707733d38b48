"""The requests of webhooks: their headers, and what messages show of a URL."""

from __future__ import annotations

import time

import pytest
from standardwebhooks import Webhook

from pgdoc import InvalidInput
from pgdoc.relay.debezium import UNNAMED
from pgdoc.relay.signing import Secrets
from pgdoc.relay.webhook_requests import WEBHOOK_FORMATS, Endpoint, WebhookMessages
from tests.unit.relay.made_events import event
from tests.unit.relay.test_formats import PARENT
from tests.unit.relay.test_signing import SECRET

PLAIN = Endpoint.parse("https://example.com/hooks")


def test_a_url_is_shown_without_its_secrets() -> None:
    endpoint = Endpoint.parse("https://user:p%40ss@example.com:8443/hooks?key=hidden#part")
    assert endpoint.url == "https://example.com:8443/hooks?key=hidden"
    assert endpoint.authorization == "Basic dXNlcjpwQHNz"  # user:p@ss
    assert endpoint.shown == "https://example.com:8443/hooks"
    assert "hidden" not in repr(endpoint)
    assert "dXNl" not in repr(endpoint)
    message = WebhookMessages(endpoint, "pgdoc", UNNAMED).message(event())
    assert "dXNl" in message.headers["authorization"]
    assert "dXNl" not in repr(message)


@pytest.mark.parametrize(
    ("url", "is_plain"),
    [
        ("https://example.com/h", False),
        ("http://example.com/h", True),
        ("http://127.0.0.1:80", False),
        ("http://[::1]/", False),
    ],
)
def test_only_http_to_another_machine_is_plain(url: str, is_plain: bool) -> None:
    assert Endpoint.parse(url).is_plain is is_plain


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://u:secret@example.com",
        "https:///path",
        "https://u:secret@h:port/",
        "https://h/é",
        "https://h/a\nb",
        3,
    ],
)
def test_what_is_no_url_of_a_webhook_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(InvalidInput, match="URL") as caught:
        Endpoint.parse(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", WEBHOOK_FORMATS)
def test_a_message_of_each_format_is_signed_over_its_body(name: str) -> None:
    message = WebhookMessages(PLAIN, name, UNNAMED).message(event(metadata={"traceparent": PARENT}))
    headers = message.signed(Secrets.parse(SECRET), int(time.time()))
    assert Webhook(SECRET).verify(message.body, headers, json_parse=False) is None
    assert headers["traceparent"] == PARENT
    assert headers["content-type"].startswith(("application/json", "application/cloudevents+json"))
    assert ("ce-id" in headers) == (name == "cloudevents-binary")
    assert "authorization" not in headers


def test_a_user_in_the_url_becomes_a_header() -> None:
    messages = WebhookMessages(Endpoint.parse("https://u:p@h/"), "pgdoc", UNNAMED)
    assert messages.message(event()).headers["authorization"] == "Basic dTpw"


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InvalidInput, match="format must be one of pgdoc, cloudevents, debezium, cloudevents-binary"):
        WebhookMessages(PLAIN, "xml", UNNAMED)
