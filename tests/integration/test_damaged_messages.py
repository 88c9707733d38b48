"""Damaged messages of both plugins make the decoders raise `ProtocolError` with the offset, and nothing else."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc import Lsn
from pgdoc.decoding.frames import PAYLOAD
from pgdoc.decoding.plugins import PLUGINS
from pgdoc.decoding.records import RowChange
from pgdoc.errors import ProtocolError
from tests.plugins import Workload
from tests.unit import wire

if TYPE_CHECKING:
    from pgdoc.decoding.plugins import Decoder

pytestmark = pytest.mark.usefixtures("both_plugins")

ROUNDS = 3_000
IN_A_ROW = 12
SMALL = 5_000


@pytest.fixture
def captured(shared_dsn: str, schema: str) -> dict[str, list[bytes]]:
    """The frames of a varied workload, as each plugin sends them."""
    with psycopg.connect(shared_dsn, autocommit=True) as connection:
        for plugin in PLUGINS:
            connection.execute("SELECT pg_create_logical_replication_slot(%s, %s)", [f"test_{plugin}", plugin])
        workload = Workload(connection, schema, 1)
        workload.prepare()
        for _ in range(20):
            workload.transaction()
        frames = {plugin: read(connection, plugin, schema) for plugin in PLUGINS}
        for plugin in PLUGINS:  # permanent: an error of the workload would drop temporary slots
            connection.execute("SELECT pg_drop_replication_slot(%s)", [f"test_{plugin}"])
        return frames


def read(connection: psycopg.Connection, plugin: str, schema: str) -> list[bytes]:
    options = [word for option in PLUGINS[plugin].options(schema).items() for word in option]
    places = ", ".join(["%s"] * len(options))
    query = f"SELECT lsn::text, data FROM pg_logical_slot_get_binary_changes(%s, NULL, NULL, {places})"
    rows = connection.execute(query.encode(), [f"test_{plugin}", *options]).fetchall()
    return [wire.xlog_data(Lsn.parse(lsn), bytes(data)) for lsn, data in rows]


@pytest.mark.parametrize("plugin", PLUGINS)
def test_they_raise_nothing_but_protocol_errors(captured: dict[str, list[bytes]], plugin: str, schema: str) -> None:
    frames = captured[plugin]
    decode(PLUGINS[plugin].decoder(schema), frames)
    small = [frame for frame in frames if len(frame) < SMALL]
    chance = random.Random(7)
    errors = 0
    for _ in range(ROUNDS):
        decoder = PLUGINS[plugin].decoder(schema)
        start = chance.randrange(len(small))
        for frame in small[start : start + IN_A_ROW]:
            damaged = damage(frame, chance)
            try:
                decode(decoder, [damaged])
            except ProtocolError as exc:
                assert 0 <= exc.offset <= max(PAYLOAD + 5, len(damaged))  # noqa: PT017
                errors += 1
    assert errors > ROUNDS


def decode(decoder: Decoder, frames: list[bytes]) -> None:
    for record in decoder.decode(frames):
        if isinstance(record, RowChange):
            record.images()


def damage(frame: bytes, chance: random.Random) -> bytes:
    """Change some bytes of a frame, truncate it, extend it or replace it; return many unchanged."""
    how = chance.random()
    if how < 0.3:
        changed = bytearray(frame)
        for _ in range(chance.choice([1, 1, 2, 5])):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        return bytes(changed)
    if how < 0.45:
        return frame[: chance.randrange(len(frame) + 1)]
    if how < 0.5:
        return chance.randbytes(chance.randrange(60))
    return frame + chance.randbytes(chance.randrange(9)) if how < 0.55 else frame
