"""The URLs of logs: what they name, and that no message shows a secret."""

from __future__ import annotations

import traceback

import pytest

from pgdoc.errors import InvalidInput
from pgdoc.relay.targets import LogTarget


@pytest.mark.parametrize(
    "url",
    [
        "nats://joe:s3c/ret@host/ORDERS",
        "nats://joe:s3c?ret@host/ORDERS",
        "nats://joe:12?ret=s3c@host/ORDERS",
        "nats://joe:s3c#ret@host/ORDERS",
        "nats://joe:s3c\u2100ret@host/ORDERS",  # which normalization would make a/c
        "nats://joe:s3c[ret@host/ORDERS",
        "nats://joe:s3cret@host:x/ORDERS",
        "nats://joe:s3cret@host/ORDERS?creds",
        "redis://joe:s3cret@/ORDERS",
    ],
)
def test_a_url_that_can_not_be_read_shows_no_secret(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        LogTarget.parse(url)
    assert "s3c" not in "".join(traceback.format_exception(caught.value)).replace(url, "")
    assert "12" not in str(caught.value)


def test_a_url_names_servers_credentials_and_options() -> None:
    target = LogTarget.parse("nats://joe:p%40%2F@[::1]:4223,b,10.0.0.1:1/ORDERS?creds=/home/a@b/x.creds&replicas=3")
    assert target.servers == (("::1", 4223), ("b", None), ("10.0.0.1", 1))
    assert (target.user, target.password, target.name) == ("joe", "p@/", "ORDERS")
    assert target.options == {"creds": "/home/a@b/x.creds", "replicas": "3"}
    assert "joe" not in repr(target)
    assert "p@/" not in repr(target)


def test_an_option_may_not_be_given_twice() -> None:
    with pytest.raises(InvalidInput, match="'replicas' twice"):
        LogTarget.parse("nats://host/ORDERS?replicas=1&replicas=3")
