"""The commands on a real server. Those that go on until they are stopped are run as processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import psycopg
import pytest

import pgdoc
from tests.commands import pgdoc_command

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [sys.executable, "-m", "pgdoc"]


@contextmanager
def watching(dsn: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `pgdoc watch` during the block; yield it once its stream is open."""
    with subprocess.Popen(
        [*COMMAND, "watch", "--dsn", dsn, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("watching")
            yield process
        finally:
            process.kill()


def interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def without_clock(line: str) -> str:
    match = re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}  (.*\n)", line)
    assert match is not None, line
    return match[1]


def test_watch_prints_changes_as_they_happen_until_ctrl_c(dsn):
    with watching(dsn, "orders", "--create") as process, pgdoc.Store(dsn) as store:
        store["orders"].insert("o-1", {"total": 1})
        with pgdoc.metadata(user="ann"):
            store["orders"].update("o-1", {"$inc": {"total": 1}})
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 130
    assert without_clock(lines[0]).startswith('insert   orders/o-1  {"total":1}  +')
    assert without_clock(lines[1]).startswith("update   orders/o-1  total 1 → 2  by ann  +")


def test_watch_of_a_collection_that_does_not_exist_fails_and_creates_nothing(dsn):
    for arguments in (["ghost"], ["ghost", "--consumer", "billing"], ["ghost", "--snapshot", "--json"]):
        ended = pgdoc_command("watch", "--dsn", dsn, *arguments)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr == (
            'pgdoc: collection "docs.ghost" does not exist: check the name (`pgdoc collections` lists all), '
            "or pass --create to create it\n"
        )
    with pgdoc.Store(dsn) as store:
        assert (store.collections(), store.consumers()) == ([], [])


@pytest.mark.parametrize("arguments", [[], ["--consumer", "billing"], ["--snapshot"]])
def test_watch_creates_a_collection_if_it_is_told_to(dsn, arguments):
    with watching(dsn, "orders", "--create", *arguments) as process, pgdoc.Store(dsn, auto_create=False) as store:
        assert store.collections() == ["orders"]
        store["orders"].insert("o-1", {})
        assert process.stdout is not None
        assert without_clock(process.stdout.readline()).startswith("insert   orders/o-1  {}  +")
        interrupt(process)
        store.drop_consumer("billing")


@pytest.mark.parametrize("option", ["--from", "--consumer"])
def test_a_stream_that_resumes_creates_nothing_and_reports_what_does_not_exist(dsn, option):
    with pgdoc.Store(dsn) as store:
        with store.watch("orders", consumer="billing" if option == "--consumer" else None) as stream:
            value = "billing" if option == "--consumer" else str(stream.resume_token)
        store.drop_collection("orders")
        with watching(dsn, "orders", "--create", option, value) as process:
            assert process.stderr is not None
            assert process.stderr.readline().startswith('pgdoc: collection "docs.orders" does not exist, and a stream')
            assert process.stdout is not None
            assert without_clock(process.stdout.readline()).startswith("drop     orders  +")
            interrupt(process)
        assert store.collections() == []
        store.drop_consumer("billing")


def test_watch_prints_tokens_from_which_a_stream_resumes(dsn):
    with watching(dsn, "--tokens") as process, pgdoc.Store(dsn) as store:
        store.create_collection("orders")
        for number in range(2):
            store["orders"].insert(f"o-{number}", {})
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        assert [without_clock(line)[:8].strip() for line in lines[::2]] == ["create", "insert"]
        label, token = lines[3].split()
        assert label == "token"
        with store.watch(resume_after=token) as stream:
            event = stream.next(timeout=30)
            assert event is not None
            assert event.document_id == "o-1"


def test_watch_prints_only_events_that_match_where(dsn):
    with (
        watching(dsn, "orders", "--create", "--where", '{"full_document.data.n": 2}') as process,
        pgdoc.Store(dsn) as store,
    ):
        for number in range(3):
            store["orders"].insert(f"o-{number}", {"n": number})
        assert process.stdout is not None
        assert without_clock(process.stdout.readline()).startswith("insert   orders/o-2 ")
    command = [*COMMAND, "watch", "--dsn", dsn, "--where", '{"total": 5}']
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "Error: Invalid value for '--where': no event has 'total': use one of event_type, coll" in ended.stderr


def test_watch_resumes_after_a_token(dsn):
    with pgdoc.Store(dsn) as store:
        with store.watch("orders") as stream:
            for number in range(3):
                store["orders"].insert(f"o-{number}", {})
            first = stream.next(timeout=30)
            assert first is not None
        with watching(dsn, "--json", "--from", str(first.resume_token)) as process:
            assert process.stdout is not None
            events = [orjson.loads(process.stdout.readline()) for _ in range(2)]
    assert [event["document_id"] for event in events] == ["o-1", "o-2"]


def test_watch_ends_quietly_when_its_reader_does(dsn):
    with watching(dsn) as process, pgdoc.Store(dsn) as store:
        assert process.stdout is not None
        process.stdout.close()
        while process.poll() is None:
            store["orders"].insert(pgdoc.new_id(), {})
        assert process.stderr is not None
        assert (process.returncode, process.stderr.read()) == (1, "")


def test_watch_resumes_a_consumer_that_is_listed_and_dropped(dsn):
    with pgdoc.Store(dsn) as store:
        store.create_collection("orders")
        for number in range(3):
            create = () if number else ("--create",)
            with watching(dsn, "--json", "--consumer", "billing", *create) as process:
                store["orders"].insert(f"o-{number}", {})
                assert process.stdout is not None
                assert orjson.loads(process.stdout.readline())["document_id"] == f"o-{number}"
                busy = pgdoc_command("consumers", "drop", "billing", "--dsn", dsn)
                assert (busy.returncode, busy.stdout) == (1, "")
                assert busy.stderr.startswith('pgdoc: consumer "billing" is open')
                busy = pgdoc_command("watch", "--consumer", "billing", "--dsn", dsn)
                assert busy.returncode == 1
                assert busy.stderr.startswith('pgdoc: consumer "billing" is open elsewhere (its session has pid ')
                process.send_signal(signal.SIGINT)
                process.wait(30)
    listed = pgdoc_command("consumers", "--dsn", dsn)
    assert listed.stdout.splitlines()[1].split()[:3] == ["billing", "docs", "no"]
    assert pgdoc_command("consumers", "drop", "billing", "--dsn", dsn).returncode == 0
    gone = pgdoc_command("consumers", "--dsn", dsn, "drop", "billing")
    assert (gone.returncode, gone.stderr) == (1, "pgdoc: there is no consumer billing: `pgdoc consumers` lists them\n")


def test_watch_of_a_consumer_that_does_not_exist_fails_and_creates_nothing(dsn):
    with pgdoc.Store(dsn) as store:
        store.create_collection("orders")
        for arguments in (["orders"], [], ["--from", "0/1"]):
            ended = pgdoc_command("watch", *arguments, "--consumer", "biling", "--dsn", dsn)
            assert (ended.returncode, ended.stdout) == (1, "")
            assert ended.stderr == (
                'pgdoc: consumer "biling" does not exist: check the name (`pgdoc consumers` lists them), '
                "or pass --create\n"
            )
        assert store.consumers() == []


def test_watch_from_a_position_that_is_no_longer_kept_says_what_to_do(dsn):
    ended = pgdoc_command("watch", "--from", "0/1", "--dsn", dsn)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert ended.stderr.startswith("pgdoc: a stream can't resume at 0/1: ")
    assert "Start without --from" in ended.stderr
    ended = pgdoc_command("watch", "--from", "0/1", "--snapshot", "--dsn", dsn)
    assert ended.returncode == 2
    assert "Invalid value for '--from': an LSN does not record the progress of a snapshot" in ended.stderr


def test_a_schema_that_does_not_exist_is_reported(dsn):
    for command, code in (("watch", 1), ("dump", 1), ("collections", 0), ("status", 0)):
        words = ["dump", "orders"] if command == "dump" else [command]
        ended = pgdoc_command(*words, "--dsn", dsn, "--schema", "nosuch")
        advice = ", or pass --create" if command == "watch" else ""
        assert (ended.returncode, ended.stderr) == (
            code,
            f'pgdoc: schema "nosuch" does not exist: check the name{advice}\n',
        )
    doctor = pgdoc_command("doctor", "--dsn", dsn, "--schema", "nosuch")
    assert 'warn   tables        schema "nosuch" does not exist: check the name\n' in doctor.stdout
    with watching(dsn, "--schema", "nosuch", "--create"):
        pass


def test_watch_goes_on_in_a_locale_that_can_not_show_a_document(dsn, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    with watching(dsn, "orders", "--create") as process, pgdoc.Store(dsn) as store:
        store["orders"].insert("o-1", {"to": "Пётр"})
        store["orders"].insert("o-2", {"n": 1})
        assert process.stdout is not None
        lines = [without_clock(process.stdout.readline()).partition("  +")[0] for _ in range(2)]
        assert lines == ['insert   orders/o-1  {"to":"\\u041f\\u0451\\u0442\\u0440"}', 'insert   orders/o-2  {"n":1}']
        interrupt(process)


def test_an_error_is_printed_on_one_line(dsn):
    ended = subprocess.run(
        [*COMMAND, "watch", "--dsn", dsn, "--from", "FFFFFF/0"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("pgdoc: position FFFFFF/0 lies beyond the end")
    assert ended.stderr.count("\n") == 1


def test_the_demo_loses_nothing_and_leaves_nothing(dsn):
    ended = subprocess.run(
        [*COMMAND, "demo", "--dsn", dsn],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "lost 0, repeated 0" in ended.stdout
    assert "of the same transaction" in ended.stdout
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT to_regnamespace('pgdoc_demo')").fetchone() == (None,)


def test_the_demo_refuses_a_schema_that_exists(dsn):
    with pgdoc.Store(dsn) as store:
        store["orders"].insert("o-1", {})
        ended = pgdoc_command("demo", "--dsn", dsn, "--schema", "docs")
        assert ended.returncode == 1
        assert ended.stderr.startswith('pgdoc: schema "docs" already exists, and the demo drops its schema at the end')
        assert store["orders"].count() == 1


def test_commands_work_in_the_schema_that_is_given(dsn, tmp_path):
    file = tmp_path / "orders.ndjson"
    file.write_text('{"_id":"o-1","n":1}\n')
    shop = ("--dsn", dsn, "--schema", "shop")
    assert pgdoc_command("load", str(file), "orders", *shop).returncode == 0
    assert pgdoc_command("dump", "orders", *shop).stdout == file.read_text()
    assert pgdoc_command("collections", *shop).stdout == "orders\n"
    assert pgdoc_command("collections", "--dsn", dsn).stdout == ""
    assert "schema          shop" in pgdoc_command("status", *shop).stdout.splitlines()
    with watching(dsn, "orders", "--schema", "shop") as process, pgdoc.Store(dsn, schema="shop") as store:
        pgdoc_command("load", str(file), "orders", "--dsn", dsn)
        store["orders"].insert("o-2", {})
        assert process.stdout is not None
        assert without_clock(process.stdout.readline()).startswith("insert   orders/o-2 ")
    with psycopg.connect(dsn) as connection:
        connection.execute("DROP EVENT TRIGGER pgdoc_alters")  # which refuses the fault
        connection.execute("ALTER TABLE shop.orders REPLICA IDENTITY DEFAULT")
    assert "run SELECT pgdoc.register('shop.orders')\n" in pgdoc_command("doctor", *shop).stdout
    assert "before images" not in pgdoc_command("doctor", "--dsn", dsn).stdout
    for command in ("init", "history", "consumers"):
        assert pgdoc_command(command, *shop).returncode == 0


def test_a_schema_that_is_not_valid_is_an_error_of_one_line(dsn):
    for command in ("init", "history", "consumers", "doctor", "up", "demo"):
        ended = pgdoc_command(command, *(() if command == "up" else ("--dsn", dsn)), "--schema", "a b")
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
        assert ended.stderr.startswith("pgdoc: 'a b' is not a valid schema name")


@pytest.mark.parametrize("command", ["status", "init", "doctor"])
def test_without_a_dsn_and_a_server_the_error_names_pgdoc_dsn(command, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    ended = subprocess.run(
        [*COMMAND, command],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "PGHOST": str(tmp_path), "PGAPPNAME": "cron"},
    )
    assert ended.returncode == 1
    assert "no connection to the server" in ended.stdout + ended.stderr
    assert "set PGDOC_DSN, for example to postgresql://user@localhost/mydb" in ended.stdout + ended.stderr


def test_dump_of_a_collection_that_does_not_exist_says_what_to_do(dsn):
    ended = pgdoc_command("dump", "ghost", "--dsn", dsn)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        'pgdoc: collection "docs.ghost" does not exist: check the name (`pgdoc collections` lists all)\n'
    )


def test_a_table_that_is_not_a_collection_is_not_reported_as_missing(dsn):
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS docs; CREATE TABLE docs.plain (n int)")
    for arguments in (["watch", "plain"], ["watch", "plain", "--create"], ["dump", "plain"]):
        ended = pgdoc_command(*arguments, "--dsn", dsn)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert re.search(r"plain.* is not a collection.*use another (collection )?name", ended.stderr, re.IGNORECASE)
        assert "docs.plain" in ended.stderr
        assert "check the name" not in ended.stderr
        assert "--create" not in ended.stderr


def test_an_id_that_a_file_has_twice_is_not_reported_as_stored(dsn, tmp_path):
    file = tmp_path / "orders.jsonl"
    file.write_text('{"_id": "o-1"}\n{"_id": "o-1"}\n')
    ended = pgdoc_command("load", str(file), "orders", "--dsn", dsn)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(
        "pgdoc: collection \"docs.orders\" already has a document 'o-1', or this call inserts it twice: "
    )
    assert ended.stderr.endswith("; nothing was stored\n")
    assert pgdoc_command("collections", "--dsn", dsn).stdout == ""


def test_a_load_that_is_interrupted_leaves_no_collection(dsn):
    with subprocess.Popen(
        [*COMMAND, "load", "-", "orders", "--dsn", dsn],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b'{"text": "%s"}\n' % (b"x" * 1000) * 1000)  # more than a block, so COPY has begun
        process.stdin.flush()
        with psycopg.connect(dsn, autocommit=True) as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY %'"
            query += " AND state = 'active' AND wait_event = 'ClientRead'"
            deadline = time.monotonic() + 30
            while connection.execute(query).fetchone() == (0,):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.stdin.close()
        assert process.wait(30) == 130
    assert pgdoc_command("collections", "--dsn", dsn).stdout == ""


def test_connections_of_a_command_are_named_after_it(dsn):
    with watching(f"{dsn} application_name=shop") as _process, psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT application_name FROM pg_stat_activity WHERE datname = current_database()")
        assert "shop: pgdoc watch: pgdoc store docs" in {row[0] for row in rows}


def test_a_dump_loads_as_the_same_documents(dsn):
    price = Decimal("9.12345678901234567890")
    documents = {f"o-{number}": {"n": 10**30 + number, "a": [price, None, "ü"], "id": number} for number in range(2500)}
    with pgdoc.Store(dsn, decimals=True) as store:
        store["orders"].insert_many(documents.items())
        dumped = pgdoc_command("dump", "orders", "--dsn", dsn)
        assert (dumped.returncode, dumped.stderr) == (0, "")
        loaded = subprocess.run(
            [*COMMAND, "load", "-", "copies", "--dsn", dsn],
            input=dumped.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (loaded.returncode, loaded.stdout) == (0, "")
        assert loaded.stderr == "Loaded 2,500 documents into copies.\n"
        copies = {document.id: document.data for document in store["copies"].find()}
        assert copies == documents
        assert str(copies["o-7"]["a"][0]) == str(price)
    some = pgdoc_command("dump", "orders", "--where", '{"id": 7}', "--dsn", dsn)
    assert [orjson.loads(line)["_id"] for line in some.stdout.splitlines()] == ["o-7"]


def test_a_dump_goes_on_after_an_unreadable_document(dsn):
    with pgdoc.Store(dsn) as store, psycopg.connect(dsn, autocommit=True) as connection:
        store["orders"].insert_many([("o-1", {"n": 1}), ("o-3", {"n": 3})])
        connection.execute("INSERT INTO docs.orders (id, data) VALUES ('o-2', '{\"n\": 1e4300}')")
    dumped = pgdoc_command("dump", "orders", "--dsn", dsn)
    assert dumped.returncode == 1
    assert sorted(orjson.loads(line)["_id"] for line in dumped.stdout.splitlines()) == ["o-1", "o-3"]
    named, summary = dumped.stderr.splitlines()
    assert named.startswith("pgdoc: cannot dump document 'o-2' of collection \"orders\": ")
    assert named.count("o-2") == 1
    assert summary.startswith("pgdoc: 1 of 3 documents are unreadable, and missing in the output: ")


def test_a_limit_is_set_and_removed(dsn):
    with pgdoc.Store(dsn) as store:
        store["orders"].insert("o-1", {"text": "x" * 2000})
        refused = pgdoc_command("limit", "orders", "1KiB", "--dsn", dsn)
        assert refused.returncode == 1
        assert "document 'o-1' of collection \"docs.orders\" has 2,012 bytes" in refused.stderr
        ended = pgdoc_command("limit", "orders", "3KiB", "--dsn", dsn)
        assert (ended.returncode, ended.stdout) == (0, "Documents of orders have at most 3,072 bytes now.\n")
        with pytest.raises(pgdoc.DocumentTooLarge):
            store["orders"].insert("o-2", {"text": "x" * 4000})
        ended = pgdoc_command("limit", "orders", "none", "--dsn", dsn)
        assert (ended.returncode, ended.stdout) == (0, "Documents of orders have no limit now.\n")
        store["orders"].insert("o-2", {"text": "x" * 4000})
    for size in ("many", "1XB", "-1", "0", "2000MiB", "9" * 5000):
        ended = pgdoc_command("limit", "orders", size, "--dsn", dsn)
        assert (ended.returncode, ended.stdout) == (2, ""), size
    assert pgdoc_command("limit", "ghost", "1KiB", "--dsn", dsn).returncode == 1


def test_load_takes_the_id_from_a_field_or_generates_one(dsn, tmp_path):
    file = tmp_path / "parts.ndjson"
    file.write_text('{"sku": 17, "n": 1}\n\n{"sku": "x", "n": 2}')
    assert pgdoc_command("load", str(file), "by_sku", "--id", "sku", "--dsn", dsn).returncode == 0
    assert pgdoc_command("load", str(file), "by_new_id", "--dsn", dsn).returncode == 0
    with pgdoc.Store(dsn) as store:
        found = {document.id: document.data for document in store["by_sku"].find()}
        assert found == {"17": {"sku": 17, "n": 1}, "x": {"sku": "x", "n": 2}}
        assert sorted(document["n"] for document in store["by_new_id"].find()) == [1, 2]


@pytest.mark.parametrize(
    "line", ["{", "[1]", '{"_id": true}', '{"_id": "a", "n": NaN}', '{"_id": ""}', '{"n": "\\u0000"}']
)
def test_load_names_an_invalid_line_and_stores_nothing(dsn, tmp_path, line):
    file = tmp_path / "orders.ndjson"
    file.write_text('{"_id": "o-1"}\n' + line + '\n{"_id": "o-3"}\n')
    ended = pgdoc_command("load", str(file), "orders", "--dsn", dsn)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert ended.stderr.startswith("pgdoc: line 2: ")
    by_sku = pgdoc_command("load", str(file), "orders", "--id", "sku", "--dsn", dsn)
    assert (by_sku.returncode, by_sku.stderr.count("\n")) == (1, 1)
    with pgdoc.Store(dsn) as store:
        assert store.collections() == []


def test_load_takes_a_file_with_a_byte_order_mark(dsn, tmp_path):
    file = tmp_path / "parts.ndjson"
    file.write_text('{"_id": "p-1"}\r\n{"_id": "p-2"}\r\n', encoding="utf-8-sig")
    assert pgdoc_command("load", str(file), "parts", "--dsn", dsn).returncode == 0
    with pgdoc.Store(dsn) as store:
        assert sorted(document.id for document in store["parts"].find()) == ["p-1", "p-2"]


def test_a_disk_that_is_full_is_reported_on_one_line(dsn):
    with pgdoc.Store(dsn) as store:
        store["orders"].insert_many((f"o-{number}", {"text": "x" * 1000}) for number in range(100))
    for arguments in (["dump", "orders"], ["status"]):
        with Path("/dev/full").open("wb") as full:
            command = [*COMMAND, *arguments, "--dsn", dsn]
            ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert ended.returncode == 1
        assert ended.stderr.startswith("pgdoc: writing failed (No space left on device): free space")
        assert ended.stderr.count("\n") == 1


def test_dump_ends_quietly_when_its_reader_does(dsn):
    with pgdoc.Store(dsn) as store:
        store["orders"].insert_many((str(number), {"text": "x" * 1000}) for number in range(2000))
    with subprocess.Popen(
        [*COMMAND, "dump", "orders", "--dsn", dsn], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (1, b"")


def test_the_doctor_reports_faults_of_a_schema(dsn):
    with pgdoc.Store(dsn) as store:
        store.create_collection("orders")
    healthy = pgdoc_command("doctor", "--dsn", dsn)
    assert (healthy.returncode, healthy.stderr) == (0, "")
    assert "ok     streams       a test stream through " in healthy.stdout
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE docs.ledger (n int)")
        connection.execute("DROP EVENT TRIGGER pgdoc_alters")  # which refuses the faults
        connection.execute("ALTER TABLE docs.orders REPLICA IDENTITY DEFAULT")
    ill = pgdoc_command("doctor", "--dsn", dsn)
    assert ill.returncode == 1
    assert 'warn   tables        table "docs.ledger" is not a collection' in ill.stdout
    assert "it needs the columns id text" in ill.stdout
    assert "has lost before images: register it again, as its owner\n" in ill.stdout
    assert "run SELECT pgdoc.register('docs.orders')\n" in ill.stdout
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE docs.copy (LIKE docs.orders INCLUDING ALL)")
        connection.execute("SELECT pgdoc.register('docs.orders'); ALTER TABLE docs.orders DISABLE TRIGGER ALL")
    ill = pgdoc_command("doctor", "--dsn", dsn)
    assert "run SELECT pgdoc.register('docs.copy')\n" in ill.stdout
    assert "has lost its triggers: register it again, as its owner\n" in ill.stdout


def test_the_doctor_reports_a_missing_catalog(bare_dsn):
    ended = pgdoc_command("doctor", "--dsn", bare_dsn)
    assert ended.returncode == 1
    found, cure = ended.stdout.splitlines()[-2:]
    assert found.startswith("wrong  catalog       the database has no pgdoc catalog")
    assert cure.strip() == "run pgdoc init"


def test_the_doctor_reports_a_missing_server(tmp_path):
    ended = pgdoc_command("doctor", "--dsn", f"host={tmp_path}")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.startswith("wrong  connection    no connection to the server")
    assert ended.stdout.count("\n") == 1


def test_bash_completion_lists_commands():
    environment = {**os.environ, "_PGDOC_COMPLETE": "complete_bash", "COMP_WORDS": "pgdoc do", "COMP_CWORD": "1"}
    ended = subprocess.run(COMMAND, capture_output=True, text=True, check=False, env=environment)
    assert ended.stdout.split() == ["doctor"]


def test_status_and_history_are_printed_with_units(dsn):
    with pgdoc.Store(dsn) as store:
        store.set_history(timedelta(minutes=90), 3 << 29)
    history = pgdoc_command("history", "--dsn", dsn).stdout.splitlines()
    assert history[:2] == ["time       1.5 h", "size       1.5 GiB"]
    status = pgdoc_command("status", "--dsn", dsn).stdout.splitlines()
    assert {"schema          docs", "follows ddl     yes", "problem         none"} < set(status)
    assert not [line for line in history + status if line != line.rstrip()]


def test_publish_makes_an_event_that_watch_prints(dsn):
    with watching(dsn, "--topic", "order.*") as process:
        assert (
            pgdoc_command("publish", "order.shipped", '{"total": 1.50}', "--key", "o-1", "--dsn", dsn).returncode == 0
        )
        assert pgdoc_command("publish", "other", "1", "--dsn", dsn).returncode == 0
        assert pgdoc_command("publish", "order.made", "[1]", "--dsn", dsn).returncode == 0
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        interrupt(process)
    assert without_clock(lines[0]).startswith('message  order.shipped/o-1  {"total":1.5}  +')
    assert without_clock(lines[1]).startswith("message  order.made  [1]  +")


def test_publish_refuses_what_is_no_topic_no_key_and_no_json(dsn):
    for arguments, code, text in (
        (["no topic", "1"], 1, "is not a valid topic"),
        (["a", "{"], 2, "Invalid value for 'JSON': '{' is not valid JSON: Expecting property name"),
        (["a", "hello"], 2, "Invalid value for 'JSON': 'hello' is not valid JSON: Expecting value"),
        (["a", "1", "--key", ""], 2, "--key"),
    ):
        ended = pgdoc_command("publish", *arguments, "--dsn", dsn)
        assert (ended.returncode, ended.stdout) == (code, "")
        assert text in ended.stderr


def test_a_consumer_of_topics_is_created_on_the_command_line(dsn):
    created = pgdoc_command("consumers", "create", "outbox", "--topic", "order.*", "--dsn", dsn)
    assert created.stdout == "Created consumer outbox.\n"
    with pgdoc.Store(dsn) as store:
        store.publish("order.shipped", 1)
        with store.watch(topics=["order.*"], consumer="outbox") as stream:
            event = stream.next(timeout=30)
            assert event is not None
            assert event.payload == 1
        store.drop_consumer("outbox")
