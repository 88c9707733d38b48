"""What an answer to a webhook means, and how long it makes the relay wait."""

from __future__ import annotations

import pytest

from pgdoc.relay.answers import Answer, Meaning, meaning_of, retry_after_s

NOW = 1_700_000_000.0


def answer(status: int, retry_after: str | None = None, body: bytes = b"") -> Answer:
    return Answer(status, {} if retry_after is None else {"retry-after": retry_after}, body)


@pytest.mark.parametrize(
    ("found", "meaning"),
    [
        (answer(200), Meaning.DELIVERED),
        (answer(204), Meaning.DELIVERED),
        (answer(299), Meaning.DELIVERED),
        (answer(301), Meaning.FAILED),
        (answer(308), Meaning.FAILED),
        (answer(304), Meaning.FAILED),
        (answer(400), Meaning.FAILED),
        (answer(404), Meaning.FAILED),
        (answer(410), Meaning.GONE),
        (answer(429), Meaning.FAILED),
        (answer(429, "5"), Meaning.LATER),
        (answer(500, "5"), Meaning.FAILED),
        (answer(503), Meaning.FAILED),
        (answer(503, "5"), Meaning.LATER),
    ],
)
def test_each_status_has_its_meaning(found: Answer, meaning: Meaning) -> None:
    assert meaning_of(found) is meaning


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 1.0),
        ("-5", 1.0),
        ("86400", 3600.0),
        ("999999999999999999999", 1.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 1.0),
        ("soon", 1.0),
        ("", 1.0),
    ],
)
def test_the_wait_is_at_least_a_second_and_at_most_an_hour(text: str, seconds: float) -> None:
    assert retry_after_s(answer(429, text), NOW) == seconds


def test_an_answer_is_shown_in_one_line_and_short() -> None:
    shown = answer(500, body=b"no\nERROR forged line " + b"x" * 5000 + b"\xff").text
    assert shown.startswith("it answered 500: 'no\\nERROR")
    assert shown.isprintable()
    assert len(shown) < 200
