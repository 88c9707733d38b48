"""`pgdoc worker`: what it names and runs, how it ends, and what --check and --declare print."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import pgdoc
from pgdoc.cli.app import run_cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE_S = 60

PRELUDE = """
import asyncio, os, threading, time
import pgdoc

dsn = {dsn!r}
"""

SYNC = """
store = pgdoc.Store(dsn)
worker = pgdoc.Worker(store, shutdown_timeout={timeout})

@worker.on("orders", consumer="audit")
def audit(tx: pgdoc.Transaction, events: list[pgdoc.ChangeEvent]) -> None:
    for event in events:
        tx["effects"].insert(event.document_id, {{}})
        print(event.document_id, flush=True)
        time.sleep({pause})
"""

ASYNC = """
store = pgdoc.AsyncStore(dsn)
worker = pgdoc.AsyncWorker(store, shutdown_timeout={timeout})

@worker.on("orders", consumer="audit")
async def audit(tx: pgdoc.AsyncTransaction, events: list[pgdoc.ChangeEvent]) -> None:
    for event in events:
        await tx["effects"].insert(event.document_id, {{}})
        print(event.document_id, flush=True)
        await asyncio.sleep({pause})
"""

BLOCKING = "import pgdoc.cli.service_process\npgdoc.cli.service_process._GRACE_S = 1.0\n" + ASYNC.replace(
    "await asyncio.sleep", "time.sleep"
)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dsn: str) -> Iterator[Callable[..., str]]:
    """Write a module with a worker into a new current folder; return how the command line names the worker."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    root = logging.getLogger()
    handlers, level = root.handlers.copy(), root.level
    written: list[str] = []

    def write(text: str, name: str = "worker", *, timeout: float = 30, pause: float = 0) -> str:
        module = f"app_{tmp_path.name.replace('-', '_')}_{len(written)}"
        written.append(module)
        text = PRELUDE.format(dsn=dsn) + text.format(timeout=timeout, pause=pause)
        tmp_path.joinpath(f"{module}.py").write_text(text, encoding="utf-8")
        return f"{module}:{name}"

    with pgdoc.Store(dsn) as store:
        yield write
        for name in [each.name for each in store.consumers()]:
            store.drop_consumer(name)
    root.handlers[:] = handlers
    root.setLevel(level)
    for each in written:
        sys.modules.pop(each, None)


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `pgdoc worker` during the block; yield it once its consumer is open."""
    command = [sys.executable, "-m", "pgdoc", "worker", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "is open, and runs" in line:
                    break
            yield process
        finally:
            process.kill()


def insert(dsn: str, *ids: str) -> None:
    with pgdoc.Store(dsn) as store:
        store["orders"].insert_many([(each, {}) for each in ids])


def effects(dsn: str) -> list[str]:
    with pgdoc.Store(dsn) as store:
        return sorted(document.id for document in store["effects"].find())


@pytest.mark.parametrize("text", [SYNC, ASYNC], ids=["sync", "async"])
def test_a_signal_lets_the_batch_end(module: Callable[..., str], dsn: str, text: str) -> None:
    with running(module(text, pause=0.2)) as process:
        insert(dsn, "1", "2", "3")
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert process.stdout.read() == "2\n3\n"
    assert effects(dsn) == ["1", "2", "3"]


@pytest.mark.parametrize(("text", "code"), [(SYNC, 0), (ASYNC, 0), (BLOCKING, 1)], ids=["sync", "async", "blocking"])
def test_a_batch_that_takes_too_long_is_rolled_back(module: Callable[..., str], dsn: str, text: str, code: int) -> None:
    with running(module(text, pause=3600, timeout=0.5)) as process:
        insert(dsn, "1")
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == code
        assert "did not end in time" in process.stderr.read()
    assert effects(dsn) == []


def test_a_second_signal_ends_the_process_at_once(module: Callable[..., str], dsn: str) -> None:
    with running(module(BLOCKING, pause=3600)) as process:
        insert(dsn, "1")
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGTERM)
        assert "the handlers end their batches" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
    assert effects(dsn) == []


def test_a_worker_that_ends_by_itself_waits_for_no_task_that_can_not_be_cancelled(
    module: Callable[..., str], dsn: str
) -> None:
    stubborn = BLOCKING.replace(
        "time.sleep({pause})",
        "worker.stop()\n        while True:\n            "
        "try: await asyncio.sleep(1)\n            except BaseException: pass",
    )
    with running(module(stubborn, timeout=0.2)) as process:
        insert(dsn, "1")
        assert process.wait(PATIENCE_S) == 1
        assert process.stderr is not None
        assert "the worker did not end in time" in process.stderr.read()
    assert effects(dsn) == []


def test_it_logs_json_and_serves_metrics(module: Callable[..., str], dsn: str) -> None:
    command = [sys.executable, "-m", "pgdoc", "worker", module(SYNC), "--log-format", "json", "--metrics-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert process.stdout is not None
            found = re.fullmatch(r"The metrics are at (\S+)\.\n", process.stderr.readline())
            assert found is not None
            lines = [json.loads(process.stderr.readline())]
            assert lines[0]["message"].startswith('consumer "audit" of the worker is open, and runs audit(tx, events)')
            insert(dsn, "1")
            assert process.stdout.readline() == "1\n"
            with urllib.request.urlopen(found[1], timeout=PATIENCE_S) as answer:  # noqa: S310 (it is ours)
                assert 'pgdoc_handler_calls_total{consumer="audit",' in answer.read().decode()
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 0
            lines += [json.loads(line) for line in process.stderr]
        finally:
            process.kill()
    assert {line["logger"] for line in lines} >= {"pgdoc.worker"}
    assert lines[-1]["message"] == "SIGINT: the handlers end their batches"
    assert lines[-1].keys() == {"time", "level", "logger", "message"}


STOPS = """
@worker.on("orders", consumer="stops")
def stop(events):
    worker.stop()
"""


def test_a_handler_can_stop_it(module: Callable[..., str], dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pgdoc.Store(dsn) as store:
        store.create_consumer("stops", "orders")
        store["orders"].insert("1", {})
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    assert run_cli(["worker", module(SYNC + STOPS), "--log-level", "info"]) == 0
    assert {each: signal.getsignal(each) for each in before} == before
    assert 'consumer "stops" of the worker is open, and runs stop(events) on orders' in capsys.readouterr().err


@pytest.mark.parametrize("text", [SYNC, ASYNC], ids=["sync", "async"])
def test_declare_creates_consumers_and_check_says_so(
    module: Callable[..., str], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    named = module(text)
    assert run_cli(["worker", named, "--check"]) == 0
    printed = capsys.readouterr().out
    assert "warn   audit         consumer audit does not exist" in printed
    assert "ok     rights" in printed
    named = module(text)  # its store is closed
    assert run_cli(["worker", named, "--declare"]) == 0
    assert capsys.readouterr().out == "Created consumer audit.\n"
    named = module(f"def make():\n    return build()\n\ndef build():\n{indented(text)}    return worker\n", "make")
    assert run_cli(["worker", named, "--declare", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "audit", "created": False}
    assert run_cli(["worker", named, "--check", "--json"]) == 0
    found = {each["id"]: each for each in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found["worker-consumer"] == {
        "id": "worker-consumer",
        "verdict": "ok",
        "consumer": "audit",
        "handler": None,
        "text": "consumer audit exists, and nobody has it open",
        "fix": [],
    }


def indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def test_check_fails_if_the_worker_can_not_run(module: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    away = SYNC.replace("Store(dsn)", "Store('host=127.0.0.1 port=1')")
    assert run_cli(["worker", module(away), "--check"]) == 1
    assert "wrong  server        no connection to the server" in capsys.readouterr().out


def test_a_worker_that_can_not_run_is_one_line(module: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    strict = SYNC.replace("Store(dsn)", "Store(dsn, auto_create=False)").replace('"orders"', '"absent"')
    empty = "store = pgdoc.Store(dsn)\nworker = pgdoc.Worker(store)\n"
    for text, said in (
        (strict, 'pgdoc: collection "docs.absent" does not exist: create it with store.create_collection()\n'),
        (empty, "pgdoc: the worker has no handlers: decorate functions with @worker.on(...)\n"),
    ):
        assert run_cli(["worker", module(text), "--log-level", "error"]) == 1
        assert capsys.readouterr().err == said


def test_a_metrics_port_that_is_taken_is_one_line(
    module: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pgdoc.telemetry.serve(0) as taken:
        assert run_cli(["worker", module(SYNC), "--metrics-port", str(taken.port)]) == 1
    assert f"can't listen on 127.0.0.1, port {taken.port}: Address already in use" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(
    module: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    for name in [name for name in sys.modules if name.startswith("pgdoc.telemetry.http")]:
        monkeypatch.delitem(sys.modules, name)
    assert run_cli(["worker", module(SYNC), "--metrics-port", "0"]) == 1
    assert "run pip install" in capsys.readouterr().err
