"""Requests to webhooks: the extra that they need, and their time limit."""

from __future__ import annotations

import importlib
import socket
import sys
import time

import httpcore
import pytest

from pgdoc import MissingExtra
from pgdoc.relay import posting
from pgdoc.relay.answers import Unanswered
from pgdoc.relay.webhook_requests import Endpoint


def test_without_httpx_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "pgdoc.relay.posting", raising=False)
    with pytest.raises(MissingExtra, match=r"run pip install 'pgdoc\[webhooks\]'"):
        importlib.import_module("pgdoc.relay.posting")


def test_all_addresses_of_a_receiver_share_the_time_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    given: list[float] = []

    def connect(_self: object, host: str, port: int, timeout: float, **_options: object) -> None:
        given.append(timeout)
        now[0] += timeout
        raise httpcore.ConnectTimeout(f"{host}:{port}")

    addresses = [(None, None, None, "", (f"192.0.2.{number}", 80)) for number in range(1, 5)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: addresses)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    poster = posting.Poster(Endpoint.parse("http://receiver.test/"), timeout_s=12, connections=1, ca_file=None)
    with pytest.raises(Unanswered, match="did not answer within 12 s"):
        poster.send("POST", b"", {})
    assert given == [5.0, 5.0, 2.0]
