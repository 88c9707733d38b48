"""The SQL of `pgdoc grant`, from facts that a server would report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pgdoc.database.grants import PURPOSES, GrantFacts, plan_grant, read_facts
from pgdoc.database.rights import MESSAGE_RIGHTS, STREAMER_TABLES
from pgdoc.errors import CatalogMissing, DatabaseError

NOTHING = {
    "is_superuser": False,
    "can_login": True,
    "bypasses_policies": False,
    "may_replicate": False,
    "connects": False,
    "uses_schema": False,
    "creates": False,
    "registers": False,
    "writes_consumers": False,
    "publishes": False,
    "is_published_for": False,
    "acts_as_catalog_owner": False,
}
EVERYTHING = {**dict.fromkeys(NOTHING, True), "is_superuser": False, "acts_as_catalog_owner": False}
SERVER = {
    "version": 180000,
    "database": "shop",
    "grantor": "postgres",
    "grantor_is_superuser": True,
    "catalog_owner": "postgres",
    "catalog_owner_is_superuser": True,
    "catalog_owner_inherits": True,
    "publication_owner": "postgres",
    "schema_owner": "postgres",
    "has_rds_replication": False,
    "has_other_tables": False,
    "missing": [],
}


def row(values: dict[str, Any], **changes: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**values, **changes})


def table(name: str, owner: str = "app", *, has: bool = False, **others: Any) -> SimpleNamespace:
    return SimpleNamespace(name=name, owner=owner, reads=has, writes=has, has_policies=False, **others)


def creator(name: str, *defaults: str) -> SimpleNamespace:
    return SimpleNamespace(name=name, defaults=list(defaults))


def facts(server: dict[str, Any] | None = None, role: dict[str, Any] | None = None, **rows: Any) -> GrantFacts:
    return GrantFacts(row(SERVER, **(server or {})), row(NOTHING, **(role or {})), **rows)


def statements(purpose: str, found: GrantFacts, role: str = "r", schema: str = "docs", **options: Any) -> list[str]:
    return [step.sql for step in plan_grant(role, purpose, schema, found, **options).steps]


def notes(purpose: str, found: GrantFacts, role: str = "r") -> str:
    return "\n".join(plan_grant(role, purpose, "docs", found).notes)


ALL = "SELECT, INSERT, UPDATE, DELETE"
ENTRIES = (
    "pgdoc.enter_collection(pg_catalog.regclass), "
    "pgdoc.enter_table(pg_catalog.regclass, pg_catalog.text, pg_catalog.text)"
)
ENTRY = ['GRANT CONNECT ON DATABASE "shop" TO "r"', 'GRANT USAGE ON SCHEMA "docs" TO "r"']


def test_a_reader_gets_the_collections_and_those_to_come():
    found = facts(
        collections=[table("a"), table("b", "other"), table("c")], creators=[creator("app"), creator("other")]
    )
    assert statements("reader", found) == [
        *ENTRY,
        'GRANT SELECT ON TABLE "docs"."a", "docs"."c" TO "r"',
        'GRANT SELECT ON TABLE "docs"."b" TO "r"',
        'ALTER DEFAULT PRIVILEGES FOR ROLE "app" IN SCHEMA "docs" GRANT SELECT ON TABLES TO "r"',
        'ALTER DEFAULT PRIVILEGES FOR ROLE "other" IN SCHEMA "docs" GRANT SELECT ON TABLES TO "r"',
    ]


def test_a_writer_who_reads_already_gets_what_is_missing():
    read = table("a")
    read.reads = True
    found = facts(role={"connects": True, "uses_schema": True}, collections=[read], creators=[creator("app", "SELECT")])
    assert statements("writer", found) == [
        'GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE "docs"."a" TO "r"',
        f'ALTER DEFAULT PRIVILEGES FOR ROLE "app" IN SCHEMA "docs" GRANT {ALL} ON TABLES TO "r"',
        f'GRANT {MESSAGE_RIGHTS} TO "r"',
    ]
    assert statements("reader", found) == []


def test_only_the_catalogs_owner_or_a_superuser_is_asked_to_let_a_writer_publish():
    other = {"grantor": "boss", "grantor_is_superuser": False}
    assert not [text for text in statements("writer", facts(other)) if "publish" in text]
    assert f'run GRANT {MESSAGE_RIGHTS} TO "r" as role "postgres"' in notes("writer", facts(other))
    assert "publish" not in notes("writer", facts(other, {"publishes": True}))


def test_a_streamer_gets_replication_first_and_the_tables_of_consumers_last():
    watched = [table("items", schema="public", uses_schema=True, schema_owner="pg_database_owner")]
    watched += [table("own", "r", schema="sales", uses_schema=False, schema_owner="boss")]
    assert statements("streamer", facts(collections=[table("a")], tables=watched)) == [
        *ENTRY,
        'ALTER ROLE "r" REPLICATION',
        'GRANT SELECT ON TABLE "docs"."a" TO "r"',
        'GRANT USAGE ON SCHEMA "sales" TO "r"',
        'GRANT SELECT ON TABLE "public"."items" TO "r"',
        f'GRANT {ALL} ON TABLE {", ".join(STREAMER_TABLES)} TO "r"',
    ]


def test_what_replication_gives_beyond_streams_is_noted():
    for role in (NOTHING, EVERYTHING):
        assert "can copy all databases" in notes("streamer", facts(role=role))
    assert "can copy" not in notes("streamer", facts({"has_rds_replication": True}))


def test_on_amazon_rds_a_role_takes_the_place_of_the_attribute():
    assert 'GRANT rds_replication TO "r"' in statements("streamer", facts({"has_rds_replication": True}))


def test_members_do_not_inherit_replication():
    assert "do not inherit REPLICATION" in notes("streamer", facts(role={"can_login": False}))


def test_an_owner_gets_the_right_to_create_and_to_register():
    assert statements("owner", facts()) == [
        *ENTRY,
        'GRANT CREATE ON SCHEMA "docs" TO "r"',
        f'GRANT EXECUTE ON FUNCTION {ENTRIES} TO "r"',
    ]


PLAIN = {"catalog_owner": "boss", "catalog_owner_is_superuser": False, "publication_owner": "boss"}


@pytest.mark.parametrize(("version", "options"), [(150000, ""), (160000, " WITH INHERIT TRUE, SET FALSE")])
def test_a_plain_role_that_owns_the_catalog_becomes_a_member_and_never_the_other_way_round(version, options):
    found = facts({**PLAIN, "version": version})
    assert statements("owner", found)[-1] == f'GRANT "r" TO "boss"{options}'
    assert '"boss", which owns the catalog, has all rights of this role' in notes("owner", found)
    for purpose in PURPOSES:
        assert not [text for text in statements(purpose, found) if text.startswith('GRANT "boss" TO')]


def test_the_owner_of_the_catalog_needs_no_membership_in_itself():
    assert not [text for text in statements("owner", facts(PLAIN), "boss") if text.startswith('GRANT "boss"')]


def test_a_role_that_is_a_member_of_the_catalogs_owner_is_told_to_leave_it():
    found = facts(PLAIN, {"acts_as_catalog_owner": True})
    assert 'run REVOKE "boss" FROM "r"' in notes("owner", found)
    assert not [text for text in statements("owner", found) if text.startswith('GRANT "r" TO')]


def test_before_postgresql_16_an_owner_that_does_not_inherit_could_publish_nothing():
    server = {**PLAIN, "version": 150000, "catalog_owner_inherits": False}
    assert 'run ALTER ROLE "boss" INHERIT' in notes("owner", facts(server))
    assert "INHERIT" not in notes("owner", facts({**server, "version": 160000}))


def test_a_publication_of_another_role_is_noted():
    assert 'ALTER PUBLICATION pgdoc OWNER TO "postgres"' in notes("owner", facts({"publication_owner": "x"}))


def test_a_new_creator_names_the_roles_that_need_rights_on_what_it_creates():
    readers = [SimpleNamespace(name="web", writes=True), SimpleNamespace(name="my reports", writes=False)]
    found = notes("owner", facts(readers=readers))
    assert "`pgdoc grant web --as writer`" in found
    assert "`pgdoc grant 'my reports' --as reader`" in found


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_role_that_has_everything_gets_nothing_again_unless_all_is_asked_for(purpose):
    found = GrantFacts(
        row(SERVER),
        row(EVERYTHING),
        [table("a", has=True)],
        (),
        [creator("app", "SELECT", "INSERT", "UPDATE", "DELETE")],
    )
    assert statements(purpose, found) == []
    assert "it has all rights" in plan_grant("r", purpose, "docs", found).script()
    assert len(statements(purpose, found, complete=True)) >= 4


def test_a_schema_with_other_tables_is_noted_where_default_privileges_would_cover_them():
    found = facts({"has_other_tables": True}, creators=[creator("app")])
    assert "tables that are no collections" in notes("writer", found)
    assert "tables that are no collections" not in notes("owner", found)


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_superuser_gets_nothing(purpose):
    plan = plan_grant("r", purpose, "docs", facts(role={"is_superuser": True}, creators=[creator("app")]))
    assert plan.steps == ()
    assert "is a superuser" in plan.script()


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_missing_schema_is_created_before_it_is_granted(purpose):
    found = statements(purpose, facts({"schema_owner": None}), schema="New-1")
    assert found[1:3] == ['CREATE SCHEMA IF NOT EXISTS "New-1"', 'GRANT USAGE ON SCHEMA "New-1" TO "r"']
    later = 'ALTER DEFAULT PRIVILEGES FOR ROLE "postgres" IN SCHEMA "New-1"'
    assert any(text.startswith(later) for text in found) == (purpose != "owner")


def test_row_policies_are_noted_unless_the_role_bypasses_them():
    guarded = table("a")
    guarded.has_policies = True
    for purpose, effect in (("reader", "sees the documents"), ("writer", "reads and writes"), ("streamer", "snapshot")):
        assert effect in notes(purpose, facts(collections=[guarded]))
        assert "row-level security" not in notes(
            purpose, facts(role={"bypasses_policies": True}, collections=[guarded])
        )


ODD = 'x"; DROP TABLE t; --\n\\! rm\n'


def test_no_name_ends_its_quotes_or_its_comment():
    found = facts(
        {"catalog_owner": ODD, "catalog_owner_is_superuser": False, "schema_owner": ODD, "database": ODD},
        collections=[table(ODD, ODD)],
        creators=[creator(ODD)],
        readers=[SimpleNamespace(name=ODD, writes=False)],
    )
    for purpose in PURPOSES:
        script = plan_grant(ODD, purpose, "docs", found).script()
        quoted = '"' + ODD.replace('"', '""') + '"'
        lines = script.replace(quoted, "NAME").splitlines()
        assert all(line.startswith(("-- ", "GRANT ", "ALTER ", "BEGIN;", "COMMIT;")) for line in lines), lines


def test_a_script_is_one_transaction_and_says_who_may_run_each_statement():
    script = plan_grant("r", "reader", "docs", facts(collections=[table("a")])).script()
    assert script.splitlines() == [
        '-- role "r" reads the documents of the schema "docs"; in the database "shop"',
        "BEGIN;",
        "-- needs the owner of the database",
        'GRANT CONNECT ON DATABASE "shop" TO "r";',
        '-- needs role "postgres"',
        'GRANT USAGE ON SCHEMA "docs" TO "r";',
        '-- needs role "app"',
        'GRANT SELECT ON TABLE "docs"."a" TO "r";',
        "COMMIT;",
    ]


@pytest.mark.parametrize(
    ("server", "rows", "error", "text"),
    [
        ({"catalog_owner": None}, {}, CatalogMissing, "no pgdoc catalog"),
        (
            {"missing": ["pgdoc.unreadable"]},
            {},
            CatalogMissing,
            "too old, and lacks pgdoc.unreadable: run `pgdoc init`",
        ),
        ({}, {"role": []}, DatabaseError, 'role "r" does not exist'),
        ({}, {"creators": []}, DatabaseError, 'role "maker" does not exist'),
    ],
)
def test_facts_that_are_missing_are_named(server, rows, error, text):
    found: dict[str, Any] = {"server": [row(SERVER, **server)], "role": [row(NOTHING)], "creators": [creator("app")]}
    found |= {"collections": [], "tables": [], "readers": [], **rows}
    with pytest.raises(error, match=text):
        read_facts(found, "r", ["maker"])
