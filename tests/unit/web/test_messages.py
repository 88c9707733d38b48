from __future__ import annotations

from datetime import UTC, datetime

import orjson
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.web.messages import BrowserMessage, heartbeat, reset, retry_text, server_sent, socket_text


def parsed(stream: bytes) -> list[dict[str, str]]:
    """Parse as the HTML standard says: lines end with CR, LF or both, and data lines are joined by LF."""
    text = stream.decode().replace("\r\n", "\n").replace("\r", "\n")
    events: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        if not line:
            if fields:
                events.append(fields)
            fields = {}
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value
    return events


def test_a_message_is_one_event_with_its_token_as_id() -> None:
    message = BrowserMessage("change", "0/1.7.1", b'{"a":1}')
    assert server_sent(message) == b'event: change\nid: 0/1.7.1\ndata: {"a":1}\n\n'
    assert orjson.loads(socket_text(message)) == {"event": "change", "id": "0/1.7.1", "data": {"a": 1}}


def test_without_a_token_the_browser_keeps_its_id() -> None:
    beat = heartbeat(None, "reconnecting", datetime(2026, 11, 30, 9, 30, tzinfo=UTC))
    data = b'{"mode":"reconnecting","time":"2026-11-30T09:30:00.000+00:00"}'
    assert server_sent(beat) == b"event: heartbeat\ndata: " + data + b"\n\n"
    assert orjson.loads(socket_text(beat))["id"] is None


def test_a_reset_says_why_and_where_it_begins() -> None:
    assert (
        server_sent(reset("0/9.7.1", "history_lost"))
        == b'event: reset\nid: 0/9.7.1\ndata: {"reason":"history_lost"}\n\n'
    )


def test_the_time_before_a_reconnect_is_in_milliseconds() -> None:
    assert retry_text(1.5) == b"retry: 1500\n\n"


@given(st.lists(st.sampled_from(['{"a":', "\n", "\r", "\r\n", " ", '"\\n\u2028"', "1", "}"])).map("".join))
def test_data_with_line_breaks_is_one_event_with_the_same_lines(text: str) -> None:
    (event,) = parsed(server_sent(BrowserMessage("change", "t", text.encode() + b"x")))
    assert event["event"] == "change"
    assert event["data"] == (text + "x").replace("\r\n", "\n").replace("\r", "\n")
