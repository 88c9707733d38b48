"""The roles of these tests may do what `conftest` says, and no more."""

from __future__ import annotations

import psycopg
import pytest

REFUSED = psycopg.errors.InsufficientPrivilege
WRITE = "INSERT INTO docs.orders (id, data) VALUES ('o-1', '{}')"
READ = "SELECT count(*) FROM docs.orders"
CREATE = "CREATE TABLE docs.mine (n int)"
MAY = {
    "owner": {WRITE, READ, CREATE},
    "writer": {WRITE, READ},
    "reader": {READ},
    "streamer": {READ},
    "creator": {CREATE},
    "stranger": set(),
}


@pytest.mark.parametrize("role", MAY)
def test_a_role_may_do_what_it_was_granted_and_no_more(db, role):
    with db.connect(role) as connection:
        for statement in (WRITE, READ, CREATE):
            if statement in MAY[role]:
                connection.execute(statement)
            else:
                with pytest.raises(REFUSED):
                    connection.execute(statement)


def test_the_catalog_is_owned_by_the_role_that_installed_it(db, catalog):
    owner, is_superuser = (
        db.connect("owner")
        .execute(
            "SELECT pg_get_userbyid(nspowner), rolsuper FROM pg_namespace JOIN pg_roles ON pg_roles.oid = nspowner "
            "WHERE nspname = 'pgdoc'"
        )
        .fetchone()
    )
    assert owner == db.roles["owner"]
    assert is_superuser == (catalog == "superuser")


def test_a_streamer_streams(db, plugin):
    with db.store("streamer", plugin=plugin, auto_create=False)["orders"].watch() as stream:
        db.connect("writer").execute(WRITE)
        assert stream.next(timeout=30).document_id == "o-1"


def test_a_streamer_has_consumers(db, plugin):
    with db.store("streamer", plugin=plugin, auto_create=False) as store:
        with store["orders"].watch(consumer="c") as stream:
            db.connect("writer").execute(WRITE)
            assert stream.next(timeout=30).document_id == "o-1"
        store.drop_consumer("c")
