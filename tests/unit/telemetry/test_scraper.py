from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pgdoc.telemetry.scraper import Scraper
from pgdoc.telemetry.server_samples import ServerSample

if TYPE_CHECKING:
    from concurrent.futures import Future

UP, DOWN = [ServerSample("pgdoc_up", 1.0)], [ServerSample("pgdoc_up", 0.0)]


class Slow:
    """Answers when it may."""

    def __init__(self) -> None:
        self.scrapes = 0
        self.began = threading.Event()
        self.may_answer = threading.Event()
        self.is_closed = False

    def scrape(self) -> list[ServerSample]:
        self.scrapes += 1
        self.began.set()
        self.may_answer.wait(20)
        return UP

    def silence(self) -> list[ServerSample]:
        return DOWN

    def begin_to_close(self) -> None:
        self.may_answer.set()

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def slow() -> Slow:
    return Slow()


def test_those_who_ask_at_the_same_time_get_the_same_scrape(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Scraper(slow)) as scraper:
        running, waiting = scraper._running, threading.Semaphore(0)

        def note() -> Future[list[ServerSample]]:
            answer = running()
            waiting.release()
            return answer

        monkeypatch.setattr(scraper, "_running", note)
        found: list[list[ServerSample]] = []
        threads = [threading.Thread(target=lambda: found.append(scraper.samples())) for _ in range(20)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert waiting.acquire(timeout=60)
        slow.may_answer.set()
        for thread in threads:
            thread.join(60)
        assert (found, slow.scrapes) == ([UP] * 20, 1)
    assert slow.is_closed


def test_a_scrape_that_takes_too_long_is_a_dead_server_and_no_second_one_begins(slow: Slow) -> None:
    with closing(Scraper(slow, wait_s=0.01)) as scraper:
        assert [scraper.samples() for _ in range(5)] == [DOWN] * 5
        assert slow.scrapes == 1


def test_a_bug_in_a_scrape_is_logged_and_the_next_one_may_succeed(
    slow: Slow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slow.may_answer.set()
    with closing(Scraper(slow)) as scraper:
        with monkeypatch.context() as patch:
            patch.setattr(slow, "scrape", lambda: 1 / 0)
            assert scraper.samples() == DOWN
        while scraper.samples() != UP:
            pass
    assert [record.getMessage() for record in caplog.records] == ["a scrape failed"]


def test_a_process_with_too_many_threads_reports_a_dead_server(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with closing(Scraper(slow)) as scraper:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            assert scraper.samples() == DOWN
        slow.may_answer.set()
        assert scraper.samples() == UP
