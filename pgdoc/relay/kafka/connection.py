"""The clients of Kafka, with their errors mapped to pgdoc's. Their calls block: they run in a thread of their own."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidInput, LogFull, LogRefused, LogUnreachable
from pgdoc.relay.durations import seconds_of
from pgdoc.relay.extras import needing_extra
from pgdoc.relay.targets import url_host

with needing_extra("kafka"):
    from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
    from confluent_kafka.admin import AdminClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.relay.targets import LogTarget

__all__ = ["OPTIONS", "KafkaClients", "kafka_errors"]

OPTIONS: Final = frozenset({
    "tls", "sasl", "ca", "cert", "key", "timeout", "replicas", "max_message", "confirm_after",
})  # fmt: skip

_TIMEOUT_S: Final = 30.0
_PORT: Final = 9092
_HEADER_ROOM: Final = 64 << 10
_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_TOPIC: Final = re.compile(r"[A-Za-z0-9_.-]{1,200}")

_CREDENTIALS: Final = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}  # noqa: SLF001 (its public name)
_RIGHTS: Final = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
_SETTINGS: Final = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.POLICY_VIOLATION,
    KafkaError._INVALID_ARG,  # noqa: SLF001 (its public name)
}
_FULL: Final = {KafkaError.KAFKA_STORAGE_ERROR, KafkaError.THROTTLING_QUOTA_EXCEEDED}


@contextmanager
def kafka_errors(subject: str) -> Iterator[None]:
    """Map the errors of Kafka's client to pgdoc's.

    Raises:
        LogUnreachable: no broker answers, or another relay writes.
        LogFull: the brokers can't store it now.
        LogRefused: they refuse.
    """
    try:
        yield
    except KafkaException as exc:
        raise mapped_error(subject, exc.args[0]) from exc


def mapped_error(subject: str, error: KafkaError) -> Exception:
    """Return the error of pgdoc for one of Kafka's."""
    text, code = f"{subject}: {error.str()} ({error.name()})", error.code()
    if code in _CREDENTIALS:
        return LogRefused(text, reason="credentials")
    if code in _RIGHTS:
        return LogRefused(text, reason="rights")
    if code in _SETTINGS:
        return LogRefused(text, reason="config")
    return LogFull(text) if code in _FULL else LogUnreachable(text)


class KafkaClients:
    """Makes the clients of the brokers that a URL names.

    Attributes:
        topic: of the log.
        positions: the topic in which each window notes how far the log has come.
        shown: for messages.
    """

    def __init__(self, target: LogTarget) -> None:
        target.check_options(OPTIONS)
        if not _TOPIC.fullmatch(target.name):
            raise InvalidInput(
                f"{target.shown} names no topic: add its name, of letters, digits, _ . and -, such as kafka://host/orders"
            )
        self.topic, self.positions = target.name, f"{target.name}.pgdoc"
        self.shown = f'the topic "{target.name}" of {target.shown}'
        self.timeout_s = seconds_of(target, "timeout") or _TIMEOUT_S
        self._common = _settings(target)

    def producer(self, limit: int) -> Producer:
        """Return a producer of bodies of up to this size, whose transactions end those of any other one of this log."""
        return Producer(
            self._common
            | {
                "transactional.id": f"pgdoc-{self.topic}",
                "transaction.timeout.ms": int(1000 * self.timeout_s),
                "message.max.bytes": limit + _HEADER_ROOM,
                "linger.ms": 5,
            }
        )

    def consumer(self) -> Consumer:
        """Return a consumer that sees only what was committed, and the end of a partition."""
        return Consumer(
            self._common
            | {
                "group.id": f"pgdoc-{self.topic}",  # it must have one; it commits no offset there
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )

    def admin(self) -> AdminClient:
        """Return a client that creates topics."""
        return AdminClient(self._common)


def _settings(target: LogTarget) -> dict[str, Any]:
    options = target.options
    is_secure = options.get("tls", "no") not in ("no", "false", "0") or bool(options.keys() & {"ca", "cert"})
    settings: dict[str, Any] = {
        "bootstrap.servers": ",".join(f"{url_host(host)}:{port or _PORT}" for host, port in target.servers),
        "client.id": "pgdoc",
        "log_level": 2,  # it writes to stderr; errors are raised
    }
    protocol = "SSL" if is_secure else "PLAINTEXT"
    if target.user is not None:
        mechanism = options.get("sasl", "PLAIN")
        if mechanism not in _MECHANISMS:
            raise InvalidInput(f"sasl in {target.shown} must be one of {', '.join(_MECHANISMS)}")
        protocol = f"SASL_{protocol}"
        settings |= {"sasl.mechanism": mechanism, "sasl.username": target.user, "sasl.password": target.password or ""}
    files = {"ca": "ssl.ca.location", "cert": "ssl.certificate.location", "key": "ssl.key.location"}
    settings |= {name: options[option] for option, name in files.items() if option in options}
    return settings | {"security.protocol": protocol}
