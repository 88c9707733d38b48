"""TCP ports of 127.0.0.1 for a local server."""

from __future__ import annotations

import errno
import socket

from pgdoc.errors import ServerStartFailed

__all__ = ["check_port", "free_port"]


def check_port(port: int) -> None:
    """Refuse a port that a server could not listen on; PostgreSQL reports that only in its log."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as exc:
            is_used = isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE
            found = "is in use" if is_used else f"can't be used ({exc})"
            raise ServerStartFailed(f"port {port} {found}: choose another port, or 0 for a free one") from exc


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
