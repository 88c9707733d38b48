"""The fixtures of the pytest plugin, in suites as users write them."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import _pgdoc_pytestplugin
import pgdoc
from pgdoc.errors import DatabaseError, DirectRouteNeeded
from pgdoc.server import LocalServer
from pgdoc.testing import collected, eventually, open_server
from tests.fixtures.fix_server import _connect_admin
from tests.user_suites import ROOT, Outcome, UserSuite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.testing import PgdocServer
    from tests.fixtures.fix_pgbouncer import PgBouncer
    from tests.fixtures.fix_server import Server

_numbers = itertools.count(1)

LEFT_BEHIND = """
SELECT datname FROM pg_database WHERE datname ~ '^pgdoc_test_[0-9a-f]{12}_'
UNION ALL SELECT slot_name FROM pg_replication_slots WHERE database ~ '^pgdoc_test_[0-9a-f]{12}_'
UNION ALL SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'pgdoc test run%'
"""

DEAD_ROWS = """
CREATE TABLE dead (a) WITH (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_cost_delay = 100,
  autovacuum_vacuum_cost_limit = 1) AS SELECT generate_series(1, 100000);
DELETE FROM dead
"""
AUTOVACUUM = "SELECT FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND query LIKE '%public.dead%'"


@pytest.fixture
def admin(server: Server) -> Iterator[psycopg.Connection]:
    with _connect_admin(server) as admin:
        yield admin


@pytest.fixture
def suite(server: Server, admin: psycopg.Connection, tmp_path: Path) -> Iterator[UserSuite]:
    """A suite on the server of these tests. Nothing of it stays there."""
    yield UserSuite(tmp_path, server.conninfo)
    check_nothing_is_left(server, admin)


@pytest.fixture
def given(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of these tests is given to `open_server`."""
    monkeypatch.setenv("PGDOC_TEST_DSN", server.conninfo)


@pytest.fixture
def private_suite(tmp_path: Path) -> UserSuite:
    """A suite that starts a server of its own."""
    return UserSuite(tmp_path, None)


def check_nothing_is_left(server: Server, admin: psycopg.Connection) -> None:
    if not isinstance(server, LocalServer):
        return  # processes share the server, and another one may be at these tests, too
    left: list[str] = []

    def is_clean() -> bool:  # the server takes a moment to end a session
        left[:] = [name for (name,) in admin.execute(LEFT_BEHIND)]
        return not left

    try:
        eventually(is_clean, timeout=30)
    except AssertionError:
        assert left == []


def check(outcome: Outcome, **counts: int) -> None:
    assert outcome.counts == counts, outcome.printed


def test_each_test_has_a_database_of_its_own_whatever_the_one_before_left_open(suite: UserSuite) -> None:
    suite.write(
        "test_shop.py",
        """
        import psycopg
        import pytest
        import pgdoc

        @pytest.fixture(params=["pgoutput", "auto"])
        def pgdoc_store_args(request):
            return {"plugin": request.param, "schema": "shop"}

        left = []

        @pytest.mark.parametrize("number", range(2))
        def test_writes_and_watches(store, number):
            with store["orders"].watch() as stream:
                store["orders"].insert("o-1", {"total": number})
                assert stream.next(timeout=20).document_id == "o-1"
            assert psycopg.connect(store._conninfo).execute("SELECT id FROM shop.orders").fetchall() == [("o-1",)]

        def test_leaves_streams_and_a_consumer_open(store):
            left.append(store["orders"].watch())
            left.append(store["orders"].watch(consumer="audit"))
            store["orders"].insert("o-1", {})

        def test_leaves_a_store_with_a_stream_open(store, pgdoc_conninfo):
            left.append(pgdoc.Store(pgdoc_conninfo, schema="shop"))
            left.append(left[-1]["orders"].watch())
            left[-2]["orders"].insert("o-1", {})
            assert store["orders"].get("o-1")

        def test_fails_with_a_slot(pgdoc_conninfo):
            with psycopg.connect(pgdoc_conninfo, autocommit=True) as connection:
                connection.execute("SELECT pg_create_logical_replication_slot('left_' || pg_backend_pid(), 'pgoutput')")
            assert False, "as it is to be"

        def test_drops_its_database(pgdoc_server, pgdoc_conninfo):
            with psycopg.connect(pgdoc_server.conninfo, autocommit=True) as connection:
                connection.execute(f'DROP DATABASE "{psycopg.conninfo.conninfo_to_dict(pgdoc_conninfo)["dbname"]}"')
        """,
    )
    outcome = suite.run("-W", "ignore::ResourceWarning", "-W", "ignore::pytest.PytestUnraisableExceptionWarning")
    check(outcome, failed=1, passed=9)
    assert "as it is to be" in outcome.printed


SYNC_AND_ASYNC = """
import asyncio
import pytest

async def use(async_store, store):
    stream = await async_store.watch("orders")
    await async_store["orders"].insert("o-1", {})
    assert (await stream.next(timeout=20)).document_id == "o-1"
    assert store["orders"].get("o-1") is not None
    assert await async_store["orders"].get("o-2") is None  # the stream stays open
"""


def test_async_store_works_with_pytest_asyncio_in_strict_mode_beside_anyio_and_others(suite: UserSuite) -> None:
    suite.write("pytest.ini", "[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    suite.write(
        "conftest.py",
        """
        import asyncio, inspect, pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_pyfunc_call(pyfuncitem):
            if inspect.iscoroutinefunction(pyfuncitem.obj) and not pyfuncitem.get_closest_marker("anyio"):
                names = inspect.signature(pyfuncitem.obj).parameters
                asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
                return True
        """,
    )
    suite.write(
        "test_shop.py",
        SYNC_AND_ASYNC
        + """
import pytest_asyncio

@pytest_asyncio.fixture
async def orders(async_store):
    yield async_store["orders"]
    assert await async_store["orders"].count() == 1  # the store is still open

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.asyncio
async def test_in_the_loop_of_the_test(async_store, store):
    await use(async_store, store)

@pytest.mark.asyncio(loop_scope="module")
async def test_in_the_loop_of_the_module(async_store, store):
    await use(async_store, store)

@pytest.mark.asyncio(loop_scope="session")
class TestSession:
    async def test_in_the_loop_of_the_session(self, async_store, store):
        await use(async_store, store)

@pytest.mark.asyncio
async def test_in_a_fixture(orders):
    await orders.insert("o-1", {})

@pytest.mark.anyio
async def test_of_anyio(async_store, store):
    await use(async_store, store)

@pytest.mark.anyio
@pytest.mark.asyncio
async def test_of_both(async_store):
    pass

async def test_of_conftest(async_store, store):
    await use(async_store, store)

def test_with_a_loop_of_its_own(async_store, store):
    async def main():
        async with async_store:
            await use(async_store, store)
    asyncio.run(main())

def test_with_no_loop(async_store):
    pass
""",
    )
    outcome = suite.run(plugins=("asyncio", "anyio"))
    check(outcome, passed=8, error=1)
    assert "both pytest-asyncio and anyio run this test: set asyncio_mode = strict" in outcome.printed


def test_async_store_works_with_pytest_asyncio_in_auto_mode(suite: UserSuite) -> None:
    suite.write(
        "pytest.ini",
        """
        [pytest]
        asyncio_mode = auto
        asyncio_default_fixture_loop_scope = session
        asyncio_default_test_loop_scope = session
        """,
    )
    suite.write(
        "test_shop.py",
        SYNC_AND_ASYNC
        + """
@pytest.fixture
async def orders(async_store):
    yield async_store["orders"]
    assert await async_store["orders"].count() == 1

async def test_without_a_mark(async_store, store):
    await use(async_store, store)

async def test_in_a_fixture(orders):
    await orders.insert("o-1", {})
""",
    )
    check(suite.run(plugins=("asyncio",)), passed=2)


def test_async_store_works_with_anyio_on_asyncio_and_says_so_on_trio(suite: UserSuite) -> None:
    suite.write(
        "test_shop.py",
        SYNC_AND_ASYNC
        + """
pytestmark = pytest.mark.anyio

@pytest.fixture
async def orders(async_store):
    yield async_store["orders"]
    assert await async_store["orders"].count() == 1

@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_on_asyncio(async_store, store, orders):
    await use(async_store, store)

@pytest.mark.parametrize("anyio_backend", ["trio", ("trio", {})])
async def test_on_trio(async_store):
    pass
""",
    )
    outcome = suite.run(plugins=("anyio",))
    check(outcome, passed=1, error=2)
    assert "async_store needs asyncio, and anyio runs this test on trio" in outcome.printed


def test_a_store_of_the_user_takes_the_place_of_the_plugins_which_needs_a_server(suite: UserSuite) -> None:
    suite.write("conftest.py", "import pytest\n\n@pytest.fixture\ndef store():\n    return 'of conftest'\n")
    suite.write("test_conftest.py", "def test_it(store):\n    assert store == 'of conftest'\n")
    suite.write(
        "test_module.py",
        """
        import sys, pytest

        @pytest.fixture
        def async_store():
            return "of the module"

        def test_it(async_store):
            assert async_store == "of the module"
            assert "pgdoc" not in sys.modules
        """,
    )
    suite.write("test_plugin.py", "def test_it(pgdoc_conninfo):\n    pass\n")
    outcome = suite.run(variables={"PGDOC_TEST_DSN": "host=/nowhere"})
    check(outcome, passed=2, error=1)
    assert "\nthere is no PostgreSQL for this test: no connection to the server:" in outcome.printed


def test_a_failed_test_shows_no_password(server: Server, tmp_path: Path) -> None:
    suite = UserSuite(tmp_path, f"{server.conninfo} password=hidden")
    suite.write("test_shop.py", "def test_it(pgdoc_conninfo):\n    assert not pgdoc_conninfo\n")
    outcome = suite.run("--tb=long")
    check(outcome, failed=1)
    assert "dbname=pgdoc_test_" in outcome.printed
    assert "hidden" not in outcome.printed


def test_what_prepare_creates_is_in_each_database(given: None) -> None:
    def prepare(conninfo: str) -> None:
        with psycopg.connect(conninfo) as connection:
            connection.execute("CREATE TABLE public.customers (id int PRIMARY KEY)")
        with pgdoc.Store(conninfo) as store:
            store.add_table("public.customers")
            store["orders"].create_index("status")

    with open_server(prepare) as server:
        for _ in range(2):
            with server.database() as conninfo, pgdoc.Store(conninfo) as store:
                assert len(store["orders"].indexes()) == 1
                with collected(store, "orders", "public.customers") as events:
                    store["orders"].insert("o-1", {"status": "new"})
                    with psycopg.connect(conninfo) as connection:
                        connection.execute("INSERT INTO public.customers VALUES (1)")
                assert [event.collection for event in events] == ["orders", "public.customers"]


def test_each_worker_of_xdist_has_a_private_server_that_ends_with_it(private_suite: UserSuite) -> None:
    private_suite.write(
        "test_shop.py",
        """
        import os, pathlib, signal, pytest, pgdoc

        @pytest.mark.parametrize("number", range(2))
        def test_kills_its_worker(store, pgdoc_server, number):
            store["orders"].insert("o-1", {})
            folder = pgdoc.database.conninfo.parse_conninfo(pgdoc_server.conninfo)["host"]
            pathlib.Path(f"folder_{number}").write_text(folder)
            if number:
                os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    outcome = private_suite.run("-n", "2", "--max-worker-restart=0", plugins=("xdist",))
    check(outcome, passed=1, failed=1)
    folders = {(private_suite.folder / f"folder_{number}").read_text() for number in range(2)}
    assert len(folders) == 2
    eventually(lambda: not any(Path(folder).exists() for folder in folders), timeout=30)  # guardians remove them


def test_the_environment_does_not_lead_to_another_server(private_suite: UserSuite) -> None:
    private_suite.write(
        "test_shop.py",
        """
        def test_it(store):
            with store["orders"].watch() as stream:
                store["orders"].insert("o-1", {})
                assert stream.next(timeout=20).document_id == "o-1"
        """,
    )
    others = {"PGHOST": "localhost", "PGHOSTADDR": "127.0.0.1", "PGPORT": "1", "PGUSER": "ann", "PGDATABASE": "shop"}
    check(private_suite.run(variables=others), passed=1)


def interrupted(process: subprocess.Popen[str]) -> str:
    """Interrupt a run, again if it goes on, and return what it prints; if that does not end it, its stacks too."""
    for _ in range(2):  # Python drops an interrupt that arrives inside a finalizer
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=40)[0]
    process.send_signal(signal.SIGABRT)  # pytest's faulthandler prints where each thread is
    return process.communicate(timeout=10)[0]


def test_ctrl_c_stops_the_private_server(private_suite: UserSuite) -> None:
    private_suite.write(
        "test_shop.py",
        """
        def test_waits(store, pgdoc_server):
            print(pgdoc_server.conninfo, flush=True)
            with store["orders"].watch() as stream:
                stream.next()
        """,
    )
    process = subprocess.Popen(
        private_suite.command("-s"),
        cwd=private_suite.folder,
        env=private_suite.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "host=" in line, line + process.stdout.read()
    printed = interrupted(process)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, printed
    folder = psycopg.conninfo.conninfo_to_dict(line.strip().rpartition("\n")[2])["host"]
    assert not Path(str(folder)).exists()


@pytest.fixture
def role(admin: psycopg.Connection) -> Iterator[str]:
    """A role that may log in, and nothing else."""
    name = f"pgdoc_tester_{os.getpid()}_{next(_numbers)}"
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    yield name
    admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_a_role_needs_no_more_than_createdb_and_replication(
    server: Server, admin: psycopg.Connection, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGDOC_TEST_DSN", server.conninfo_for("postgres", user=role))
    with pytest.raises(DatabaseError, match=f'run ALTER ROLE "{role}" CREATEDB REPLICATION'), open_server():
        pass
    admin.execute(sql.SQL("ALTER ROLE {} CREATEDB REPLICATION").format(sql.Identifier(role)))
    with open_server() as given, given.database() as conninfo, pgdoc.Store(conninfo) as store:
        with store["orders"].watch(consumer="audit") as stream:
            store["orders"].insert("o-1", {})
            event = stream.next(timeout=20)
            assert event is not None
            assert event.document_id == "o-1"
        store["orders"].watch()
    check_nothing_is_left(server, admin)


def test_a_role_can_drop_a_database_in_which_autovacuum_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        LocalServer(settings={"autovacuum_naptime": "1s"}) as own,
        psycopg.connect(own.conninfo, autocommit=True) as admin,
    ):
        admin.execute("CREATE ROLE tester LOGIN CREATEDB")
        monkeypatch.setenv("PGDOC_TEST_DSN", make_conninfo(own.conninfo, user="tester"))
        with open_server() as given, given.database(catalog=False) as conninfo:
            with psycopg.connect(conninfo, autocommit=True) as connection:
                connection.execute(DEAD_ROWS)
            eventually(lambda: admin.execute(AUTOVACUUM).fetchone() is not None, timeout=60)
        eventually(lambda: not admin.execute(LEFT_BEHIND).fetchall())


def test_only_databases_of_runs_that_are_over_are_dropped(
    server: Server, admin: psycopg.Connection, given: None
) -> None:
    names = ["pgdoc_test_0123456789ab_1", "pgdoc_test_cdef01234567_2", "pgdoc_test_mine", "pgdoc_tests_0123456789ab_1"]
    names += ["pgdoc_test_0123456789ab_1_of_ann", "pgdoc_test_0123456789ab_copy"]
    for name in names:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with psycopg.connect(server.conninfo_for(names[0]), autocommit=True) as other:
        other.execute("SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput')")
    try:
        with psycopg.connect(server.conninfo, application_name="pgdoc test run cdef01234567"), open_server():
            left = [name for (name,) in admin.execute("SELECT datname FROM pg_database") if name in names]
        assert sorted(left) == sorted(names[1:])
    finally:
        for name in names:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


def test_a_run_outlives_its_session(server: Server, admin: psycopg.Connection, given: None) -> None:
    def end_session(of: PgdocServer) -> None:
        name = f"pgdoc test run {repr(of).split('_')[-2]}"
        query = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = %s"
        assert admin.execute(query, [name]).fetchall() == [(True,)]

    with open_server() as run:
        with run.database():
            end_session(run)
        with run.database() as conninfo, psycopg.connect(conninfo) as user:
            end_session(run)
            with open_server():  # drops what it takes for left behind
                assert user.execute("SELECT 1").fetchone() == (1,)
            with run.database():  # its template is still there, too
                pass
    check_nothing_is_left(server, admin)


def test_the_session_of_a_run_is_not_ended_for_being_idle(
    server: Server, admin: psycopg.Connection, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.execute(sql.SQL("ALTER ROLE {} CREATEDB REPLICATION").format(sql.Identifier(role)))
    admin.execute(sql.SQL("ALTER ROLE {} SET idle_session_timeout = '100ms'").format(sql.Identifier(role)))
    monkeypatch.setenv("PGDOC_TEST_DSN", server.conninfo_for("postgres", user=role))
    query = """
        SELECT pid, state_change < now() - interval '200 ms' FROM pg_stat_activity
        WHERE usename = %s AND application_name LIKE 'pgdoc test run%%'
    """
    with open_server() as run, run.database(catalog=False):
        ((session, _),) = admin.execute(query, [role]).fetchall()
        eventually(lambda: admin.execute(query, [role]).fetchall() in ([], [(session, True)]))
        assert admin.execute(query, [role]).fetchall() == [(session, True)]


def test_functions_of_others_are_not_called(bare_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDOC_TEST_DSN", bare_dsn)
    with psycopg.connect(bare_dsn) as owner:
        for name in ("left", "substr"):
            owner.execute(
                f"CREATE FUNCTION public.{name}(name, int, int DEFAULT 0) RETURNS text LANGUAGE plpgsql "
                "AS $$ BEGIN RAISE 'called'; END $$"
            )
    with open_server() as run, run.database(catalog=False), open_server():
        pass


def test_a_pooler_is_refused(server: Server, pgbouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDOC_TEST_DSN", pgbouncer.conninfo_for(server.conninfo))
    with pytest.raises(DirectRouteNeeded, match="PGDOC_TEST_DSN leads to a connection pooler"), open_server():
        pass


def test_a_database_without_the_catalog_is_empty(given: None) -> None:
    with open_server() as other, other.database(catalog=False) as conninfo, psycopg.connect(conninfo) as connection:
        assert connection.execute("SELECT to_regnamespace('pgdoc')").fetchone() == (None,)


def test_a_coroutine_function_can_not_prepare_the_template(given: None) -> None:
    async def prepare(conninfo: str) -> None: ...

    with (
        open_server(prepare) as other,
        pytest.raises(TypeError, match="prepare is a coroutine function: use a plain one, with a Store"),
        other.database(),
    ):
        pass


def test_importing_the_plugin_imports_neither_pgdoc_nor_asyncio() -> None:
    code = "import sys, _pgdoc_pytestplugin; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"pgdoc", "psycopg", "asyncio", "pytest_asyncio"}.isdisjoint(loaded.split())


def test_pytest_finds_the_plugin_by_its_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"pgdoc": _pgdoc_pytestplugin.__name__}
    assert "_pgdoc_pytestplugin.py" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
