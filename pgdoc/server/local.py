"""`LocalServer`: a private PostgreSQL server for tests, demos and development.

It is set up for change streams, runs as an unprivileged user even if root starts it, and listens on a Unix socket that
only its owner can reach. It stops with `stop`, and also when the process that started it is killed: a guardian, a
`/bin/sh` script, reads from a pipe that the kernel closes however that process ends. The guardian then stops the server
and removes its temporary folders. Nothing is installed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal

from psycopg.conninfo import make_conninfo

from pgdoc.errors import ServerStartFailed
from pgdoc.server.installation import find_installation
from pgdoc.server.ports import check_port, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    from pgdoc.server.installation import Installation

__all__ = ["LocalServer"]

StopMode = Literal["fast", "immediate"]

_SIGNALS: Final = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}  # what pg_ctl sends
_START_TIMEOUT_S: Final = 120.0
_FAST_TIMEOUT_S: Final = 60.0
_SOCKET_PATH_BYTES: Final = 103  # sun_path holds 104 on macOS and 108 on Linux, with the NUL at the end
_DEFAULT_PORT: Final = 5432  # without TCP it is only part of the socket's name

SERVER_SETTINGS: Final[dict[str, object]] = {
    "wal_level": "logical",
    "max_replication_slots": 32,
    "max_wal_senders": 32,
    "max_slot_wal_keep_size": "4GB",
    "log_line_prefix": "%m [%p] %d ",
    "unix_socket_permissions": "0700",
}

# Reads lines: each is the pid of the process to stop, and replaces the one before. `end` stops the loop without waiting
# for the end of the pipe, because a process that ours forked may still hold the pipe. A zombie stays visible to
# `kill -0`, so the number of tries is limited.
_GUARDIAN: Final = """
while read -r line && [ "$line" != end ]; do pid=$line; done
if [ -n "$pid" ] && kill -QUIT "$pid"; then
    tries=0
    while kill -0 "$pid" && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
fi
[ $# -eq 0 ] || rm -rf -- "$@"
"""


class LocalServer:
    """A private PostgreSQL server; a context manager.

    ::

        with LocalServer() as server, pgdoc.Store(server.conninfo) as store:
            ...

    Args:
        folder: of the cluster. It is created, or reused if it holds a cluster, and never removed. `None` creates a
            temporary folder that `stop` removes.
        bin_dir: the folder of PostgreSQL's programs; `None` searches for them (`pgdoc.server.installation`).
        plugin: the output plugin that streams need. `wal2json` must be installed; every server has pgoutput.
        port: also listen on 127.0.0.1 at this port, with a password; 0 selects a free port.
        settings: configuration parameters in addition to those that change streams need.
        keep: do not remove a temporary folder.
    """

    def __init__(  # noqa: PLR0913 (independent options)
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        bin_dir: str | os.PathLike[str] | None = None,
        plugin: str = "auto",
        port: int | None = None,
        settings: Mapping[str, object] | None = None,
        keep: bool = False,
    ) -> None:
        self.folder = Path(folder).absolute() if folder is not None else None
        self._temporary = folder is None and not keep
        self._bin_dir = bin_dir
        self._plugin = plugin
        self._listens = port is not None
        self._port = port or _DEFAULT_PORT
        self._wants_free_port = port == 0
        self._settings = dict(settings or {})
        self._socket_folder: Path | None = None
        self._copy_folder: Path | None = None
        self._postmaster: subprocess.Popen[bytes] | None = None
        self._guardian: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"pid {self._postmaster.pid}" if self._postmaster is not None else "stopped"
        return f"<LocalServer {state}, folder {self.folder}>"

    @property
    def bin_dir(self) -> Path:
        """The folder of PostgreSQL's programs."""
        return self._installation.bin_dir

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        if self._postmaster is None:
            raise ServerStartFailed("the local server is not running: call start()")
        return self._postmaster.pid

    @property
    def conninfo(self) -> str:
        """How to connect, as the superuser `postgres` to the database `postgres`."""
        return self.conninfo_for("postgres")

    def conninfo_for(self, dbname: str, user: str | None = None) -> str:
        """How to connect to another database, or as another user.

        The connection uses the socket. If `port` was given, the superuser's connections use TCP; only that user has a
        password.
        """
        if self._socket_folder is None:
            raise ServerStartFailed("the local server is not running: call start()")
        route: dict[str, Any] = {"host": str(self._socket_folder)}
        if self._listens and user is None:
            route = {"host": "127.0.0.1", "password": self._path("password").read_text()}
        return make_conninfo("", port=self._port, user=user or "postgres", dbname=dbname, **route)

    @property
    def has_exited(self) -> bool:
        """Whether the server ended by itself: it was started, and nobody stopped it."""
        return self._postmaster is not None and self._postmaster.poll() is not None

    def start(self) -> Self:
        """Start the server and wait until it accepts connections.

        Raises:
            ServerNotFound: this machine has no PostgreSQL that is new enough.
            PluginMissing: `plugin` is `wal2json`, and PostgreSQL does not have it.
            ServerStartFailed: the folder or the port can't be used, or the server did not start; the message then has
                the last lines of its log.
        """
        if self.has_exited:
            self._launch()
        if self._postmaster is not None:
            return self
        self._installation  # noqa: B018 (fails before any folder is created)
        if self._listens and not self._wants_free_port:
            check_port(self._port)
        try:
            self._prepare_folders()
            self._prepare_programs()
            self._prepare_cluster()
            self._launch()
        except OSError as exc:
            folder = self.folder or tempfile.gettempdir()
            self.stop("immediate")
            raise ServerStartFailed(f"folder {folder} can't be used ({exc.strerror}): use another folder") from exc
        except BaseException:
            self.stop("immediate")
            raise
        return self

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server, and remove its folder if that is temporary. Does nothing if the server is not running.

        Args:
            mode: `fast` disconnects clients and writes a checkpoint; `immediate` is a crash.
        """
        self._halt(mode)
        if self._guardian is not None:
            self._send_to_guardian("end")
            self._guardian.communicate()  # it removes the temporary folders
            self._guardian = None
            self._socket_folder = self._copy_folder = None
            if self._temporary:
                self.folder = None

    def restart(self, mode: StopMode = "fast") -> None:
        """Restart the server. It keeps its data and its conninfo."""
        with self.stopped(mode):
            pass

    @contextlib.contextmanager
    def stopped(self, mode: StopMode = "fast") -> Iterator[None]:
        """Stop the server for the duration of the block."""
        self._halt(mode)
        try:
            yield
        finally:
            self._launch()

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of the server's log."""
        return self._read_log(lines)

    def _read_log(self, lines: int, start: int = 0) -> str:
        """Return the last lines of those that begin at byte `start`."""
        try:
            return "\n".join(self._path("log").read_bytes()[start:].decode(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    @functools.cached_property
    def _installation(self) -> Installation:
        return find_installation(self._bin_dir, plugin=self._plugin)

    @functools.cached_property
    def _account(self) -> dict[str, Any]:
        """The user that runs the server, as arguments of Popen. PostgreSQL refuses root."""
        if os.geteuid() != 0:
            return {}
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                account = pwd.getpwnam(name)
                return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": ()}
        raise ServerStartFailed(
            "PostgreSQL refuses to run as root, and this machine has no user postgres or nobody: create one of them"
        )

    def _path(self, name: str) -> Path:
        assert self.folder is not None  # noqa: S101 (set by start)
        return self.folder / name

    def _prepare_folders(self) -> None:
        if self.folder is None:
            self.folder = self._make_temporary_folder()
        elif not self.folder.exists() or not any(self.folder.iterdir()):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._hand_over(self.folder)
        elif not self._path("data").exists():
            raise ServerStartFailed(f"{self.folder} is not empty and holds no cluster: use an empty or a new folder")
        self._socket_folder = self.folder if self._fits(self.folder) else self._make_temporary_folder()
        temporary = {self.folder} if self._temporary else set()
        temporary |= {self._socket_folder} - {self.folder}
        if self._installation.is_embedded and not self._reaches(Path(self._installation.program("postgres"))):
            self._copy_folder = self._make_temporary_folder()
            temporary.add(self._copy_folder)
        self._guardian = self._spawn(
            "/bin/sh", "-c", _GUARDIAN, "pgdoc-guardian", *map(str, temporary), stdin=subprocess.PIPE
        )

    def _prepare_programs(self) -> None:
        """Copy the programs out of a virtual environment that the server's user cannot enter."""
        self._programs = self._installation
        if self._copy_folder is not None:
            self._programs = self._installation.copy_to(self._copy_folder)
            for path in self._copy_folder.rglob("*"):
                self._hand_over(path)

    def _make_temporary_folder(self) -> Path:
        parent = tempfile.gettempdir()
        if not self._fits(Path(parent, "pgdoc-xxxxxxxx")) or not self._reaches(Path(parent)):
            parent = "/tmp"  # noqa: S108 (mkdtemp creates the folder)
        return self._hand_over(Path(tempfile.mkdtemp(prefix="pgdoc-", dir=parent)))

    def _fits(self, folder: Path) -> bool:
        return len(os.fsencode(folder)) + len("/.s.PGSQL.65535.lock") <= _SOCKET_PATH_BYTES

    def _reaches(self, path: Path) -> bool:
        return not self._account or all(each.stat().st_mode & 0o001 for each in (path, *path.parents))

    def _hand_over(self, path: Path) -> Path:
        if self._account:
            os.chown(path, self._account["user"], self._account["group"])
        return path

    def _write(self, path: Path, text: str) -> None:
        path.touch(mode=0o600)
        path.write_text(text)
        self._hand_over(path)

    def _prepare_cluster(self) -> None:
        if not self._path("data/PG_VERSION").exists():
            self._write(self._path("password"), secrets.token_urlsafe(16))
            self._init()
            with self._path("data/postgresql.conf").open("a") as config:
                config.write("include 'pgdoc.conf'\n")
        if self._wants_free_port:
            self._port = free_port()
        self._write(self._path("data/pgdoc.conf"), "".join(_setting(*pair) for pair in self._all_settings().items()))

    def _init(self) -> None:
        """Create the cluster, in UTF-8, with text sorted by code point."""
        command = [self._programs.program("initdb"), "--pgdata", str(self._path("data")), "--username=postgres"]
        command += ["--encoding=UTF8", "--locale=" + ("C" if sys.platform == "darwin" else "C.UTF-8")]
        command += ["--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile", str(self._path("password"))]
        command += ["--no-instructions", *(["--no-sync"] if self._temporary else [])]
        with self._path("log").open("ab") as log:
            process = self._spawn(*command, stdout=log, stderr=log)
        self._send_to_guardian(process.pid)
        if process.wait() != 0:
            raise ServerStartFailed(
                f"initdb could not create a cluster in {self.folder}; its output ends with:\n{self.log_tail()}"
            )

    def _all_settings(self) -> dict[str, object]:
        listen = {"listen_addresses": "127.0.0.1" if self._listens else "", "port": self._port}
        sockets = {"unix_socket_directories": '"{}"'.format(str(self._socket_folder).replace('"', '""'))}
        plugins = {}
        if self._programs.knows("output_plugin_libraries"):
            plugins = {"output_plugin_libraries": "pgoutput, test_decoding, wal2json"}
        return {**SERVER_SETTINGS, **listen, **sockets, **plugins, **self._settings}

    def _launch(self) -> None:
        with self._path("log").open("ab") as log:
            log_start = log.seek(0, os.SEEK_END)
            postgres = self._programs.program("postgres")
            self._postmaster = self._spawn(postgres, "-D", str(self._path("data")), stdout=log, stderr=log)
        self._send_to_guardian(self._postmaster.pid)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._is_ready():
            if self._postmaster.poll() is not None or time.monotonic() > deadline:
                log_tail = self._read_log(20, log_start)
                self._halt("immediate")
                raise ServerStartFailed(f"PostgreSQL in {self.folder} did not start; its log ends with:\n{log_tail}")
            time.sleep(0.01)

    def _is_ready(self) -> bool:
        """Read the state as pg_ctl does: line 1 of `postmaster.pid` is the pid, line 8 the state."""
        try:
            lines = self._path("data/postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _halt(self, mode: StopMode) -> None:
        if self._postmaster is None:
            return
        self._postmaster.send_signal(_SIGNALS[mode])
        try:
            self._postmaster.wait(_FAST_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._postmaster.send_signal(signal.SIGQUIT)
            self._postmaster.wait()
        self._postmaster = None
        self._send_to_guardian("")

    def _send_to_guardian(self, line: int | str) -> None:
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guardian.stdin.write(f"{line}\n".encode())
                self._guardian.stdin.flush()

    def _spawn(
        self,
        *command: str,
        stdin: int = subprocess.DEVNULL,
        stdout: IO[bytes] | int = subprocess.DEVNULL,
        stderr: IO[bytes] | int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start a program as the unprivileged user, in a new session, out of reach of Ctrl-C."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        try:
            return subprocess.Popen(  # noqa: S603
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=self.folder,
                env={**environment, "LC_ALL": "C"},
                start_new_session=True,
                umask=0o077,
                **self._account,
            )
        except PermissionError as exc:
            user = pwd.getpwuid(self._account.get("user", os.geteuid())).pw_name
            raise ServerStartFailed(
                f"user {user}, which runs the server, may not run {exc.filename}: "
                "run chmod o+x on the folders above it, or pass bin_dir with other programs"
            ) from exc


def _setting(name: str, value: object) -> str:
    text = ("off", "on")[value] if isinstance(value, bool) else str(value)
    return "{} = '{}'\n".format(name, text.replace("\\", "\\\\").replace("'", "''"))
