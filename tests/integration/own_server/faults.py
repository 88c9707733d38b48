"""Faulty servers: fake ones, and real ones with other settings."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests.integration.own_server.words import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc.server import LocalServer

_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">i", len(body) + 4) + body


def refusal(text: str, sqlstate: str = "08P01") -> bytes:
    """Return the ErrorResponse of a server or pooler that refuses a connection."""
    fields = [f"SFATAL\0VFATAL\0C{sqlstate}\0M{text}\0"]
    return message(b"E", "".join(fields).encode() + b"\0")


def greeting(version: str) -> bytes:
    """Return what a server sends to a client that it accepts."""
    parameters = {"server_version": version, "server_encoding": "UTF8", "client_encoding": "UTF8"}
    told = [message(b"S", f"{name}\0{value}\0".encode()) for name, value in parameters.items()]
    return message(b"R", struct.pack(">i", 0)) + b"".join(told) + message(b"Z", b"I")


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Run a server that sends each client the same answer; yield its conninfo."""

    def serve(client: socket.socket) -> None:
        _startup(client)
        client.sendall(answer)
        while client.recv(1 << 16):
            pass

    with _listening(serve) as conninfo:
        yield conninfo


@contextlib.contextmanager
def pooling(server: LocalServer, refused: str) -> Iterator[str]:
    """Run a proxy that, like PgBouncer, refuses startup packets with an unsupported parameter; yield its conninfo."""

    def serve(client: socket.socket) -> None:
        packet = _startup(client)
        if refused.encode() in packet.split(b"\0"):
            client.sendall(refusal(f"unsupported startup parameter: {refused}"))
            return
        place = conninfo_to_dict(server.conninfo_for("postgres", "postgres"))
        with socket.socket(socket.AF_UNIX) as onward:
            onward.connect(f"{place['host']}/.s.PGSQL.{place['port']}")
            onward.sendall(packet)
            back = threading.Thread(target=_pump, args=(onward, client), name="pooler-back")
            back.start()
            _pump(client, onward)
            back.join()

    with _listening(serve) as conninfo:
        yield conninfo


@contextlib.contextmanager
def altered(server: LocalServer, **settings: str) -> Iterator[None]:
    """Run the server with other settings during the block; drop all its slots before and after."""
    _restart_with(server, settings)
    try:
        yield
    finally:
        _restart_with(server, {})


def drop_slots(server: LocalServer) -> None:
    """Drop all slots; those that nobody reads first, so that who reconnects meanwhile does not find them."""
    with psycopg.connect(server.conninfo, autocommit=True) as admin:

        def are_gone() -> bool:
            with contextlib.suppress(psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
                admin.execute(f"SELECT pg_drop_replication_slot(slot_name) {_KEPT} AND NOT active")
            admin.execute("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active")
            return admin.execute(f"SELECT {_KEPT}").fetchone() is None

        wait_until(are_gone)


_KEPT = "FROM pg_replication_slots WHERE NOT temporary"


def _restart_with(server: LocalServer, settings: dict[str, str]) -> None:
    drop_slots(server)  # with a slot, a server with a lower wal_level does not start
    with psycopg.connect(server.conninfo, autocommit=True) as admin:
        admin.execute("ALTER SYSTEM RESET ALL")
        for name, value in settings.items():
            admin.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), value))
    server.restart()


@contextlib.contextmanager
def _listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    threads: list[threading.Thread] = []

    def handle(client: socket.socket) -> None:
        with client, contextlib.suppress(ConnectionError):
            serve(client)

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            if closing.is_set():
                client.close()
                return
            threads.append(threading.Thread(target=handle, args=(client,), name="false-server"))
            threads[-1].start()

    closing = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        accepting = threading.Thread(target=accept, name="false-server")
        accepting.start()
        try:
            yield f"host={host} port={port} user=postgres dbname=postgres"
        finally:
            closing.set()
            socket.create_connection((host, port)).close()
            for thread in (accepting, *threads):
                thread.join()


def _startup(client: socket.socket) -> bytes:
    """Read the startup packet, after refusing encryption."""
    while True:
        head = client.recv(8, socket.MSG_WAITALL)
        if len(head) < 8:
            raise ConnectionResetError
        length, code = struct.unpack(">ii", head)
        if code not in {_SSL_REQUEST, _GSS_REQUEST}:
            return head + client.recv(length - 8, socket.MSG_WAITALL)
        client.sendall(b"N")


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
