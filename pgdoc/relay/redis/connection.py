"""A connection to Redis: redis-py's, with pipelining and its errors mapped to pgdoc's.

It does not reconnect by itself: the log must be looked at again first.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidInput, LogFull, LogRefused, LogUnreachable
from pgdoc.relay.durations import number_of, seconds_of
from pgdoc.relay.extras import needing_extra

with needing_extra("redis"):
    import redis.exceptions
    from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pgdoc.relay.targets import LogTarget

__all__ = ["OPTIONS", "RedisConnection", "packed", "redis_errors"]

OPTIONS: Final = frozenset({
    "db", "socket", "ca", "cert", "key", "timeout", "ack_wait",
    "max_len", "max_age", "max_message", "wait_replicas", "confirm_after",
})  # fmt: skip
"""Those of a relay and of readers, so that one URL does for both."""

_TIMEOUT_S: Final = 5.0
_ANSWER_S: Final = 10.0
_PORT: Final = 6379
_MOST_MOVES: Final = 3

_DENIED: Final = re.compile(r"\bNOPERM\b|The user executing the script|no permissions to")
_FULL: Final = re.compile(r"\b(OOM|MISCONF)\b|used memory > 'maxmemory'|unable to persist")
_AWAY: Final = re.compile(
    r"\b(READONLY|LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|UNBLOCKED|ASK|MOVED)\b"
    r"|read only replica|loading the dataset"
)

_MOVED: Final = re.compile(r"(?:MOVED )?[0-9]+ (.*):([0-9]+)")  # redis-py 5 leaves the word there


@contextmanager
def redis_errors(subject: str) -> Iterator[None]:
    """Map the errors of redis-py to pgdoc's.

    Raises:
        LogUnreachable: the server does not answer, can't write now, or the connection was lost.
        LogFull: it takes no more.
        LogRefused: it refuses.
    """
    try:
        yield
    except redis.exceptions.RedisError as exc:
        raise _mapped(subject, exc) from exc
    except (OSError, TimeoutError, EOFError) as exc:
        found = str(exc) or "no answer in time"
        raise LogUnreachable(f"{subject}: {found}: check that the server runs, and that the URL names it") from exc


def _mapped(subject: str, error: redis.exceptions.RedisError) -> Exception:
    text = f"{subject}: {error}"
    if isinstance(error, redis.exceptions.AuthenticationError) or "WRONGPASS" in text or "NOAUTH" in text:
        return LogRefused(f"{subject}: the server refuses the credentials ({error})", reason="credentials")
    if isinstance(error, redis.exceptions.NoPermissionError) or _DENIED.search(str(error)):
        return LogRefused(f"{text}: grant the user what docs/how-to/relay-to-redis.md lists", reason="rights")
    if isinstance(error, redis.exceptions.OutOfMemoryError) or _FULL.search(text):
        return LogFull(f"{text}: make room in its memory or on its disk, or let the log forget old entries")
    away = (
        redis.exceptions.ConnectionError,
        redis.exceptions.TimeoutError,
        redis.exceptions.ReadOnlyError,
        redis.exceptions.MovedError,
    )
    if isinstance(error, away) or _AWAY.search(text):
        reason = str(error).removesuffix(".")
        return LogUnreachable(f"{subject}: {reason}: check that the server runs, and that the URL names it")
    return LogRefused(text, reason="foreign" if "WRONGTYPE" in text else "config")


def packed(arguments: Iterable[bytes | str | int]) -> list[bytes]:
    """Return arguments as the protocol has them, without the count before the first."""
    parts = []
    for argument in arguments:
        raw = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return parts


class RedisConnection:
    """One connection, to the first server of the URL that will do.

    Attributes:
        lost: what ended the connection; `None` while it is open.
    """

    def __init__(self, target: LogTarget, subject: str) -> None:
        self.target, self._subject = target, subject
        self.lost: BaseException | None = LogUnreachable(f"{subject}: the connection is closed")
        self._timeout_s = seconds_of(target, "timeout") or _TIMEOUT_S
        self._answer_s = seconds_of(target, "ack_wait") or _ANSWER_S
        self._db = number_of(target, "db", least=0, most=1 << 20) or 0
        self._raw: Any = None
        self._expected: deque[asyncio.Future[Any]] = deque()  # answers, in the order of the commands
        self._reading: asyncio.Task[None] | None = None

    async def open(self, key: bytes, *, writes: bool = True) -> None:
        """Connect anew, to the server that has the key.

        Args:
            key: of the log.
            writes: whether it must take writes; a replica does for reading.

        Raises:
            LogUnreachable: no server answers, or none takes writes.
            LogRefused: the server refuses the credentials.
        """
        await self.close()
        error: LogUnreachable | None = None
        for server in self.target.servers:
            try:
                return await self._open_at(server, key, writes=writes)
            except LogUnreachable as exc:
                error = exc
        assert error is not None  # noqa: S101 (a target has a server)
        raise error

    async def _open_at(self, server: tuple[str, int | None], key: bytes, *, writes: bool) -> None:
        for _ in range(_MOST_MOVES):
            await self._connect(server)
            if writes and (await self.ask("ROLE"))[0] != b"master":
                await self.close()
                raise LogUnreachable(
                    f"{self._subject}: {_named(server)} is a replica: it takes no writes until promoted"
                )
            try:
                await self._answered(await self.write(2, packed(["EXISTS", key])))
            except redis.exceptions.RedisError as exc:
                moved = _MOVED.fullmatch(str(exc)) if "Moved" in type(exc).__name__ or "MOVED" in str(exc) else None
                if moved is None:
                    raise _mapped(self._subject, exc) from exc
                server = moved[1] or server[0], int(moved[2])  # the node of a cluster that has the key
                continue
            return
        raise LogUnreachable(f"{self._subject}: the cluster moves the log's keys just now")

    async def _connect(self, server: tuple[str, int | None]) -> None:
        await self.close()
        raw = self._made(server)
        with redis_errors(self._subject):
            try:
                await asyncio.wait_for(raw.connect(), 2 * self._timeout_s)
            except BaseException:
                with contextlib.suppress(Exception):
                    await raw.disconnect(nowait=True)
                raise
        self._raw, self.lost = raw, None
        self._reading = asyncio.create_task(self._read(raw))

    def _made(self, server: tuple[str, int | None]) -> Any:
        target = self.target
        common: dict[str, Any] = {
            "db": self._db,
            "username": target.user,
            "password": target.password,
            "socket_timeout": None,
            "socket_connect_timeout": self._timeout_s,
            "client_name": "pgdoc",
            "protocol": 2,
        }
        options = target.options
        if "socket" in options:
            del common["socket_connect_timeout"]
            return UnixDomainSocketConnection(path=options["socket"], **common)
        common |= {"host": server[0], "port": server[1] or _PORT, "socket_keepalive": True}
        if not target.is_secure:
            if options.keys() & {"ca", "cert", "key"}:
                raise InvalidInput(f"{target.shown} has certificates, which need rediss://")
            return Connection(**common)
        return SSLConnection(
            ssl_ca_certs=options.get("ca"),
            ssl_certfile=options.get("cert"),
            ssl_keyfile=options.get("key"),
            ssl_check_hostname=True,
            **common,
        )

    async def _read(self, raw: Any) -> None:
        """Hand out the answers in their order, until the connection is lost."""
        error: BaseException = ConnectionError("the connection was closed")
        try:
            while True:
                try:
                    answer, refusal = await raw.read_response(disable_decoding=True), None
                except redis.exceptions.ResponseError as exc:
                    answer, refusal = None, exc
                expected = self._expected.popleft()
                if expected.done():  # nobody waits for it any more
                    continue
                if refusal is None:
                    expected.set_result(answer)
                else:
                    expected.set_exception(refusal)
                    expected.exception()  # asyncio would log one that nobody waits for
        except Exception as exc:  # noqa: BLE001 (whatever it is, the connection can't be used any more)
            error = exc
        finally:
            self._lose(error)

    def _lose(self, error: BaseException) -> None:
        if self.lost is None:
            self.lost = error
        while self._expected:
            expected = self._expected.popleft()
            if not expected.done():
                expected.set_exception(LogUnreachable(f"{self._subject}: the connection was lost ({error})"))
                expected.exception()  # asyncio would log one that nobody waits for

    async def write(self, count: int, parts: list[bytes]) -> asyncio.Future[Any]:
        """Write a command of so many arguments, and return the future of its answer.

        Raises:
            LogUnreachable: the connection was lost.
        """
        self.check_open()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._expected.append(answer)  # before anything is awaited: answers come in the order of the commands
        with redis_errors(self._subject):
            sending = self._raw.send_packed_command([b"*%d\r\n%b" % (count, b"".join(parts))], check_health=False)
            await asyncio.wait_for(sending, self._answer_s)  # a server that hangs takes no more at some time
        return answer

    async def ask(self, *arguments: bytes | str | int, wait_s: float = 0.0) -> Any:
        """Run a command, and return its answer.

        Args:
            *arguments: the command.
            wait_s: how much longer than usual the answer may take.

        Raises:
            LogError: as `redis_errors` has it.
        """
        return await self.answered(await self.write(len(arguments), packed(arguments)), wait_s)

    async def answered(self, answer: asyncio.Future[Any], wait_s: float = 0.0) -> Any:
        """Return the answer to a command.

        Raises:
            LogError: as `redis_errors` has it; `LogUnreachable` if it did not come in time.
        """
        with redis_errors(self._subject):
            return await self._answered(answer, wait_s)

    async def _answered(self, answer: asyncio.Future[Any], wait_s: float = 0.0) -> Any:
        try:
            return await asyncio.wait_for(answer, self._answer_s + wait_s)
        except TimeoutError as exc:
            raise LogUnreachable(f"{self._subject} has not answered for {self._answer_s + wait_s:g} s") from exc

    def check_open(self) -> None:
        """Raise `LogUnreachable` if the connection was lost."""
        if self.lost is not None or not self._raw.is_connected:  # it would connect again by itself
            raise LogUnreachable(f"{self._subject}: the connection was lost ({self.lost})")

    async def close(self) -> None:
        """Close the connection."""
        raw, self._raw = self._raw, None
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reading
        self._lose(ConnectionError("it is closed"))
        if raw is not None:
            with contextlib.suppress(Exception):
                await raw.disconnect(nowait=True)


def _named(server: tuple[str, int | None]) -> str:
    return f"{server[0]}:{server[1] or _PORT}"
