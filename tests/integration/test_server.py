import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgdoc.errors import ServerStartFailed
from tests.fixtures.fix_server import local_server

GONE_WITHIN_S = 20.0


@pytest.fixture
def folder():
    """A folder that the server's user can enter."""
    parent = Path(tempfile.mkdtemp(prefix="pgdoc-test-", dir="/tmp"))
    parent.chmod(0o755)
    yield parent / "cluster"
    shutil.rmtree(parent)


@pytest.fixture(scope="module")
def standing_server():
    """A server for the tests that do not change it."""
    with local_server() as server:
        yield server


def ask(conninfo: str, query: LiteralString) -> Any:
    with psycopg.connect(conninfo) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def is_running(pid: int) -> bool:
    """Return whether the process is alive; a zombie is not."""
    status = Path(f"/proc/{pid}/stat")
    if Path("/proc/self").exists():
        try:
            return status.read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False
    return subprocess.run(["ps", "-p", str(pid)], capture_output=True, check=False).returncode == 0


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + GONE_WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_is_ready_for_change_streams(standing_server):
    assert ask(standing_server.conninfo, "SHOW wal_level") == "logical"
    assert ask(standing_server.conninfo, "SHOW max_slot_wal_keep_size") == "4GB"
    assert ask(standing_server.conninfo, "SHOW server_encoding") == "UTF8"
    lsn = ask(standing_server.conninfo, "SELECT lsn FROM pg_create_logical_replication_slot('s', 'pgoutput')")
    assert lsn > "0/0"


def test_it_allows_wal2json_where_there_is_an_allow_list(standing_server):
    """A server that does not know the setting would not start with it."""
    allowed = ask(standing_server.conninfo, "SELECT current_setting('output_plugin_libraries', true)")
    assert allowed in {None, "pgoutput, test_decoding, wal2json"}


def test_it_runs_unprivileged_and_out_of_reach_of_ctrl_c(standing_server):
    assert Path(f"/proc/{standing_server.pid}").stat().st_uid != 0
    assert os.getsid(standing_server.pid) == standing_server.pid


def test_stop_leaves_nothing(private_server):
    pid, folder = private_server.pid, private_server.folder
    private_server.stop()
    assert not is_running(pid)
    assert not folder.exists()


def test_stop_does_not_wait_for_a_process_that_was_forked(private_server):
    """A forked process holds a copy of the pipe that the guardian reads."""
    pipe = private_server._guardian.stdin.fileno()
    forked = subprocess.Popen(["sleep", "600"], pass_fds=[pipe])
    private_server.stop()
    assert forked.poll() is None
    forked.kill()
    forked.wait()


def test_it_can_be_started_again_after_stop(private_server):
    private_server.stop()
    private_server.start()
    assert ask(private_server.conninfo, "SELECT 1") == 1


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_restart_keeps_data_and_conninfo(standing_server, mode):
    conninfo = standing_server.conninfo
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t AS SELECT 7 AS n")
    standing_server.restart(mode)
    assert standing_server.conninfo == conninfo
    assert ask(conninfo, "SELECT n FROM t") == 7


def test_nobody_answers_while_it_is_stopped(standing_server):
    with standing_server.stopped("immediate"), pytest.raises(psycopg.OperationalError):
        psycopg.connect(standing_server.conninfo)
    assert ask(standing_server.conninfo, "SELECT 1") == 1


def test_alter_system_goes_before_the_settings_it_started_with(private_server):
    with psycopg.connect(private_server.conninfo, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET max_replication_slots = 3")
    private_server.restart()
    assert ask(private_server.conninfo, "SHOW max_replication_slots") == "3"


def test_conninfo_for_another_database_and_user(standing_server):
    with psycopg.connect(standing_server.conninfo, autocommit=True) as connection:
        connection.execute("CREATE DATABASE app")
        connection.execute("CREATE ROLE reader LOGIN")
    conninfo = standing_server.conninfo_for("app", user="reader")
    assert ask(conninfo, "SELECT current_database() || ' ' || current_user") == "app reader"


def test_settings_are_taken_literally(folder):
    with local_server(folder, settings={"cluster_name": r"it's a \n", "max_wal_senders": 3, "fsync": False}) as server:
        assert ask(server.conninfo, "SHOW cluster_name") == r"it's a \n"
        assert ask(server.conninfo, "SHOW max_wal_senders") == "3"
        assert ask(server.conninfo, "SHOW fsync") == "off"


def test_given_folder_is_kept_and_used_again(folder):
    with local_server(folder) as server:
        assert conninfo_to_dict(server.conninfo)["host"] == str(folder)
        with psycopg.connect(server.conninfo) as connection:
            connection.execute("CREATE TABLE t AS SELECT 7 AS n")
    assert folder.exists()
    with local_server(folder) as server:
        assert ask(server.conninfo, "SELECT n FROM t") == 7


def test_folder_with_other_things_in_it_is_refused_and_left_alone(folder):
    folder.mkdir()
    (folder / "thesis.txt").write_text("chapter 1")
    owner = folder.stat().st_uid
    with pytest.raises(ServerStartFailed, match="is not empty and holds no cluster"):
        local_server(folder).start()
    assert (folder / "thesis.txt").read_text() == "chapter 1"
    assert folder.stat().st_uid == owner


def test_folder_too_deep_for_a_socket(folder):
    deep = folder / ("d" * 60) / ("e" * 60)
    folder.mkdir()
    (folder / ("d" * 60)).mkdir(mode=0o755)
    with local_server(deep) as server:
        socket_folder = Path(str(conninfo_to_dict(server.conninfo)["host"]))
        assert socket_folder != deep
        assert ask(server.conninfo, "SELECT 1") == 1
    assert not socket_folder.exists()
    assert (deep / "data").exists()


def test_kept_temporary_folder():
    server = local_server(keep=True)
    with server:
        pass
    assert server.folder is not None
    assert (server.folder / "data" / "PG_VERSION").exists()
    shutil.rmtree(server.folder)


def test_without_a_port_it_listens_on_the_socket_only(standing_server):
    assert ask(standing_server.conninfo, "SHOW listen_addresses") == ""


def test_port_is_free_local_and_behind_a_password():
    with local_server(port=0) as server:
        place = conninfo_to_dict(server.conninfo)
        assert ask(server.conninfo, "SHOW listen_addresses") == place["host"] == "127.0.0.1"
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(make_conninfo(server.conninfo, password="guess"))  # noqa: S106


def test_failed_start_shows_the_log_and_leaves_nothing():
    server = local_server(settings={"shared_buffers": "lots"})
    with pytest.raises(ServerStartFailed, match=r'did not start(.|\n)*"shared_buffers": "lots"') as raised:
        server.start()
    assert server.folder is None
    path = str(raised.value).split(" in ")[1].split(" did")[0]
    assert not Path(path).exists()


def test_second_server_on_the_same_folder_leaves_the_first_alone(folder):
    with local_server(folder) as first:
        with pytest.raises(ServerStartFailed, match=r"postmaster\.pid"):
            local_server(folder).start()
        assert ask(first.conninfo, "SELECT 1") == 1


def test_not_running():
    with pytest.raises(ServerStartFailed, match=r"call start\(\)"):
        _ = local_server().conninfo
    with pytest.raises(ServerStartFailed, match=r"call start\(\)"):
        _ = local_server().pid


def test_nothing_is_left_when_the_process_is_killed(folder):
    """kill -9 while the server runs."""
    process, parts = start_elsewhere(folder, "server.start(); print(server.pid, server.folder, flush=True)")
    pid, server_folder = parts
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not Path(server_folder).exists() and not is_running(int(pid)))


def test_nothing_is_left_when_the_process_is_killed_in_the_making(folder):
    """kill -9 while initdb runs."""
    process, _ = start_elsewhere(folder, "print('starts', 'now', flush=True); server.start()")
    temporary = folder.parent / "tmp"
    wait_until(lambda: list(temporary.glob("pgdoc-*/data/base")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not list(temporary.iterdir()))
    assert str(temporary) not in subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout


def start_elsewhere(folder: Path, then: str) -> tuple[subprocess.Popen[str], list[str]]:
    """Run a server in another process, with a temporary folder below `folder`'s parent."""
    temporary = folder.parent / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    code = f"import time; from pgdoc.server import LocalServer; server = LocalServer(); {then}; time.sleep(600)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(temporary)}
    )
    assert process.stdout is not None
    return process, process.stdout.readline().split()
