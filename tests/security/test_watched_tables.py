"""Who may let streams watch a table, and what other roles, copies and publications can do about it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

import pgdoc
from pgdoc.database.migrate import downgrade, migrate
from tests.fixtures.fix_server import _connect_admin, _database
from tests.security.test_copies import _restore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.security.conftest import SharedDatabase

CREATE = "CREATE TABLE shop.orders (id bigint PRIMARY KEY, total numeric)"


def run(db: SharedDatabase, statement: str, role: str = "superuser") -> list[tuple[Any, ...]]:
    """Run SQL in which `{owner}` and the like are names of roles."""
    names = {kind: sql.Identifier(name) for kind, name in db.roles.items()}
    cursor = db.connect(role).execute(sql.SQL(statement).format(**names))
    return cursor.fetchall() if cursor.description else []


@pytest.fixture
def team(db: SharedDatabase) -> SharedDatabase:
    """The role `creator` owns a schema `shop` and the table `shop.orders`, and has no other right."""
    run(db, "CREATE SCHEMA shop AUTHORIZATION {creator}; GRANT USAGE ON SCHEMA shop TO PUBLIC")
    run(db, CREATE, "creator")
    return db


@pytest.fixture
def allowed(team: SharedDatabase) -> SharedDatabase:
    """`creator` may register its tables, and the catalog's owner may publish them."""
    grant = "GRANT EXECUTE ON FUNCTION pgdoc.enter_table(regclass, text, text) TO {creator}"
    run(team, grant, "owner")
    if team.catalog == "owner":
        run(team, "GRANT {creator} TO {owner}")
    return team


def test_a_role_is_told_which_rights_it_lacks_one_after_the_other(team: SharedDatabase) -> None:
    creator, owner = team.roles["creator"], team.roles["owner"]
    stranger = team.store("stranger").check_table("shop.orders").refusals
    assert stranger[-1] == pgdoc.Refusal(f'role "{team.roles["stranger"]}" is not its owner', f'run it as "{creator}"')
    store, cures = team.store("creator"), []
    for _ in range(3):
        refusals = store.check_table("shop.orders").refusals
        if not refusals:
            break
        with pytest.raises(pgdoc.TableRefused) as caught:
            store.add_table("shop.orders")
        assert pgdoc.Refusal(caught.value.reason, caught.value.cure or "") == refusals[0]
        cure = refusals[0].cure
        cures.append(cure)
        run(team, cure[cure.index("GRANT") :], "superuser" if "GRANT EXECUTE" not in cure else "owner")
    assert len(cures) == (1 if team.catalog == "superuser" else 2)
    assert f'as "{owner}"' in cures[0]
    assert store.add_table("shop.orders")


def test_a_member_of_the_owner_adds_and_removes_a_table(allowed: SharedDatabase) -> None:
    run(allowed, "GRANT {creator} TO {writer}")
    run(allowed, "GRANT EXECUTE ON FUNCTION pgdoc.enter_table(regclass, text, text) TO {writer}", "owner")
    store = allowed.store("writer")
    assert [store.add_table("shop.orders"), store.remove_table("shop.orders")] == [True, True]


def test_a_member_that_does_not_inherit_becomes_the_owner_first(allowed: SharedDatabase) -> None:
    run(allowed, "ALTER ROLE {writer} NOINHERIT; GRANT {creator} TO {writer}")
    writer = allowed.connect("writer")
    with pytest.raises(psycopg.Error, match="is not its owner"):
        writer.execute("SELECT pgdoc.add_table('shop.orders')")
    writer.execute(sql.SQL("SET ROLE {}").format(allowed.identifier("creator")))
    assert writer.execute("SELECT pgdoc.add_table('shop.orders'), pgdoc.remove_table('shop.orders')").fetchone() == (
        True,
        True,
    )


def test_nobody_but_the_owner_ends_the_watching(allowed: SharedDatabase) -> None:
    allowed.store("creator").add_table("shop.orders")
    for call in ("leave_table", "remove_table"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(allowed, f"SELECT pgdoc.{call}('shop.orders')", "stranger")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        run(allowed, "SELECT pgdoc.enter_table('shop.orders', NULL, NULL)", "stranger")
    assert [table.name for table in allowed.store("creator").tables()] == ["shop.orders"]


def test_a_function_that_a_superuser_runs_ends_no_watching(allowed: SharedDatabase) -> None:
    allowed.store("creator").add_table("shop.orders")
    run(allowed, "CREATE SCHEMA hostile AUTHORIZATION {stranger}")
    for statement in (
        "CREATE TABLE hostile.bait (n int)",
        (
            "CREATE FUNCTION hostile.attack() RETURNS void LANGUAGE plpgsql AS $$ BEGIN "
            "SET CONSTRAINTS pgdoc.pgdoc_order IMMEDIATE; PERFORM pgdoc.leave_table('shop.orders'); END $$"
        ),
        (
            "CREATE FUNCTION hostile.call(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN "
            "IF session_user <> current_user THEN PERFORM hostile.attack(); END IF; RETURN n; END $$"
        ),
        "CREATE INDEX ON hostile.bait (hostile.call(n))",
        "INSERT INTO hostile.bait VALUES (1), (2)",
    ):
        run(allowed, statement, "stranger")
    with pytest.raises(psycopg.Error, match="security-restricted operation"):
        run(allowed, "ANALYZE hostile.bait")  # as autovacuum does
    assert [table.name for table in allowed.store("creator").tables()] == ["shop.orders"]


def test_a_snapshot_runs_no_check_of_a_domain(allowed: SharedDatabase) -> None:
    for statement in (
        "CREATE TABLE shop.log (role text)",
        (
            "CREATE FUNCTION shop.log(n int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO shop.log VALUES (current_user); RETURN true; END $$"
        ),
        "CREATE DOMAIN shop.number AS int CHECK (shop.log(VALUE))",
        "CREATE TABLE shop.bait (n shop.number PRIMARY KEY)",
        "INSERT INTO shop.bait VALUES (1), (2), (3)",
        "TRUNCATE shop.log",
    ):
        run(allowed, statement, "creator")
    allowed.store("creator").add_table("shop.bait")
    part = run(allowed, "SELECT orders, ids FROM pgdoc.read_table('shop', 'bait', '{{1}}', 5, 1000)")
    assert part == [(["int"], b"2\x003")]
    assert run(allowed, "SELECT * FROM shop.log") == []


def test_a_snapshot_runs_no_policy(allowed: SharedDatabase) -> None:
    for statement in (
        "CREATE TABLE shop.log (role text)",
        "GRANT SELECT ON shop.orders TO {streamer}; GRANT INSERT ON shop.log TO {streamer}",
        (
            "CREATE FUNCTION shop.log() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO shop.log VALUES (current_user); RETURN true; END $$"
        ),
        "CREATE POLICY bait ON shop.orders USING (shop.log())",
        "ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY",
        "INSERT INTO shop.orders VALUES (1, 2)",
    ):
        run(allowed, statement, "creator")
    allowed.store("creator").add_table("shop.orders")
    part = "SELECT hides_rows, rows FROM pgdoc.read_table('shop', 'orders', NULL, 5, 1000)"
    assert run(allowed, part, "streamer") == [(True, None)]
    assert run(allowed, "SELECT * FROM shop.log") == []


def test_the_owner_of_the_publication_is_told_what_the_owner_of_the_catalog_lacks(team: SharedDatabase) -> None:
    run(team, "GRANT EXECUTE ON FUNCTION pgdoc.enter_table(regclass, text, text) TO {creator}", "owner")
    run(team, f'GRANT CREATE ON DATABASE "{team.name}" TO {{creator}}; ALTER PUBLICATION pgdoc OWNER TO {{creator}}')
    store = team.store("creator")
    if team.catalog == "owner":
        for reason, cure in (
            ("owns the publication", "ALTER PUBLICATION pgdoc OWNER TO {owner}"),
            ("may not publish it", "GRANT {creator} TO {owner}"),
        ):
            with pytest.raises(pgdoc.TableRefused, match=reason):
                store.add_table("shop.orders")
            run(team, cure)
    assert store.add_table("shop.orders")


def test_what_a_former_identity_contains_is_never_run(allowed: SharedDatabase) -> None:
    """The owner of a table calls the inner half itself; a superuser removes the table later."""
    run(allowed, "ALTER TABLE shop.orders REPLICA IDENTITY FULL", "creator")
    for text in ("d; DROP TABLE shop.orders", "DEFAULT; DROP TABLE shop.orders"):
        with pytest.raises(psycopg.errors.CheckViolation):
            run(allowed, f"SELECT pgdoc.enter_table('shop.orders', NULL, '{text}')", "creator")
    index = 'i:orders_pkey"; DROP TABLE shop.orders; --'
    run(allowed, f"SELECT pgdoc.enter_table('shop.orders', NULL, '{index}')", "creator")
    run(allowed, "SELECT pgdoc.remove_table('shop.orders')", "owner" if allowed.catalog == "owner" else "superuser")
    assert run(allowed, "SELECT relreplident FROM pg_class WHERE oid = 'shop.orders'::regclass") == [("d",)]


def test_a_removed_table_leaves_the_publication_of_another_role(allowed: SharedDatabase) -> None:
    store = allowed.store("creator")
    store.add_table("shop.orders")
    store.remove_table("shop.orders")
    assert run(allowed, "SELECT FROM pg_publication_tables WHERE schemaname = 'shop'") == []
    run(
        allowed, "ALTER TABLE shop.orders DROP CONSTRAINT orders_pkey; INSERT INTO shop.orders VALUES (1, 2)", "creator"
    )
    run(allowed, "UPDATE shop.orders SET total = 3", "creator")


@pytest.mark.parametrize("identity", ["DEFAULT", "NOTHING", "FULL", 'USING INDEX "other key"'])
def test_a_removed_table_has_its_former_replica_identity(allowed: SharedDatabase, identity: str) -> None:
    found = (
        "SELECT relreplident, array(SELECT indexrelid::regclass::text FROM pg_index WHERE indisreplident) "
        "FROM pg_class WHERE oid = 'shop.orders'::regclass"
    )
    run(
        allowed,
        'ALTER TABLE shop.orders ALTER total SET NOT NULL; CREATE UNIQUE INDEX "other key" ON shop.orders (total)',
        "creator",
    )
    run(allowed, f"ALTER TABLE shop.orders REPLICA IDENTITY {identity}", "creator")
    before = run(allowed, found)
    store = allowed.store("creator")
    store.add_table("shop.orders")
    assert run(allowed, found)[0][0] == "f"
    store.remove_table("shop.orders")
    assert run(allowed, found) == before


def test_a_watched_table_is_no_collection_and_becomes_none(db: SharedDatabase) -> None:
    """It may stand beside the collections, have their form, and even their trigger."""
    store = db.store("owner")
    run(db, "CREATE TABLE docs.plain (LIKE docs.orders INCLUDING ALL)", "owner")
    trigger = "CREATE TRIGGER pgdoc_before_update BEFORE UPDATE ON docs.plain FOR EACH ROW"
    run(db, f"{trigger} EXECUTE FUNCTION pgdoc.before_update()", "owner")
    assert store.add_table("docs.plain")
    assert store.collections() == ["orders"]
    with pytest.raises(pgdoc.CollectionNotFound, match="is not a collection"):
        store["plain"].insert("p-1", {})
    with pytest.raises(psycopg.Error, match="remove_table"):
        run(db, "SELECT pgdoc.register('docs.plain')", "owner")
    with pytest.raises(psycopg.Error, match="remove_table"):  # which would take it out of the publication
        run(db, "SELECT pgdoc.unregister('docs.plain')", "owner")
    store.remove_table("docs.plain")
    assert run(db, "SELECT pgdoc.register('docs.plain')", "owner") == [(True,)]
    with pytest.raises(pgdoc.TableRefused, match="it is a collection"):
        store.add_table("docs.plain")
    run(db, "SELECT pgdoc.unregister('docs.plain')", "owner")
    assert store.add_table("docs.plain")


@pytest.mark.parametrize("catalog", ["superuser"], indirect=True)
def test_a_publication_with_which_updates_would_fail_is_named(team: SharedDatabase) -> None:
    run(team, "CREATE PUBLICATION other FOR TABLE shop.orders (id)")
    store = team.store("owner")
    with pytest.raises(pgdoc.TableRefused, match='the publication "other" leaves out columns') as caught:
        store.add_table("shop.orders")
    assert caught.value.cure is not None
    run(team, "ALTER PUBLICATION other SET TABLE shop.orders")
    assert store.add_table("shop.orders")
    run(team, "INSERT INTO shop.orders VALUES (1, 2); UPDATE shop.orders SET total = 3")


@pytest.mark.parametrize("catalog", ["superuser"], indirect=True)
def test_generated_columns_that_another_publication_leaves_out_are_refused(team: SharedDatabase) -> None:
    admin = team.connect("superuser")
    if admin.info.server_version < 180000:
        pytest.skip("older servers publish no generated column, and let the update through")
    admin.execute("ALTER TABLE shop.orders ADD COLUMN twice numeric GENERATED ALWAYS AS (total * 2) STORED")
    for publication in ("FOR TABLE shop.orders", "FOR ALL TABLES", "FOR TABLES IN SCHEMA shop"):
        admin.execute(f"CREATE PUBLICATION other {publication}".encode())
        with pytest.raises(pgdoc.TableRefused, match='the publication "other" leaves out its generated') as caught:
            team.store("owner").add_table("shop.orders")
        admin.execute(str(caught.value.cure).removeprefix("run ").encode())
        team.store("owner").add_table("shop.orders")
        admin.execute(
            "INSERT INTO shop.orders VALUES (1, 2); UPDATE shop.orders SET total = 3; DELETE FROM shop.orders"
        )
        team.store("owner").remove_table("shop.orders")
        admin.execute("DROP PUBLICATION other")


def test_a_table_that_is_taken_out_of_the_publication_is_published_again(db: SharedDatabase) -> None:
    run(db, "CREATE TABLE docs.plain (id int PRIMARY KEY)", "owner")
    store = db.store("owner")
    store.add_table("docs.plain")
    run(db, "ALTER PUBLICATION pgdoc DROP TABLE docs.plain", "owner")
    fault = "SELECT pgdoc.publication_fault('docs', {}), pgdoc.published_since('docs', {}) > '0/0'"
    assert run(db, fault.format("'{{docs.plain}}'", "'{{docs.plain}}'"), "owner")[0][0].startswith("lacks docs.plain")
    assert run(db, fault.format("NULL", "NULL"), "owner")[0][0] is None  # collections need no table
    assert store.add_table("docs.plain")
    assert run(db, fault.format("'{{docs.plain}}'", "'{{docs.plain}}'"), "owner") == [(None, True)]


def test_two_sessions_add_a_table_at_once(team: SharedDatabase) -> None:
    """The second one waits for the first, and then sees what that has done."""
    if team.catalog == "owner":
        run(team, "GRANT {creator} TO {owner}")
    add, answers = "SELECT pgdoc.add_table('shop.orders')", []
    with psycopg.connect(team.dsn("owner")) as first, psycopg.connect(team.dsn("owner"), autocommit=True) as second:
        assert first.execute(add).fetchone() == (True,)
        thread = threading.Thread(target=lambda: answers.append(second.execute(add).fetchone()))
        thread.start()
        _wait_for_lock(team, second.info.backend_pid)
        first.commit()
        thread.join()
    assert answers == [(False,)]


def test_two_sessions_add_two_tables_at_once(allowed: SharedDatabase) -> None:
    """The second one waits for the first to have changed the publication, which waits for nothing of the second."""
    run(allowed, "CREATE TABLE shop.others (id int PRIMARY KEY)", "creator")
    add, answers = "SELECT pgdoc.add_table(%s)", []
    with psycopg.connect(allowed.dsn("creator")) as first, psycopg.connect(allowed.dsn("creator")) as second:
        first.execute(add, ["shop.orders"])
        thread = threading.Thread(target=lambda: answers.append(second.execute(add, ["shop.others"]).fetchone()))
        thread.start()
        _wait_for_lock(allowed, second.info.backend_pid)
        first.commit()
        thread.join()
    assert answers == [(True,)]


@pytest.mark.parametrize("catalog", ["superuser"], indirect=True)
@pytest.mark.parametrize(
    "ddl",
    [
        "ADD COLUMN note text",
        "RENAME COLUMN total TO amount",
        "ALTER COLUMN total TYPE float8",
        "DROP COLUMN total",
        "DROP CONSTRAINT orders_pkey, ALTER total SET NOT NULL, ADD PRIMARY KEY (total)",
    ],
)
def test_a_transaction_registers_no_shape_that_is_older_than_its_lock(team: SharedDatabase, ddl: str) -> None:
    with psycopg.connect(team.dsn("owner")) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1 FROM pg_class LIMIT 1")  # takes the snapshot
        run(team, f"ALTER TABLE shop.orders {ddl}")
        with pytest.raises(psycopg.errors.SerializationFailure):
            other.execute("SELECT pgdoc.add_table('shop.orders')")
        other.rollback()
        other.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        with other.transaction():  # it rolls back, which leaves its xid in rows of the catalog
            other.execute("SAVEPOINT before; ALTER TABLE shop.orders ADD COLUMN never int; ROLLBACK TO before")
        assert other.execute("SELECT pgdoc.add_table('shop.orders')").fetchone() == (True,)


def _wait_for_lock(db: SharedDatabase, pid: int) -> None:
    waits = "SELECT FROM pg_stat_activity WHERE pid = %s AND (wait_event_type = 'Lock' OR wait_event = 'PgSleep')"
    with db.connect("superuser") as admin:
        while admin.execute(waits, [pid]).fetchone() is None:
            pass


def test_a_table_that_is_in_use_is_named_with_its_users(team: SharedDatabase) -> None:
    with psycopg.connect(team.dsn("creator")) as user:
        user.execute("INSERT INTO shop.orders VALUES (1, 2)")
        with pytest.raises(psycopg.errors.LockNotAvailable, match=rf"pid {user.info.backend_pid} of "):
            run(team, "SELECT pgdoc.lock_patiently('shop.orders', 'ACCESS EXCLUSIVE', 50)", "superuser")
        check = team.store("creator").check_table("shop.orders")
        assert [(holder.pid, holder.role, holder.lock) for holder in check.holders] == [
            (user.info.backend_pid, team.roles["creator"], "ROW EXCLUSIVE")
        ]
        assert check.lock == "ACCESS EXCLUSIVE"


def test_a_downgrade_makes_them_plain_tables(team: SharedDatabase) -> None:
    if team.catalog == "owner":
        run(team, "GRANT {creator} TO {owner}")
    team.store("owner").add_table("shop.orders")
    team.close()
    downgrade(team.dsn("owner"), "0009")
    identity = "SELECT relreplident FROM pg_class WHERE oid = 'shop.orders'::regclass"
    with psycopg.connect(team.dsn("owner"), autocommit=True) as owner:
        assert owner.execute(identity).fetchall() == [("d",)]
        assert owner.execute("SELECT FROM pg_publication_tables WHERE schemaname = 'shop'").fetchall() == []
        owner.execute("ALTER TABLE shop.orders ADD COLUMN note text; ALTER TABLE docs.orders ADD COLUMN note text")
        if team.catalog == "superuser":
            with pytest.raises(psycopg.Error, match=r"collection docs\.orders can't be changed"):
                owner.execute("ALTER TABLE docs.orders REPLICA IDENTITY DEFAULT")
    migrate(team.dsn("owner"))
    with pgdoc.Store(team.dsn("owner")) as store:
        assert store.collections() == ["orders"]
        assert store.tables() == []
        assert store.add_table("shop.orders")


@pytest.fixture(params=["template", "dump"])
def copy(request: pytest.FixtureRequest, team: SharedDatabase, server: Any) -> Iterator[str]:
    """A copy of a database with two watched tables, one of which had REPLICA IDENTITY FULL before."""
    if team.catalog == "owner":
        run(team, "GRANT {creator} TO {owner}")
    run(
        team,
        "CREATE TABLE shop.full (id int PRIMARY KEY, payload jsonb); ALTER TABLE shop.full REPLICA IDENTITY FULL",
        "creator",
    )
    with pgdoc.Store(team.dsn("owner")) as store:
        store.add_table("shop.orders")
        store.add_table("shop.full", document="payload")
    team.close()  # a template must have no sessions
    is_template = request.param == "template"
    with (
        _connect_admin(server) as admin,
        _database(server, admin, team.name if is_template else "template0", "copy") as name,
    ):
        admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(name), team.identifier("owner")))
        conninfo = team.server.conninfo_for(name, user=None if team.catalog == "superuser" else team.roles["owner"])
        if not is_template:
            _restore(server, team, conninfo, keeps_owners=True)
        yield conninfo


def test_a_copy_watches_its_tables_again_when_it_is_rebound(copy: str) -> None:
    with pgdoc.Store(copy) as store:
        for call in (store.tables, lambda: store.add_table("shop.orders"), lambda: store.check_table("shop.orders")):
            with pytest.raises(pgdoc.RegistryUnbound):
                call()
        with pytest.raises(pgdoc.RegistryUnbound):
            store.remove_table("shop.orders")
        migrate(copy)
        assert [(table.name, table.document) for table in store.tables()] == [
            ("shop.full", "payload"),
            ("shop.orders", None),
        ]
        for table in store.tables():
            store.remove_table(table.name)
    with psycopg.connect(copy) as owner:
        identities = (
            "SELECT relname, relreplident FROM pg_class WHERE oid = ANY ('{shop.full, shop.orders}'::regclass[])"
        )
        assert dict(owner.execute(identities).fetchall()) == {"full": "f", "orders": "d"}
