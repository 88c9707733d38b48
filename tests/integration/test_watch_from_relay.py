"""`pgdoc watch --from-relay`: prints the events of a log, without a server of PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from tests.commands import pgdoc_command
from tests.integration._async.relays import fresh_stream
from tests.integration.test_cli import interrupt, watching
from tests.made_logs import fill, token_of

if TYPE_CHECKING:
    import subprocess

    from tests.engines import NatsServer


def ids_of(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [orjson.loads(process.stdout.readline())["document_id"] for _ in range(count)]


def test_watch_prints_the_events_of_a_log_that_match_after_a_token(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    fill(url, range(10))
    where = '{"full_document.data.n": {"$gte": 7}}'
    with watching("", "orders", "--from-relay", url, "--json", "--from", token_of(2), "--where", where) as process:
        assert ids_of(process, 3) == ["o-7", "o-8", "o-9"]
        fill(url, range(10, 11))
        assert ids_of(process, 1) == ["o-10"]
        interrupt(process)


def test_watch_of_a_group_goes_on_after_what_it_has_printed(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    fill(url, range(10))
    group = ("--from-relay", url, "--json", "--group", "billing")
    with watching("", *group, "--from", "beginning") as process:
        printed = ids_of(process, 10)
        assert sorted(printed) == [f"o-{n}" for n in range(10)]
        interrupt(process)
    fill(url, range(10, 13))
    awaited = {"o-10", "o-11", "o-12"}
    with watching("", *group) as process:
        again: list[str] = []
        while not awaited.issubset(again):
            again += ids_of(process, 1)
        interrupt(process)
    # The command acknowledges the last one when it asks for the next, which the interrupt may have come before.
    assert sorted(again) in (sorted(awaited), sorted([*awaited, printed[-1]]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from-relay", "nats://127.0.0.1:1/X?timeout=1s"], "nats://127.0.0.1:1/X"),
        (["--from-relay", "nats://127.0.0.1:1/X", "--consumer", "billing"], "a log has no such option"),
        (["--from-relay", "nats://127.0.0.1:1/X", "--where", '{"nothing": 1}'], "no event has 'nothing'"),
        (["--group", "billing"], "give --from-relay too"),
    ],
)
def test_watch_of_a_log_says_what_is_wrong(arguments: list[str], message: str) -> None:
    ended = pgdoc_command("watch", *arguments)
    assert ended.returncode != 0
    assert message in ended.stderr
