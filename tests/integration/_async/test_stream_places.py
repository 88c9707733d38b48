"""Where a stream starts, and where it can resume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import pgdoc
from pgdoc import AsyncStore
from pgdoc.errors import HistoryLost, InvalidResumeToken
from tests.integration._async.streams import brief, take, take_to

if TYPE_CHECKING:
    import psycopg


async def test_a_stream_begins_with_the_call(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store.create_collection("orders")
        sql.execute("SET synchronous_commit = off")
        for number in range(8):
            sql.execute("INSERT INTO orders (id, data) VALUES (%s, '{}')", [f"before-{number}"])
            async with store["orders"].watch() as stream:
                sql.execute("INSERT INTO orders (id, data) VALUES (%s, '{}')", [f"after-{number}"])
                assert brief(await take(stream)) == [("insert", "orders", f"after-{number}")]


async def test_a_transaction_that_is_open_at_the_call_is_seen_whole(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store.create_collection("orders")
        with sql.transaction():
            sql.execute("INSERT INTO orders (id, data) VALUES ('early', '{}')")
            stream = await store["orders"].watch()
            sql.execute("INSERT INTO orders (id, data) VALUES ('late', '{}')")
        assert [event.document_id for event in await take(stream, 2)] == ["early", "late"]
        await stream.close()


async def write_a_bit_of_everything(store: AsyncStore, sql: psycopg.Connection) -> None:
    """Change documents in all the ways that produce special positions in the WAL."""
    await store["orders"].insert_many((f"copied-{number}", {"n": number}) for number in range(8))
    sql.execute("UPDATE orders SET data = data || '{\"updated\": true}'")
    async with store.transaction(metadata={"user": "alice"}) as tx:
        for name in ("orders", "users", "orders"):
            await tx[name].insert(pgdoc.new_id(), {})
        async with tx.connection.transaction(force_rollback=True):
            await tx["orders"].insert("rolled back", {})
        async with tx.connection.transaction():
            await tx.connection.execute('SELECT pgdoc.set_metadata(\'{"user": "bob"}\')')
            await tx["users"].insert(pgdoc.new_id(), {})
        await tx["orders"].delete("copied-3")
    sql.execute("TRUNCATE users, orders")
    await store["users"].insert("last", {})


async def test_a_stream_resumes_after_every_single_event(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store.create_collection("orders")
        await store.create_collection("users")
        async with store.watch() as stream:
            start = stream.resume_token
            await write_a_bit_of_everything(store, sql)
            await store["users"].insert("end", {})
            events = [event.to_dict() for event in await take_to(stream, "end")]
        assert len(events) == 8 + 8 + 3 + 1 + 1 + 2 + 1
        tokens = [str(start), *(event["resume_token"] for event in events)]
        assert len(set(tokens)) == len(tokens)
        for number, token in enumerate(tokens):
            after = pgdoc.ResumeToken.parse(token) if number % 2 else token
            async with store.watch(resume_after=after) as stream:
                rest = [event.to_dict() for event in await take_to(stream, "end")]
            assert rest == events[number:]


async def test_a_bare_lsn_resumes_with_the_transactions_that_commit_from_there(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        async with store["orders"].watch() as stream:
            with sql.transaction():
                sql.execute("INSERT INTO orders (id, data) VALUES ('1a', '{}'), ('1b', '{}')")
            with sql.transaction():
                sql.execute("INSERT INTO orders (id, data) VALUES ('2a', '{}')")
                inside = sql.execute("SELECT pg_current_wal_lsn()::text").fetchone()
                sql.execute("INSERT INTO orders (id, data) VALUES ('2b', '{}')")
            with sql.transaction():
                sql.execute("INSERT INTO orders (id, data) VALUES ('end', '{}')")
            one, *_ = await take_to(stream, "end")
        assert inside is not None
        lsn = one.resume_token.lsn
        for place, rest in [
            (lsn, ["1a", "1b", "2a", "2b"]),
            (str(lsn), ["1a", "1b", "2a", "2b"]),
            (pgdoc.Lsn(lsn + 1), ["2a", "2b"]),
            (inside[0], ["2a", "2b"]),
        ]:
            async with store["orders"].watch(resume_after=place) as stream:
                assert [event.document_id for event in await take_to(stream, "end")] == rest


async def test_the_token_advances_without_events(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        await store["users"].insert("u-1", {})
        async with store.watch("users") as other:
            sql.execute("INSERT INTO users (id, data) VALUES ('u-2', '{}')")
            (event,) = await take(other)
        tokens = [stream.resume_token]
        while stream.resume_token < event.resume_token:
            assert await stream.next(timeout=0.02) is None
            tokens.append(stream.resume_token)
        assert tokens == sorted(tokens)
        async with store.watch(resume_after=stream.resume_token) as later:
            await store["orders"].insert("end", {})
            assert brief(await take_to(later, "end")) == []


async def test_a_token_depends_on_nothing_but_the_place(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, AsyncStore(shared_dsn, schema=schema) as other:
        await store.create_collection("orders")
        await store.create_collection("users")
        async with (
            store.watch() as everything,
            other.watch() as same,
            store["orders"].watch() as orders,
            other.watch("users", buffer_size=2) as users,
        ):
            await write_a_bit_of_everything(store, sql)
            sql.execute("INSERT INTO orders (id, data) VALUES ('end', '{}')")
            sql.execute("INSERT INTO users (id, data) VALUES ('end', '{}')")
            events = [event.to_dict() for event in await take_to(everything, "end")]
            assert [event.to_dict() for event in await take_to(same, "end")] == events
            for stream, name in [(orders, "orders"), (users, "users")]:
                of_one = [event for event in events if event["collection"] == name]
                assert [event.to_dict() for event in await take_to(stream, "end")] == of_one
        tokens = [pgdoc.ResumeToken.parse(event["resume_token"]) for event in events]
        assert tokens == sorted(tokens)


async def test_an_invalid_resume_token_is_refused(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        async with store["orders"].watch() as stream:
            token = stream.resume_token
        foreign = pgdoc.ResumeToken(token.position, token.system_id + 1, token.timeline)
        future = pgdoc.Lsn(token.lsn + (1 << 40))
        beyond = pgdoc.ResumeToken(token.position._replace(commit_lsn=future), token.system_id, token.timeline)
        timeline = pgdoc.ResumeToken(token.position, token.system_id, token.timeline + 1)
        for place in (foreign, future, beyond, timeline, str(beyond), "no token", "1/2/3", "", f"{token}x", 7, b"1/2"):
            with pytest.raises(InvalidResumeToken):
                async with store["orders"].watch(resume_after=place):  # type: ignore[arg-type]
                    pass


async def test_resuming_before_history_raises_history_lost(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        async with store["orders"].watch():
            pass
        oldest = (await store.history()).oldest
        assert oldest is not None
        with pytest.raises(HistoryLost, match="no longer kept") as raised:
            async with store["orders"].watch(resume_after=pgdoc.Lsn(oldest - 1)):
                pass
        assert raised.value.oldest_available == str(oldest)
        async with store["orders"].watch(resume_after=oldest) as stream:
            await store["orders"].insert("end", {})
            assert brief(await take_to(stream, "end")) in ([], [("create", "orders", None)])
