"""The brokers of Kafka that librdkafka simulates."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition


class KafkaBrokers:
    """Brokers in this process, whose topics have four partitions."""

    def __init__(self) -> None:
        self._client = Producer({"test.mock.num.brokers": 3, "log_level": 2})
        brokers = self._client.list_topics(timeout=20).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def url(self, topic: str, options: str = "") -> str:
        """Make the topics of a log, which these brokers can't be asked to; return its URL."""
        for name in (topic, f"{topic}.pgdoc"):
            self._client.list_topics(name, timeout=20)
        return f"kafka://{self.servers}/{topic}{options}"

    def read(self, topic: str, partition: int) -> list[tuple[bytes | None, dict[str, str], bytes]]:
        """Return what a partition has: keys, headers and bodies."""
        consumer = Consumer(
            {"bootstrap.servers": self.servers, "group.id": "test", "enable.partition.eof": True, "log_level": 2}
        )
        found: list[tuple[bytes | None, dict[str, str], bytes]] = []
        try:
            consumer.assign([TopicPartition(topic, partition, 0)])
            while True:
                message = consumer.poll(20)
                assert message is not None
                error = message.error()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF
                    return found
                raw: Any = message.headers() or []
                headers = {name: value.decode() for name, value in raw}
                found.append((message.key(), headers, message.value() or b""))
        finally:
            consumer.close()
