"""Signatures of webhooks, as the Standard Webhooks specification has them (https://www.standardwebhooks.com).

The receiver computes the HMAC-SHA256 of `id.timestamp.body` with the secret that both have, and compares.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.model.tokens import ResumeToken

__all__ = ["SECRET_VARIABLE", "Secrets", "webhook_id"]

SECRET_VARIABLE: Final = "PGDOC_WEBHOOK_SECRET"  # noqa: S105 (a name)
_PREFIX: Final = "whsec_"
_FORM: Final = f"a secret is {_PREFIX} and the base64 of 24 to 64 random bytes"
_LEAST_BYTES: Final = 24
_MOST_BYTES: Final = 64


def webhook_id(token: ResumeToken) -> str:
    """Return what identifies an event for its receiver: the same each time it is sent, by any process.

    A digest, since the specification wants no full stop in it, and since a token from inside a snapshot may be long.
    """
    return f"msg_{hashlib.sha256(str(token).encode()).hexdigest()[:40]}"


class Secrets:
    """The secrets that sign messages: several while a receiver changes from one to the next. Shown nowhere."""

    __slots__ = ("_keys",)

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self._keys = keys

    @classmethod
    def parse(cls, given: str | Iterable[str]) -> Secrets:
        """Read secrets: a list, or a text with spaces or line breaks between them, as a variable or a file has it.

        Raises:
            InvalidInput: there is none, or one is not a secret. The message does not show it.
        """
        texts = re.split(r"\s+", given.strip()) if isinstance(given, str) else list(given)
        keys = tuple(_key_of(text, number) for number, text in enumerate(filter(None, texts), 1))
        if not keys:
            raise InvalidInput(
                f"webhooks are signed: pass secrets=, or set the environment variable {SECRET_VARIABLE}; {_FORM}"
            )
        return cls(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"<{len(self._keys)} secret{'s' * (len(self._keys) != 1)}>"

    def __reduce__(self) -> Any:
        raise TypeError("secrets can't be pickled: they would be readable there")

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """Return the value of `webhook-signature`: one signature for each secret."""
        signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
        digests = (hmac.digest(key, signed, hashlib.sha256) for key in self._keys)
        return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def _key_of(text: Any, number: int) -> bytes:
    if not isinstance(text, str) or not text.startswith(_PREFIX):
        raise InvalidInput(f"webhook secret {number} does not begin with {_PREFIX}: {_FORM}")
    encoded = text.removeprefix(_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = None
    if key is None:
        raise InvalidInput(f"webhook secret {number} is not base64 after {_PREFIX}: {_FORM}")
    if not _LEAST_BYTES <= len(key) <= _MOST_BYTES:
        raise InvalidInput(f"webhook secret {number} has {len(key)} bytes: {_FORM}")
    return key
