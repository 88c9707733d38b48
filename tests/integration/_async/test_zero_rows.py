"""Writes that reach no row, or another one than they were given: triggers, policies, rules, and other constraints."""
# ruff: noqa: PT012 (a failing transaction is a block)

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import AsyncStore
from pgdoc._async.table import AsyncTable
from pgdoc.errors import (
    BulkError,
    BulkIncomplete,
    DatabaseError,
    DuplicateDocument,
    InvalidUpdate,
    PgdocError,
    SerializationFailure,
    VersionConflict,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Calls = dict[str, Callable[[Any], Any]]

DROPPED = r"was not written: .*a trigger of the table drops the row: look at the trigger drops"
SET = {"$set": {"n": 7}}

WRITES: Calls = {
    "insert": lambda orders: orders.insert("new", {"n": 7}),
    "update": lambda orders: orders.update("o-1", SET),
    "update if_version": lambda orders: orders.update("o-1", SET, if_version=1),
    "update upsert": lambda orders: orders.update("o-1", SET, upsert=True),
    "update upsert new": lambda orders: orders.update("new", SET, upsert=True),
    "update_one": lambda orders: orders.update_one({"n": 1}, SET),
    "update_one before": lambda orders: orders.update_one({"n": 1}, SET, return_document="before"),
    "update_one upsert": lambda orders: orders.update_one({"n": 1}, SET, upsert=True),
    "update_one upsert new": lambda orders: orders.update_one({"_id": "new"}, SET, upsert=True),
    "replace_one": lambda orders: orders.replace_one({"n": 1}, {"n": 1}),
    "replace_one before": lambda orders: orders.replace_one({"n": 1}, {"n": 1}, return_document="before"),
    "replace_one upsert new": lambda orders: orders.replace_one({"_id": "new"}, {"n": 7}, upsert=True),
    "replace": lambda orders: orders.replace("o-1", {"n": 7}),
    "replace if_version": lambda orders: orders.replace("o-1", {"n": 7}, if_version=1),
    "replace upsert": lambda orders: orders.replace("o-1", {"n": 7}, upsert=True),
    "replace upsert new": lambda orders: orders.replace("new", {"n": 7}, upsert=True),
    "delete": lambda orders: orders.delete("o-1"),
    "delete if_version": lambda orders: orders.delete("o-1", if_version=1),
    "delete_one": lambda orders: orders.delete_one({"n": 1}),
}

BULK_WRITES: Calls = {
    "insert": lambda orders: orders.insert("new", {"n": 7}),
    "update": lambda orders: orders.update("o-1", SET),
    "update upsert": lambda orders: orders.update("o-1", SET, upsert=True),
    "update upsert new": lambda orders: orders.update("new", SET, upsert=True),
    "update_one": lambda orders: orders.update_one({"n": 1}, SET),
    "update_one upsert": lambda orders: orders.update_one({"n": 1}, SET, upsert=True),
    "update_one upsert new": lambda orders: orders.update_one({"_id": "new"}, SET, upsert=True),
    "replace_one": lambda orders: orders.replace_one({"n": 1}, {"n": 1}),
    "replace_one upsert new": lambda orders: orders.replace_one({"_id": "new"}, {"n": 7}, upsert=True),
    "replace": lambda orders: orders.replace("o-1", {"n": 7}),
    "replace upsert": lambda orders: orders.replace("o-1", {"n": 7}, upsert=True),
    "delete": lambda orders: orders.delete("o-1"),
}


@asynccontextmanager
async def filled(own_schema: dict[str, Any], *statements: str) -> AsyncIterator[AsyncStore]:
    """A store with one document in `orders`, on whose table these statements were executed; {t} is the table."""
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {"n": 1})
        await execute(store, own_schema, *statements)
    async with AsyncStore(**own_schema) as store:  # one that has not seen the table before
        yield store


async def execute(store: AsyncStore, own_schema: dict[str, Any], *statements: str) -> None:
    schema = own_schema["schema"]
    async with store.transaction() as tx:
        for statement in statements:
            await tx.connection.execute(statement.format(s=schema, t=f"{schema}.orders").encode())


def trigger(events: str, body: str, name: str = "drops") -> tuple[str, str]:
    return (
        f"CREATE FUNCTION {{s}}.{name}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$",
        f"CREATE TRIGGER {name} BEFORE {events} ON {{t}} FOR EACH ROW EXECUTE FUNCTION {{s}}.{name}()",
    )


def counting(store: AsyncStore, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    sent: list[bytes] = []
    fetch = store._connections.fetch

    async def count(query: bytes, *args: Any, **options: Any) -> Any:
        sent.append(query)
        return await fetch(query, *args, **options)

    monkeypatch.setattr(store._connections, "fetch", count)
    return sent


@pytest.mark.parametrize("call", WRITES)
async def test_a_write_that_a_trigger_drops_is_an_error(
    own_schema: dict[str, Any], call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with filled(own_schema, *trigger("INSERT OR UPDATE OR DELETE", "RETURN NULL;")) as store:
        sent = counting(store, monkeypatch)
        with pytest.raises(DatabaseError, match=DROPPED) as raised:
            await WRITES[call](store["orders"])
        assert not raised.value.retryable
        # At most two attempts (three of an upsert by filter), two looks, one for the reason, and one for the table.
        assert len(sent) <= (7 if "one upsert new" in call else 6)
        document = await store["orders"].get("o-1")
        assert document is not None
        assert (document.data, document.version) == ({"n": 1}, 1)
        assert await store["orders"].count() == 1


@pytest.mark.parametrize("call", WRITES)
@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
async def test_inside_a_transaction_too(own_schema: dict[str, Any], call: str, isolation: str) -> None:
    async with filled(own_schema, *trigger("INSERT OR UPDATE OR DELETE", "RETURN NULL;")) as store:
        async with store.transaction(isolation=isolation) as tx:
            with pytest.raises(DatabaseError, match=DROPPED):
                await WRITES[call](tx["orders"])
            await tx["others"].insert("goes on", {})
        assert await store["others"].count() == 1


@pytest.mark.parametrize("call", BULK_WRITES)
async def test_a_bulk_ends_with_that_error(own_schema: dict[str, Any], call: str) -> None:
    async with filled(own_schema, *trigger("INSERT OR UPDATE OR DELETE", "RETURN NULL;")) as store:
        with pytest.raises(BulkError, match="was not written") as raised:
            async with store.bulk() as bulk:
                await bulk["others"].insert("1", {})
                await BULK_WRITES[call](bulk["orders"])
                await bulk["others"].insert("2", {})
        assert raised.value.index == 1
        assert await store["others"].count() == 0
        assert await store["orders"].count({"n": 1}) == 1


@pytest.mark.parametrize("call", BULK_WRITES)
async def test_a_bulk_that_does_not_know_the_new_trigger_is_run_again(own_schema: dict[str, Any], call: str) -> None:
    async with filled(own_schema) as store:
        async with store.bulk() as bulk:  # learns that there is no trigger
            await bulk["orders"].delete("none")
        await execute(store, own_schema, *trigger("INSERT OR UPDATE OR DELETE", "RETURN NULL;"))
        errors: list[PgdocError] = []
        for _ in range(2):
            try:
                async with store.bulk() as bulk:
                    await bulk["others"].insert("o-1", {})
                    await BULK_WRITES[call](bulk["orders"])
            except PgdocError as exc:
                errors.append(exc)
        *first, last = errors
        assert isinstance(last, BulkError)
        assert isinstance(last.__cause__, DatabaseError)
        for error in first:  # updates count what they were to change, and know at once
            assert isinstance(error, SerializationFailure | BulkError)
            assert not isinstance(error.__cause__, DuplicateDocument)
            assert not isinstance(error, SerializationFailure) or "write 1 of the bulk wrote no document" in str(error)
        assert len(errors) == 2
        assert await store["others"].count() == 0
        assert await store["orders"].count() == 1


@pytest.mark.parametrize("call", BULK_WRITES)
async def test_so_is_an_unordered_bulk(own_schema: dict[str, Any], call: str) -> None:
    async with filled(own_schema) as store:
        async with store.bulk(ordered=False) as bulk:  # learns that there is no trigger
            await bulk["orders"].delete("none")
        await execute(store, own_schema, *trigger("INSERT OR UPDATE OR DELETE", "RETURN NULL;"))
        for _ in range(2):
            with pytest.raises(PgdocError) as raised:
                async with store.bulk(ordered=False) as bulk:
                    await BULK_WRITES[call](bulk["orders"])
            if not isinstance(raised.value, SerializationFailure):
                break
        assert isinstance(raised.value, BulkIncomplete)
        assert [failure.index for failure in raised.value.failures] == [0]
        assert not isinstance(raised.value.failures[0].error, DuplicateDocument)


async def test_a_bulk_looks_once_whether_its_knowledge_is_outdated(
    own_schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with filled(own_schema) as store:
        async with store.bulk() as bulk:
            await bulk["orders"].delete("none")
        looks, look_up = [], AsyncTable._look_up

        async def count(table: AsyncTable) -> Any:
            looks.append(table.name)
            return await look_up(table)

        monkeypatch.setattr(AsyncTable, "_look_up", count)
        async with store.bulk() as bulk:
            for number in range(3_000):  # three chunks
                await bulk["orders"].delete(f"none-{number}")
        assert len(looks) == 1


async def test_a_bulk_on_such_a_table_counts_what_it_writes(own_schema: dict[str, Any]) -> None:
    """The trigger drops nothing here: the writes that change nothing must not be taken for dropped ones."""
    body = "IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW;"
    async with filled(own_schema, *trigger("INSERT OR UPDATE OR DELETE", body)) as store:
        async with store.bulk() as bulk:
            orders = bulk["orders"]
            await orders.insert("o-2", {"n": 2})
            await orders.update("o-1", {"$set": {"n": 1}}, upsert=True)  # no change
            await orders.update("o-1", {"$inc": {"n": 1}}, upsert=True)
            await orders.update("o-1", {"$inc": {"n": 1}})
            await orders.update("missing", SET)
            await orders.replace("missing", {})
            await orders.delete("missing")
            await orders.replace("o-2", {"n": 3})
            await orders.delete("o-2")
            await orders.update("o-3", SET, upsert=True)
        assert (bulk.result.inserted, bulk.result.changed, bulk.result.deleted) == (2, 3, 1)
        with pytest.raises(BulkError, match="already has a document 'o-1'") as raised:
            async with store.bulk() as bulk:
                await bulk["orders"].insert("o-1", {})
        assert isinstance(raised.value.__cause__, DuplicateDocument)
        with pytest.raises(BulkError) as raised:
            async with store.bulk() as bulk:
                await bulk["orders"].update("o-1", {"$inc": {"n.x": 1}}, upsert=True)
        assert isinstance(raised.value.__cause__, InvalidUpdate)


async def test_calls_on_many_documents_count_those_that_were_written(own_schema: dict[str, Any]) -> None:
    body = "IF OLD.data->>'n' = '1' THEN RETURN NULL; ELSIF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW;"
    async with filled(own_schema, *trigger("UPDATE OR DELETE", body)) as store:
        await store["orders"].insert("o-2", {"n": 2})
        assert await store["orders"].update_many({}, {"$set": {"seen": True}}) == 1
        assert await store["orders"].delete_many({}) == 1


async def test_a_missing_document_on_such_a_table_is_no_error(own_schema: dict[str, Any]) -> None:
    async with filled(own_schema, *trigger("INSERT OR UPDATE OR DELETE", "RETURN NULL;")) as store:
        orders = store["orders"]
        assert await orders.update("missing", SET) is None
        assert await orders.replace("missing", {}) is None
        assert await orders.delete("missing") is False
        assert await orders.update_one({"n": 2}, SET) is None
        assert await orders.delete_one({"n": 2}) is None
        with pytest.raises(VersionConflict):
            await orders.delete("missing", if_version=1)
        with pytest.raises(DuplicateDocument):
            await orders.insert("o-1", {})


async def test_a_trigger_that_deletes_softly_runs_a_bounded_number_of_times(own_schema: dict[str, Any]) -> None:
    body = "UPDATE {t} SET data = data || '{{\"deleted\": true}}' WHERE id = OLD.id; RETURN NULL;"
    async with filled(own_schema, *trigger("DELETE", body)) as store:
        with pytest.raises(DatabaseError, match=DROPPED):
            await store["orders"].delete("o-1")
        document = await store["orders"].get("o-1")
        assert document is not None
        assert document.data["deleted"]
        assert document.version <= 3


async def test_a_call_returns_what_a_trigger_has_stored(own_schema: dict[str, Any]) -> None:
    body = "NEW.data := NEW.data || jsonb_build_object('op', TG_OP); RETURN NEW;"
    async with filled(own_schema, *trigger("INSERT OR UPDATE", body, "stamps")) as store:
        orders = store["orders"]
        calls: list[Callable[[], Any]] = [
            lambda: orders.insert("a", {"n": 1}),
            lambda: orders.replace("a", {"n": 2}),
            lambda: orders.replace("a", {"n": 3}, if_version=2),
            lambda: orders.replace("a", {"n": 4}, upsert=True),
            lambda: orders.replace("b", {"n": 4}, upsert=True),
            lambda: orders.update("a", {"$set": {"n": 5}}),
            lambda: orders.update("c", {"$set": {"n": 5}}, upsert=True),
            lambda: orders.update_one({"_id": "a"}, {"$set": {"n": 6}}),
        ]
        for call in calls:
            returned = await call()
            assert "op" in returned.data
            stored = await orders.get(returned.id)
            assert stored is not None
            assert (returned.data, returned.version) == (stored.data, stored.version)
        async with store.transaction() as tx:
            returned = await tx["orders"].insert("d", {})
            assert returned.data == {"op": "INSERT"}


@pytest.mark.parametrize("event", ["INSERT", "UPDATE", "DELETE"])
async def test_a_rule_that_does_nothing_instead_is_an_error(own_schema: dict[str, Any], event: str) -> None:
    calls: Calls = {
        "INSERT": lambda orders: orders.insert("new", {}),
        "UPDATE": lambda orders: orders.update("o-1", SET),
        "DELETE": lambda orders: orders.delete("o-1"),
    }
    async with filled(own_schema, f"CREATE RULE nothing AS ON {event} TO {{t}} DO INSTEAD NOTHING") as store:
        with pytest.raises(DatabaseError) as raised:
            await calls[event](store["orders"])
        assert raised.value.sqlstate == "0A000"
        with pytest.raises(PgdocError, match=r"rule|RETURNING"):
            async with store.transaction() as tx:
                await calls[event](tx["orders"])


UNIQUE = "CREATE UNIQUE INDEX by_mail ON {t} ((data ->> 'mail'))"
SPAN = "int4range((data->>'a')::int, (data->>'b')::int)"
EXCLUDE = f"ALTER TABLE {{t}} ADD CONSTRAINT by_slot EXCLUDE USING gist ({SPAN} WITH &&) WHERE (data ? 'a')"
CONFLICTS: Calls = {
    "insert": lambda orders: orders.insert("new", {"mail": "x", "a": 1, "b": 5}),
    "update upsert": lambda orders: orders.update("new", {"$set": {"mail": "x", "a": 1, "b": 5}}, upsert=True),
    "replace upsert": lambda orders: orders.replace("new", {"mail": "x", "a": 1, "b": 5}, upsert=True),
    "replace upsert of another": lambda orders: orders.replace("o-1", {"mail": "x", "a": 1, "b": 5}, upsert=True),
}


@pytest.mark.parametrize("call", CONFLICTS)
@pytest.mark.parametrize(("constraint", "name"), [(UNIQUE, "by_mail"), (EXCLUDE, "by_slot")], ids=["unique", "exclude"])
async def test_whatever_an_upsert_conflicts_with_is_a_duplicate(
    own_schema: dict[str, Any], call: str, constraint: str, name: str
) -> None:
    async with filled(own_schema, constraint) as store:
        await store["orders"].insert("first", {"mail": "x", "a": 2, "b": 3})
        with pytest.raises(DuplicateDocument, match=name) as raised:
            await CONFLICTS[call](store["orders"])
        assert (raised.value.document_id, raised.value.index) == (None, name)
        async with store.transaction() as tx:
            await tx["orders"].insert("o-2", {"mail": "y"})
            with pytest.raises(DuplicateDocument, match=name):
                await CONFLICTS[call](tx["orders"])
            await tx["orders"].insert("o-3", {"mail": "z"})  # the transaction goes on
        assert await store["orders"].count() == 4
        with pytest.raises(BulkError, match=name):
            async with store.bulk() as bulk:
                await bulk["orders"].insert("new", {"mail": "x", "a": 1, "b": 5})
        with pytest.raises(DuplicateDocument, match=name):
            await store["orders"].insert_many([("new", {"mail": "x", "a": 1, "b": 5})])


async def test_a_deferred_constraint_is_a_duplicate_at_the_commit(own_schema: dict[str, Any]) -> None:
    deferred = (
        "ALTER TABLE {t} ADD COLUMN mail text GENERATED ALWAYS AS (data ->> 'mail') STORED",
        "ALTER TABLE {t} ADD CONSTRAINT by_mail UNIQUE (mail) DEFERRABLE INITIALLY DEFERRED",
    )
    async with filled(own_schema, *deferred) as store:
        await store["orders"].insert("first", {"mail": "x"})
        with pytest.raises(DuplicateDocument, match="by_mail"):
            await store["orders"].insert("second", {"mail": "x"})
        with pytest.raises(DuplicateDocument, match="by_mail"):
            async with store.transaction() as tx:
                await tx["orders"].insert("second", {"mail": "x"})
        assert await store["orders"].count() == 2


@pytest.mark.parametrize(
    ("paths", "data", "values"),
    [
        (("mail",), {"mail": "it's, (x) = 'ä'"}, ("it's, (x) = 'ä'",)),
        (("a.b", "-n"), {"a": {"b": "x, y"}, "n": -12.5}, ("x, y", -12.5)),
        (("a.b", "-n"), {"a": {"b": "x, 3y"}, "n": "z"}, None),  # the report would be the same for "x" and "y, 3z"
        (("n",), {"n": 10**30 + 7}, (10**30 + 7,)),
        (("n",), {"n": 0.001}, (0.001,)),
        (("n",), {}, (None,)),
        (("n", "m"), {"n": True, "m": False}, (True, False)),
        (("n", "m"), {"n": 0, "m": ""}, (0, "")),
        (("list.0", 'odd "n\'\\ame"'), {"list": {"0": "x"}, 'odd "n\'\\ame"': 5}, ("x", 5)),
        (("n",), {"n": {"an": "object"}}, None),
        (("n",), {"n": "long" * 30}, None),
    ],
)
async def test_a_duplicate_names_index_paths_and_values(
    own_schema: dict[str, Any], paths: tuple[str, ...], data: dict[str, Any], values: tuple[Any, ...] | None
) -> None:
    async with AsyncStore(**own_schema) as store:
        name = await store["orders"].create_index(*paths, unique=True)
        await store["orders"].insert("first", data)
        calls: list[Callable[[], Any]] = [
            lambda: store["orders"].insert("second", data),
            lambda: store["orders"].insert_many([("second", data)]),
        ]
        for call in calls:
            with pytest.raises(DuplicateDocument) as raised:
                await call()
            error = raised.value
            assert (error.index, error.document_id, error.values) == (name, None, values)
            assert error.paths == tuple(path.removeprefix("-") for path in paths)
            assert "sort_key" not in str(error)
            assert repr(name) in str(error)
            assert all(path.removeprefix("-") in str(error) or "\\" in path for path in paths)
        async with store.transaction() as tx:
            with pytest.raises(DuplicateDocument) as raised:
                await tx["orders"].insert("second", data)
            assert raised.value.index == name


async def test_a_duplicate_names_the_unique_index_of_two_whose_names_begin_alike(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        name = await store["orders"].create_index("customer_contact_email_address", unique=True)
        await store["orders"].create_index("customer_contact_email_address", "n")
        await store["orders"].insert("first", {})
        with pytest.raises(DuplicateDocument) as raised:
            await store["orders"].insert("second", {})
        assert raised.value.index == name
        with pytest.raises(BulkError) as failed:
            async with store.bulk() as bulk:
                await bulk["orders"].insert("second", {})
        assert isinstance(failed.value.__cause__, DuplicateDocument)
        assert failed.value.__cause__.index == name


async def test_an_id_that_looks_like_a_report_is_reported_as_it_is(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("(id)=(x), (y", {})
        with pytest.raises(DuplicateDocument) as raised:
            await store["orders"].insert_many([("(id)=(x), (y", {})])
        assert raised.value.document_id == "(id)=(x), (y"
        await store["orders"].create_index("mail", unique=True)
        await store["orders"].insert("2", {"mail": "(id)=(o-1)"})
        with pytest.raises(DuplicateDocument) as raised:
            await store["orders"].insert_many([("3", {"mail": "(id)=(o-1)"})])
        assert (raised.value.document_id, raised.value.values) == (None, ("(id)=(o-1)",))


async def test_the_message_is_read_in_every_language(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store, store.transaction() as tx:
        await tx["orders"].create_index("mail", unique=True)
        await tx["orders"].insert("1", {"mail": "x"})
        try:
            await tx.connection.execute("SET LOCAL lc_messages = 'de_DE.UTF-8'")
        except psycopg.Error:
            pytest.skip("the server does not have this locale")
        with pytest.raises(DuplicateDocument) as raised:
            await tx["orders"].insert("2", {"mail": "x"})
        assert raised.value.values == ("x",)


async def test_a_call_returns_the_id_that_a_trigger_has_stored(own_schema: dict[str, Any]) -> None:
    async with filled(own_schema, *trigger("INSERT", "NEW.id := lower(NEW.id); RETURN NEW;", "lowers")) as store:
        orders = store["orders"]
        returned = [
            await orders.insert("A", {}),
            await orders.replace("B", {}, upsert=True),
            await orders.update("C", SET, upsert=True),
        ]
        assert [document.id for document in returned if document] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "write",
    [
        lambda orders: orders.insert("new", {}),
        lambda orders: orders.insert_many([("new", {})]),
        lambda orders: orders.update("o-1", SET),
        lambda orders: orders.replace("o-1", {}, upsert=True),
    ],
)
async def test_a_conflict_in_another_table_is_none_of_the_document(
    own_schema: dict[str, Any], write: Callable[[Any], Any]
) -> None:
    notes = ("CREATE TABLE {s}.notes (id bigint PRIMARY KEY)", "INSERT INTO {s}.notes VALUES (1)")
    made = trigger("INSERT OR UPDATE", "INSERT INTO {s}.notes VALUES (1); RETURN new;", "note")
    async with filled(own_schema, *notes, *made) as store:
        with pytest.raises(DatabaseError, match=rf"A trigger wrote this to the table {own_schema['schema']}.notes"):
            await write(store["orders"])
        assert await store["orders"].count() == 1
