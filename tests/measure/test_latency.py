"""Latency on a clock of our own: the figures are known, whatever the machine does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from edgewise.measure import latency


class Work:
    """Calls that take given times on a clock that stands still otherwise."""

    def __init__(self, milliseconds: Iterator[float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.milliseconds, self.now_ns, self.calls = milliseconds, 0, 0
        monkeypatch.setattr(latency, "perf_counter_ns", lambda: self.now_ns)

    def __call__(self) -> None:
        self.calls += 1
        self.now_ns += round(next(self.milliseconds) * 1e6)


def test_figures_of_a_known_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """101 calls of 1, 2 ... 101 ms: half is at most 51, 90 % at most 91, 99 % at most 100."""
    warm_up = [5.0] * 10
    work = Work(itertools.chain(warm_up, range(1, 102)), monkeypatch)
    result = latency.benchmark(work, seconds=sum(range(1, 102)) / 1e3)
    assert (result.median_ms, result.p90_ms, result.p99_ms) == (51.0, 91.0, 100.0)
    assert (result.runs, result.warmup, work.calls) == (101, 10, 111)


def test_slow_first_calls_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settled once two windows of five agree: calls 3-7 (20 ms at most twice) and 8-12."""
    work = Work(itertools.chain([300.0, 200.0, 100.0, 20.0], itertools.repeat(10.0)), monkeypatch)
    result = latency.benchmark(work, seconds=2)
    assert (result.median_ms, result.p99_ms) == (10.0, 10.0)
    assert (result.warmup, result.runs) == (12, 200)


def test_warm_up_of_a_time_that_never_settles_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(itertools.accumulate(itertools.repeat(1.0), lambda t, _: t * 1.5), monkeypatch)
    result = latency.benchmark(work, seconds=0.1)
    assert result.runs == latency.MIN_RUNS
    assert sum(1.5**i for i in range(result.warmup - 1)) < 50


def test_slow_work_is_still_timed_ten_times(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(itertools.repeat(60_000.0), monkeypatch)
    result = latency.benchmark(work, seconds=1)
    assert (result.warmup, result.runs, result.median_ms) == (1, 10, 60_000.0)


def test_a_failure_of_the_work_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        latency.benchmark(lambda: 1 / 0)


def test_machine_is_described() -> None:
    facts = latency.machine()
    assert facts.keys() == {"cpu", "cores", "platform"}
    assert facts["cpu"] and facts["platform"] and int(facts["cores"]) >= 1
