"""For how long the session of a consumer's owner may be idle before another process can own the consumer."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Lease"]

_TAKEOVER_S: Final = 120
"""During a takeover: its steps wait for other connections, which a busy server is slow to open."""

_UNHURRIED_S: Final = 900
"""While a slot is made, which can take minutes."""


class Lease:
    """The part of `Ownership` that keeps the claim while other connections work.

    Attributes:
        lease_s: how long the session may be idle at other times.
    """

    lease_s: int
    _is_taking_over = False

    def _one(self, name: str, *params: Any) -> Any:
        raise NotImplementedError

    def _claimed(self) -> dict[str, Any]:
        raise NotImplementedError

    @contextlib.contextmanager
    def taking_over(self) -> Iterator[None]:
        """Let the session stay idle for longer during a takeover; one that fails closes the session.

        Else a takeover that is slower than the lease would lose the claim, and begin again, for ever.
        """
        self._is_taking_over = True
        self._renew()
        yield
        self._is_taking_over = False
        self._renew()

    @contextlib.contextmanager
    def unhurried(self) -> Iterator[None]:
        """Let the session stay idle for longer, while another connection does slow work."""
        self.stay_unhurried()
        try:
            yield
        finally:
            self._renew()

    def stay_unhurried(self) -> None:
        """Begin the same time again, for one more piece of slow work."""
        self._set_lease(_UNHURRIED_S)

    def _renew(self) -> None:
        self._set_lease(_TAKEOVER_S if self._is_taking_over else self.lease_s)

    def _set_lease(self, ttl_s: int) -> None:
        ttl = {"ttl": timedelta(seconds=ttl_s), "timeout": f"{ttl_s}s"}
        self._one("renew", self._claimed() | ttl)
