import os
import re
import shutil
import signal
import socket
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
    """A folder that the server's user can access."""
    parent = Path(tempfile.mkdtemp(prefix="pgdoc-test-", dir="/tmp"))
    parent.chmod(0o755)
    yield parent / "cluster"
    shutil.rmtree(parent)


@pytest.fixture(scope="module")
def shared_server():
    """A server shared by tests that leave it unchanged."""
    with local_server() as server:
        yield server


def ask(conninfo: str, query: LiteralString) -> Any:
    with psycopg.connect(conninfo) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def is_running(pid: int) -> bool:
    """Return whether a process is alive; a zombie is not."""
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


def test_a_local_server_is_ready_for_change_streams(shared_server):
    assert ask(shared_server.conninfo, "SHOW wal_level") == "logical"
    assert ask(shared_server.conninfo, "SHOW max_slot_wal_keep_size") == "4GB"
    assert ask(shared_server.conninfo, "SHOW server_encoding") == "UTF8"
    lsn = ask(shared_server.conninfo, "SELECT lsn FROM pg_create_logical_replication_slot('s', 'pgoutput')")
    assert lsn > "0/0"


def test_a_local_server_allows_wal2json_if_there_is_an_allow_list(shared_server):
    """A server that does not know the setting refuses to start with it, so there it must be absent."""
    allowed = ask(shared_server.conninfo, "SELECT current_setting('output_plugin_libraries', true)")
    assert allowed in {None, "pgoutput, test_decoding, wal2json"}


def test_a_local_server_runs_unprivileged_in_its_own_session(shared_server):
    assert Path(f"/proc/{shared_server.pid}").stat().st_uid != 0
    assert os.getsid(shared_server.pid) == shared_server.pid


def test_stop_leaves_nothing_behind(private_server):
    pid, folder = private_server.pid, private_server.folder
    private_server.stop()
    assert not is_running(pid)
    assert not folder.exists()


def test_stop_does_not_wait_for_a_forked_process(private_server):
    """A forked process holds a copy of the pipe that the guardian waits on."""
    pipe = private_server._guardian.stdin.fileno()
    forked = subprocess.Popen(["sleep", "600"], pass_fds=[pipe])
    private_server.stop()
    assert forked.poll() is None
    forked.kill()
    forked.wait()


def test_a_server_can_be_started_again_after_stop(private_server):
    private_server.stop()
    private_server.start()
    assert ask(private_server.conninfo, "SELECT 1") == 1


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_keeps_data_and_conninfo(shared_server, mode):
    conninfo = shared_server.conninfo
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t AS SELECT 7 AS n")
    shared_server.restart(mode)
    assert shared_server.conninfo == conninfo
    assert ask(conninfo, "SELECT n FROM t") == 7


def test_a_stopped_server_refuses_connections(shared_server):
    with shared_server.stopped("immediate"), pytest.raises(psycopg.OperationalError):
        psycopg.connect(shared_server.conninfo)
    assert ask(shared_server.conninfo, "SELECT 1") == 1


def test_alter_system_overrides_the_settings_of_a_server(private_server):
    with psycopg.connect(private_server.conninfo, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET max_replication_slots = 3")
    private_server.restart()
    assert ask(private_server.conninfo, "SHOW max_replication_slots") == "3"


def test_conninfo_for_leads_to_another_database_and_user(shared_server):
    with psycopg.connect(shared_server.conninfo, autocommit=True) as connection:
        connection.execute("CREATE DATABASE app")
        connection.execute("CREATE ROLE reader LOGIN")
    conninfo = shared_server.conninfo_for("app", user="reader")
    assert ask(conninfo, "SELECT current_database() || ' ' || current_user") == "app reader"


def test_settings_are_passed_literally(folder):
    with local_server(folder, settings={"cluster_name": r"it's a \n", "max_wal_senders": 3, "fsync": False}) as server:
        assert ask(server.conninfo, "SHOW cluster_name") == r"it's a \n"
        assert ask(server.conninfo, "SHOW max_wal_senders") == "3"
        assert ask(server.conninfo, "SHOW fsync") == "off"


def test_a_given_folder_is_kept_and_reused(folder):
    with local_server(folder) as server:
        assert conninfo_to_dict(server.conninfo)["host"] == str(folder)
        with psycopg.connect(server.conninfo) as connection:
            connection.execute("CREATE TABLE t AS SELECT 7 AS n")
    assert folder.exists()
    with local_server(folder) as server:
        assert ask(server.conninfo, "SELECT n FROM t") == 7


def test_a_folder_with_other_files_is_refused_and_left_alone(folder):
    folder.mkdir()
    (folder / "thesis.txt").write_text("chapter 1")
    owner = folder.stat().st_uid
    with pytest.raises(ServerStartFailed, match="is not empty and holds no cluster"):
        local_server(folder).start()
    assert (folder / "thesis.txt").read_text() == "chapter 1"
    assert folder.stat().st_uid == owner


@pytest.mark.parametrize("path", ["/proc/pgdoc", "file", "file/below"])
def test_a_folder_that_cannot_be_used_is_an_error_of_one_line(folder, path):
    (folder.parent / "file").touch()
    with pytest.raises(ServerStartFailed) as raised:
        local_server(folder.parent / path).start()
    assert re.fullmatch(
        rf"folder /\S*{path.lstrip('/')} can't be used \([\w ]+\): use another folder", str(raised.value)
    )


def test_a_port_that_is_in_use_is_refused_before_a_cluster_is_created(folder):
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        port = used.getsockname()[1]
        with pytest.raises(ServerStartFailed) as raised:
            local_server(folder, port=port).start()
    assert str(raised.value) == f"port {port} is in use: choose another port, or 0 for a free one"
    assert not folder.exists()
    with pytest.raises(ServerStartFailed, match="port 70000 can't be used"):
        local_server(folder, port=70_000).start()


def test_a_server_that_ends_by_itself_has_exited(private_server):
    assert not private_server.has_exited
    os.kill(private_server.pid, signal.SIGQUIT)
    wait_until(lambda: private_server.has_exited)
    private_server.stop()
    assert not private_server.has_exited


def test_a_server_that_ended_by_itself_starts_again(private_server):
    with psycopg.connect(private_server.conninfo, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept ()")
    os.kill(private_server.pid, signal.SIGQUIT)
    wait_until(lambda: private_server.has_exited)
    private_server.start()
    with psycopg.connect(private_server.conninfo) as connection:
        connection.execute("SELECT FROM kept")


def test_up_reports_a_server_that_exited(folder):
    command = [sys.executable, "-u", "-m", "pgdoc", "up", "--folder", str(folder), "--schema", "shop"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        shown = [process.stdout.readline() for _ in range(5)]
        assert shown[-1].endswith("pgdoc watch --schema shop --create\n")
        os.kill(int((folder / "data/postmaster.pid").read_text().split()[0]), signal.SIGINT)
        out, error = process.communicate(timeout=30)
    assert (process.returncode, out, error.count("\n")) == (1, "", 1)
    assert error.startswith("pgdoc: the server exited: run `pgdoc up` again; its log ends with: ")


def test_a_folder_too_deep_for_a_socket_still_works(folder):
    deep = folder / ("d" * 60) / ("e" * 60)
    folder.mkdir()
    (folder / ("d" * 60)).mkdir(mode=0o755)
    with local_server(deep) as server:
        socket_folder = Path(str(conninfo_to_dict(server.conninfo)["host"]))
        assert socket_folder != deep
        assert ask(server.conninfo, "SELECT 1") == 1
    assert not socket_folder.exists()
    assert (deep / "data").exists()


def test_a_temporary_folder_can_be_kept():
    server = local_server(keep=True)
    with server:
        pass
    assert server.folder is not None
    assert (server.folder / "data" / "PG_VERSION").exists()
    shutil.rmtree(server.folder)


def test_a_server_without_a_port_listens_only_on_its_socket(shared_server):
    assert ask(shared_server.conninfo, "SHOW listen_addresses") == ""


def test_a_server_on_port_0_listens_locally_on_a_free_port_with_a_password():
    with local_server(port=0) as server:
        place = conninfo_to_dict(server.conninfo)
        assert ask(server.conninfo, "SHOW listen_addresses") == place["host"] == "127.0.0.1"
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(make_conninfo(server.conninfo, password="guess"))  # noqa: S106


def test_a_failed_start_shows_the_log_and_leaves_nothing():
    server = local_server(settings={"shared_buffers": "lots"})
    with pytest.raises(ServerStartFailed, match=r'did not start(.|\n)*"shared_buffers": "lots"') as raised:
        server.start()
    assert server.folder is None
    path = str(raised.value).split(" in ")[1].split(" did")[0]
    assert not Path(path).exists()


def test_a_second_server_on_the_same_folder_does_not_disturb_the_first(folder):
    with local_server(folder) as first:
        with pytest.raises(ServerStartFailed, match=r"postmaster\.pid"):
            local_server(folder).start()
        assert ask(first.conninfo, "SELECT 1") == 1


def test_a_server_that_is_not_running_asks_for_start():
    with pytest.raises(ServerStartFailed, match=r"call start\(\)"):
        _ = local_server().conninfo
    with pytest.raises(ServerStartFailed, match=r"call start\(\)"):
        _ = local_server().pid


def test_a_server_ends_with_its_killed_parent(folder):
    """The process is killed with SIGKILL while the server runs."""
    process, parts = start_elsewhere(folder, "server.start(); print(server.pid, server.folder, flush=True)")
    pid, server_folder = parts
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not Path(server_folder).exists() and not is_running(int(pid)))


def test_a_server_that_is_being_created_ends_with_its_killed_parent(folder):
    """The process is killed with SIGKILL while initdb runs."""
    process, _ = start_elsewhere(folder, "print('starts', 'now', flush=True); server.start()")
    temporary = folder.parent / "tmp"
    wait_until(lambda: list(temporary.glob("pgdoc-*/data/base")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not list(temporary.iterdir()))
    assert str(temporary) not in subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout


def start_elsewhere(folder: Path, then: str) -> tuple[subprocess.Popen[str], list[str]]:
    """Create a server in another process, with a temporary folder in the parent of `folder`."""
    temporary = folder.parent / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    code = f"import time; from pgdoc.server import LocalServer; server = LocalServer(); {then}; time.sleep(600)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(temporary)}
    )
    assert process.stdout is not None
    return process, process.stdout.readline().split()
