"""Signatures of webhooks are those of the Standard Webhooks specification."""

from __future__ import annotations

import base64
import pickle
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from pgdoc import InvalidInput, ResumeToken
from pgdoc.relay.signing import Secrets, webhook_id
from tests.unit.relay.made_events import TOKEN

# The vector of the tests of the specification's own libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105
VECTOR = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def secret_of(key: bytes) -> str:
    return f"whsec_{base64.b64encode(key).decode()}"


def test_the_vector_of_the_specifications_libraries_has_its_signature() -> None:
    assert Secrets.parse(SECRET).sign(*VECTOR) == SIGNATURE


@given(key=st.binary(min_size=24, max_size=64), body=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_message_is_signed_as_the_library_signs_it(key: bytes, body: str) -> None:
    moment = datetime(2026, 11, 23, 3, 41, tzinfo=UTC)
    signed = Secrets.parse([secret_of(key)]).sign("msg_1", int(moment.timestamp()), body.encode())
    assert signed == Webhook(secret_of(key)).sign("msg_1", moment, body)


def test_several_secrets_make_several_signatures() -> None:
    second = secret_of(b"k" * 32)
    for texts in (f"{SECRET} {second}", f"{SECRET}\n{second}\n", [SECRET, second]):
        secrets = Secrets.parse(texts)
        assert len(secrets) == 2
        first, other = secrets.sign(*VECTOR).split(" ")
        assert first == SIGNATURE
        assert other == Secrets.parse(second).sign(*VECTOR)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ("", "webhooks are signed: pass secrets="),
        ([], "webhooks are signed: pass secrets="),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "secret 1 does not begin with whsec_"),
        (f"{SECRET} whsec_%%%", "secret 2 is not base64"),
        (secret_of(b"short"), "secret 1 has 5 bytes"),
        (secret_of(b"l" * 65), "secret 1 has 65 bytes"),
        ([b"whsec_x"], "secret 1 does not begin with whsec_"),
    ],
)
def test_what_is_no_secret_is_refused_and_not_shown(texts: str | list[str], said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        Secrets.parse(texts)
    for text in texts.split() if isinstance(texts, str) else []:
        assert text not in str(caught.value)


def test_a_secret_is_shown_nowhere() -> None:
    secrets = Secrets.parse(SECRET)
    assert repr(secrets) == "<1 secret>"
    with pytest.raises(TypeError, match="can't be pickled"):
        pickle.dumps(secrets)


def test_an_event_has_the_same_id_each_time_and_another_has_another() -> None:
    token = ResumeToken.parse(TOKEN)
    assert webhook_id(token) == webhook_id(ResumeToken.parse(TOKEN))
    assert webhook_id(token) != webhook_id(ResumeToken.parse(TOKEN.replace(".1.0.", ".1.1.")))
    assert "." not in webhook_id(token)
