"""The check that detects what a test leaves behind."""

import psycopg

from tests.fixtures.fix_leftovers import what_is_left


def test_a_clean_database_has_no_leftovers(server, dsn):
    with psycopg.connect(dsn) as session:
        database = session.info.dbname
    with psycopg.connect(
        server.conninfo, autocommit=True
    ) as admin:  # a transaction would see pg_stat_activity as at its first look
        assert what_is_left(admin, database) == []


def test_a_session_and_a_slot_are_leftovers(server, bare_dsn):
    with psycopg.connect(server.conninfo, autocommit=True) as admin, psycopg.connect(bare_dsn) as session:
        database, pid = session.info.dbname, session.info.backend_pid
        session.execute("SELECT pg_create_logical_replication_slot('left_here', 'test_decoding')")
        session.commit()
        slot, backend = sorted(what_is_left(admin, database, grace_s=0), reverse=True)
        admin.execute("SELECT pg_drop_replication_slot('left_here')")
    assert slot == "slot left_here"
    assert backend.startswith(f"client backend {pid} of postgres")


def test_bookmarks_are_no_leftovers(server, bare_dsn):
    with psycopg.connect(server.conninfo, autocommit=True) as admin:
        with psycopg.connect(bare_dsn) as session:
            database = session.info.dbname
            session.execute("SELECT pg_create_logical_replication_slot('pgdocb_1_1', 'pgoutput')")
        assert what_is_left(admin, database) == []
