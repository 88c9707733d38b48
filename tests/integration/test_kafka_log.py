"""The log in Kafka, against the brokers that librdkafka simulates.

They have no aborted messages, no fencing and no retention, so what depends on these is not shown here.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from pgdoc.errors import InvalidInput, LogRefused, LogUnreachable
from pgdoc.relay.kafka.writer import KafkaWriter
from pgdoc.relay.messages import MessagePart
from pgdoc.relay.targets import LogTarget
from tests.engines import free_port
from tests.logs import CONFIG, PARTITIONS, fresh_log, messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.kafka_brokers import KafkaBrokers


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[KafkaWriter]:
    writer = KafkaWriter(LogTarget.parse(url))
    try:
        yield writer
    finally:
        await writer.close()


async def test_each_message_is_in_the_partition_of_its_document(kafka_brokers: KafkaBrokers) -> None:
    topic = fresh_log()
    async with writing(kafka_brokers.url(topic)) as writer:
        await writer.open(CONFIG)
        assert await writer.send(messages(1, 200)) == 200
    wanted = messages(1, 200)
    for partition in range(PARTITIONS):
        numbered = [(n, each) for n, each in enumerate(wanted, 1) if each.partition in (partition, -1)]
        assert [
            (key, headers["sequence"], headers["token"], body)
            for key, headers, body in kafka_brokers.read(topic, partition)
        ] == [
            (None if each.document_id is None else each.document_id.encode(), str(number), each.token, each.body)
            for number, each in numbered
        ]


async def test_a_relay_goes_on_where_the_one_before_it_ended(kafka_brokers: KafkaBrokers) -> None:
    topic = fresh_log()
    url = kafka_brokers.url(topic)
    async with writing(url) as writer:
        made = await writer.open(CONFIG)
        assert made[:3] == (0, None, None)
        assert [*await asyncio.gather(writer.send(messages(1, 30)), writer.send(messages(31, 60)))] == [30, 60]
    async with writing(url) as writer:
        assert (await writer.open(CONFIG))[:4] == (60, messages(60, 60)[0].token, None, made.identity)
        await writer.send([messages(61, 61)[0]._replace(part=MessagePart(1, 2), traceparent="00-ab-cd-01")])
        end = await writer.open(CONFIG)
        assert (end.part, end.before) == (MessagePart(1, 2), messages(60, 60)[0].token)
        await writer.check(61)
    found = [
        headers["sequence"] for partition in range(PARTITIONS) for _, headers, _ in kafka_brokers.read(topic, partition)
    ]
    assert set(found) == {str(number) for number in range(1, 62)}


async def test_the_position_is_found_after_many_windows(kafka_brokers: KafkaBrokers) -> None:
    url = kafka_brokers.url(fresh_log())
    async with writing(url) as writer:
        await writer.open(CONFIG)
        for number in range(1, 161):
            await writer.send(messages(number, number))
    for _ in range(3):
        async with writing(url) as writer:
            assert (await writer.open(CONFIG)).sequence == 160


async def test_a_topic_of_another_relay_is_refused(kafka_brokers: KafkaBrokers) -> None:
    url = kafka_brokers.url(fresh_log())
    async with writing(url) as writer:
        await writer.open(CONFIG)
    for changes, reason in (({"system_id": 8}, "other_relay"), ({"format": "debezium"}, "config")):
        async with writing(url) as writer:
            with pytest.raises(LogRefused) as refused:
                await writer.open(replace(CONFIG, **changes))
            assert refused.value.reason == reason
    async with writing(url) as writer:
        with pytest.raises(LogRefused, match="4 partitions, and the relay 8"):
            await writer.open(replace(CONFIG, partitions=8))


async def test_positions_that_no_relay_wrote_are_refused(kafka_brokers: KafkaBrokers) -> None:
    topic = fresh_log()
    url = kafka_brokers.url(topic)
    stranger = Producer({"bootstrap.servers": kafka_brokers.servers})
    stranger.produce(f"{topic}.pgdoc", b"text", b"key", partition=0)
    assert stranger.flush(20) == 0
    async with writing(url) as writer:
        with pytest.raises(LogRefused, match="no position that a relay wrote"):
            await writer.open(CONFIG)


async def test_a_window_after_one_that_failed_is_not_stored(kafka_brokers: KafkaBrokers) -> None:
    topic = fresh_log()
    async with writing(kafka_brokers.url(topic)) as writer:
        await writer.open(CONFIG)
        await writer.send(messages(1, 10))
        large = messages(11, 11)[0]._replace(body=b"x" * 3_000_000)
        failed, after = await asyncio.gather(
            writer.send([large]), writer.send(messages(12, 20)), return_exceptions=True
        )
        assert isinstance(failed, LogRefused)
        assert failed.reason == "config"
        assert isinstance(after, LogUnreachable)
        assert (await writer.open(CONFIG)).sequence == 10
        await writer.send(messages(11, 20))
        assert (await writer.open(CONFIG)).sequence == 20


async def test_brokers_that_do_not_answer_are_unreachable() -> None:
    async with writing(f"kafka://127.0.0.1:{free_port()}/orders?timeout=500ms") as writer:
        with pytest.raises(LogUnreachable):
            await writer.open(CONFIG)


@pytest.mark.parametrize("url", ["kafka://h/", "kafka://h/a%20b", "kafka://u:p@h/t?sasl=X", "kafka://h/t?tsl=1"])
def test_a_url_that_names_no_topic_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        KafkaWriter(LogTarget.parse(url))
