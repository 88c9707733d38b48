"""Who can make an event of the application's own, and what can't be taken for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc import ChangeEvent, DatabaseError, InvalidName

if TYPE_CHECKING:
    from pgdoc import ChangeStream
    from tests.security.conftest import SharedDatabase

PATIENCE_S = 30
ROW = """{"topic": "order.shipped", "key": "k", "payload": "{}"}"""


def grant(db: SharedDatabase, role: str) -> None:
    for right in (
        "EXECUTE ON FUNCTION pgdoc.publish(text, jsonb, text)",
        "INSERT (topic, key, payload) ON pgdoc.messages",
    ):
        db.connect().execute(f"GRANT {right} TO {db.roles[role]}".encode())


def take(stream: ChangeStream, count: int) -> list[ChangeEvent]:
    found = [stream.next(timeout=PATIENCE_S) for _ in range(count)]
    assert None not in found
    return [event for event in found if event is not None]


@pytest.mark.parametrize("role", ["stranger", "reader", "streamer", "creator"])
def test_a_role_without_the_grant_publishes_nothing(db: SharedDatabase, role: str) -> None:
    connection = db.connect(role)
    for statement in (
        "SELECT pgdoc.publish('order.shipped', '{}')",
        "INSERT INTO pgdoc.messages (topic, payload) VALUES ('order.shipped', '{}')",
        "COPY pgdoc.messages (topic, payload) FROM STDIN",
        "UPDATE pgdoc.messages SET topic = 'x'",
        "DELETE FROM pgdoc.messages",
        "TRUNCATE pgdoc.messages",
        "SELECT * FROM pgdoc.messages",
        "SELECT pgdoc.delete_message()",
        "CREATE TRIGGER t AFTER INSERT ON pgdoc.messages FOR EACH ROW EXECUTE FUNCTION tsvector_update_trigger()",
    ):
        with pytest.raises(psycopg.Error):
            connection.execute(statement.encode())
    with pytest.raises(DatabaseError, match=r"GRANT EXECUTE ON FUNCTION pgdoc.publish\(.*\) TO .* --as writer"):
        db.store(role).publish("order.shipped", {})


def test_a_role_with_the_grant_publishes_and_can_do_no_more(db: SharedDatabase, plugin: str) -> None:
    grant(db, "writer")
    writer = db.connect("writer")
    with db.store("streamer", plugin=plugin).watch(topics=["*"]) as stream:
        db.store("writer").publish("order.shipped", {"n": 1}, key="o-1")
        writer.execute("SELECT pgdoc.publish('order.made', '2')")
        with writer.cursor() as cursor, cursor.copy("COPY pgdoc.messages (topic, payload) FROM STDIN") as copy:
            copy.write_row(("order.copied", "3"))
        assert [event.topic for event in take(stream, 3)] == ["order.shipped", "order.made", "order.copied"]
    for statement in (
        "INSERT INTO pgdoc.messages (id, topic, payload) OVERRIDING SYSTEM VALUE VALUES (9, 'a', '1')",
        "INSERT INTO pgdoc.messages (topic, payload) VALUES ('a', '1') RETURNING id",
        "SELECT * FROM pgdoc.messages",
        "UPDATE pgdoc.messages SET topic = 'x'",
        "DELETE FROM pgdoc.messages",
        "TRUNCATE pgdoc.messages",
        "ALTER TABLE pgdoc.messages DISABLE TRIGGER pgdoc_delete",
        "SELECT nextval('pgdoc.messages_id_seq')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute(statement.encode())
    assert db.connect().execute("SELECT count(*) FROM pgdoc.messages").fetchone() == (0,)


def test_nothing_else_is_taken_for_an_event(db: SharedDatabase, plugin: str) -> None:
    """A logical message of any form, a table of the same name, and a watched table whose name is that of a topic."""
    creator, stranger = db.connect("creator"), db.connect("stranger")
    owner = db.connect()
    owner.execute("SELECT pgdoc.create_collection('docs', 'messages')")
    with db.store("streamer", plugin=plugin).watch("messages", topics=["*"]) as stream:
        for prefix in ("pgdoc", "pgdoc.messages", "message"):
            stranger.execute("SELECT pg_logical_emit_message(true, %s, %s)", [prefix, ROW])
            stranger.execute("SELECT pg_logical_emit_message(false, %s, %s)", [prefix, ROW])
        creator.execute("CREATE TABLE docs.other (id bigint, topic text, key text, payload jsonb, PRIMARY KEY (id))")
        creator.execute("INSERT INTO docs.other VALUES (1, 'order.shipped', 'k', '{}')")
        owner.execute("INSERT INTO docs.messages (id, data) VALUES ('m-1', '{}')")
        owner.execute("SELECT pgdoc.publish('end', '{}')")
        events = take(stream, 2)
    assert [(event.event_type, event.collection) for event in events] == [
        ("insert", "messages"),
        ("message", "topic:end"),
    ]


def test_a_table_with_the_name_of_a_topic_is_not_watched_as_one(db: SharedDatabase, plugin: str) -> None:
    owner = db.connect()
    owner.execute('CREATE SCHEMA "topic:order"')
    owner.execute('CREATE TABLE "topic:order".shipped (id text PRIMARY KEY)')
    with pytest.raises(InvalidName, match="is the name of a topic"):
        db.store().add_table("topic:order.shipped")
    owner.execute("""SELECT pgdoc.add_table('"topic:order".shipped')""")
    with db.store("streamer", plugin=plugin).watch(topics=["*"]) as stream:
        owner.execute("""INSERT INTO "topic:order".shipped VALUES ('forged')""")
        owner.execute("SELECT pgdoc.publish('end', '{}')")
        assert [event.topic for event in take(stream, 1)] == ["end"]


def test_a_publisher_that_waits_does_not_keep_others_from_publishing(db: SharedDatabase) -> None:
    grant(db, "writer")
    waiting = db.connect("writer", autocommit=False)
    for mode in ("SHARE ROW EXCLUSIVE", "ROW EXCLUSIVE"):  # no LOCK at all: the grant is on columns
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            waiting.execute(f"LOCK TABLE pgdoc.messages IN {mode} MODE".encode())
        waiting.rollback()
    waiting.execute("SELECT pgdoc.publish('a', '1')")
    other = db.connect(options="-c lock_timeout=5s")
    other.execute("SELECT pgdoc.publish('a', '2')")
    waiting.rollback()
