"""The metrics of a process: without a server, and without the libraries that present them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import urllib.request
from urllib.error import URLError

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from pgdoc import telemetry
from pgdoc.changes.router import Selection
from pgdoc.runtime.census import CENSUS
from pgdoc.streams.figures import _name_of
from pgdoc.telemetry.process import PROCESS_METRICS, Gathering, values_now


@pytest.mark.parametrize(
    ("selection", "name"),
    [
        (Selection(None), "*"),
        (Selection(None, with_tables=True), "*.*"),
        (Selection(frozenset({"orders"})), "orders"),
        (Selection(frozenset({"b", "a", "public.c"})), "a,b,public.c"),
        (Selection(frozenset("abcdef")), "a,b,c,+3"),
        (Selection(frozenset(), topics=frozenset({"topic:order.*"})), "topic:order.*"),
        (Selection(None, topics=frozenset({"topic:a"})), "*,topic:a"),
        (Selection(frozenset({"orders"}), topics=frozenset({"topic:a", "topic:b"})), "orders,topic:a,topic:b"),
    ],
)
def test_a_stream_is_named_after_what_it_is_on(selection, name):
    assert _name_of(selection) == name


def test_the_name_of_a_stream_has_a_limit():
    assert len(_name_of(Selection(frozenset({f"{n}.{'x' * 200}" for n in range(5)})))) < 130


class Hostile:
    """An entry whose labels a user has chosen."""

    LABELS = ("app", "docs", 'or"ders\n\\', "\N{SNOWMAN}")

    def counts(self):
        yield ("pgdoc_events_delivered_total", self.LABELS), 3

    def goes_on_in_child(self):
        return False

    def gauges(self):
        yield ("pgdoc_stream_lag_bytes", self.LABELS), 7
        yield ("pgdoc_stream_lag_bytes", self.LABELS), 5
        yield ("pgdoc_stream_buffered_events", self.LABELS), 2
        yield ("pgdoc_stream_buffered_events", self.LABELS), 2


@pytest.fixture
def hostile():
    owner = Hostile()
    CENSUS.enter(owner, Hostile())
    return owner


def test_streams_with_the_same_labels_are_one_series(hostile):
    found = {metric.name: values.get(Hostile.LABELS) for metric, values in values_now()}
    assert found["pgdoc_stream_lag_bytes"] == 7
    assert found["pgdoc_stream_buffered_events"] == 4
    assert set(found) == {metric.name for metric in PROCESS_METRICS}


def test_a_name_that_a_user_has_chosen_cannot_forge_a_line(hostile):
    registry = CollectorRegistry()
    registry.register(telemetry.ProcessCollector())
    text = generate_latest(registry).decode()
    (line,) = [each for each in text.splitlines() if each.startswith("pgdoc_stream_lag_bytes{") and "or" in each]
    assert 'stream="or\\"ders\\n\\\\"' in line
    assert all(each.startswith(("#", "pgdoc_")) for each in text.splitlines())


def test_serving_ends_with_close_and_a_child_process_does_not_keep_the_port():
    endpoint = telemetry.serve(0)
    child = os.fork()
    if child == 0:
        endpoint.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with urllib.request.urlopen(endpoint.url, timeout=30) as answer:  # noqa: S310 (it is ours)
        assert b"# TYPE pgdoc_stream_lag_seconds gauge" in answer.read()
    endpoint.close()
    endpoint.close()
    with pytest.raises(URLError):
        urllib.request.urlopen(endpoint.url, timeout=30)  # noqa: S310 (it is ours)
    with telemetry.serve(endpoint.port) as again:
        assert again.port == endpoint.port


def test_a_port_in_use_is_an_error_that_names_it_and_leaves_no_thread():
    with telemetry.serve(0) as endpoint:
        says = f"can't listen on 127.0.0.1, port {endpoint.port}: Address already in use; choose another"
        with pytest.raises(OSError, match=says) as found:
            telemetry.serve(endpoint.port)
    assert found.value.errno == errno.EADDRINUSE


WITHOUT = """
import sys
for name in ("opentelemetry", "prometheus_client"):
    sys.modules[name] = None
import pgdoc.telemetry as telemetry
calls = (lambda: telemetry.serve(0), telemetry.ProcessCollector, telemetry.instrument, lambda: telemetry.links([0]))
for call in calls:
    try:
        call()
    except ImportError as exc:
        print(type(exc).__name__, exc)
"""


def test_without_the_extra_each_call_says_what_to_install():
    found = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True).stdout
    lines = found.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.startswith("MissingExtra this part of pgdoc.telemetry needs the package ")
        assert line.endswith("run pip install 'pgdoc[telemetry]'")


def test_importing_the_module_loads_neither_library():
    code = "import sys, pgdoc.telemetry; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"opentelemetry", "prometheus_client", "http.server"}.isdisjoint(loaded)


def test_a_reader_that_asks_for_each_metric_gathers_them_once(hostile, monkeypatch):
    asked = []

    def gauges(entry):
        asked.append(entry)
        return ()

    monkeypatch.setattr(Hostile, "gauges", gauges)
    gathering = Gathering()
    for times in (1, 2):
        for metric in PROCESS_METRICS:
            gathering.values_of(metric)
        assert len(asked) == times
