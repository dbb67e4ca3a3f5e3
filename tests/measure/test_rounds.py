"""Turns and intervals, on candidates whose times are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from edgewise.errors import EdgewiseError
from edgewise.measure import rounds
from edgewise.measure.rounds import interleave, ratio, summary


class Scripted:
    """A candidate whose n-th call takes the n-th of given times, and that notes its turns."""

    def __init__(self, name: str, times: list[float], turns: list[str], dies_in: int = 0) -> None:
        self.name, self.times, self.turns = name, itertools.cycle(times), turns
        self.left = dies_in

    def warm_up(self, seconds: float) -> tuple[int, float]:
        self.turns.append(f"warm {self.name}")
        return 7, 10.0

    def time(self, calls: int) -> list[float]:
        self.left -= 1
        if self.left == 0:
            raise EdgewiseError(f"{self.name} is dead")
        self.turns.append(self.name)
        return [next(self.times) for _ in range(calls)]


def test_every_round_has_one_turn_of_each_after_all_are_warm() -> None:
    turns: list[str] = []
    candidates = {name: Scripted(name, [10.0], turns) for name in "abc"}
    interleave(candidates, seconds=1, rounds=6)
    assert turns[:3] == ["warm a", "warm b", "warm c"]
    by_round = [turns[i : i + 3] for i in range(3, 21, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in by_round)
    assert len({tuple(one) for one in by_round}) > 1, "always in the same order"
    assert len(turns) == 21


def test_the_first_call_of_a_turn_is_not_timed() -> None:
    """10 rounds of 0.1 s at 10 ms are 10 calls and one before them, of 500 ms."""
    candidate = Scripted("a", [500.0, *[10.0] * 10], [])
    timings, failures = interleave({"a": candidate}, seconds=1, rounds=10)
    latency = timings["a"].latency
    assert not failures
    assert (latency.runs, latency.warmup) == (100, 7)
    assert (latency.median_ms, latency.p99_ms) == (10.0, 10.0)
    assert timings["a"].rounds_ms == (10.0,) * 10


def test_drift_leaves_the_ratio_alone() -> None:
    """The machine slows down by a factor of 3 on the way: times differ, the ratio doesn't."""
    slower = list(np.repeat(np.linspace(1, 3, 20), 11))
    one = Scripted("a", [20 * drift for drift in slower], [])
    other = Scripted("b", [10 * drift for drift in slower], [])
    timings, _ = interleave({"a": one, "b": other}, seconds=2, rounds=20)
    assert timings["a"].high_ms > 1.2 * timings["a"].low_ms
    times = ratio(timings["a"].rounds_ms, timings["b"].rounds_ms)
    assert (times.value, times.low, times.high) == pytest.approx((2, 2, 2))
    assert not times.tie


def test_a_candidate_that_fails_is_out_and_the_others_go_on() -> None:
    candidates = {
        "a": Scripted("a", [10.0], []),
        "dies": Scripted("dies", [10.0], [], dies_in=3),
    }
    timings, failures = interleave(candidates, seconds=1, rounds=10)
    assert failures == {"dies": "dies is dead"}
    assert list(timings) == ["a"]
    assert len(timings["a"].rounds_ms) == 10


@pytest.mark.parametrize(("turns", "kept"), [(13, 6), (11, 5), (9, 0)])
def test_whole_rounds_are_kept_when_it_is_stopped(turns: int, kept: int) -> None:
    """After 2 warm-ups and `turns` turns of 2 candidates; fewer than 5 rounds are nothing."""
    seen: list[str] = []
    candidates = {name: Scripted(name, [10.0], seen) for name in "ab"}
    timings, _ = interleave(
        candidates, seconds=1, rounds=20, stopped=lambda: len(seen) >= 2 + turns
    )
    assert [len(timing.rounds_ms) for timing in timings.values()] == ([kept] * 2 if kept else [])


def test_percentiles_are_of_single_calls() -> None:
    timing = summary([[1.0, 2, 3, 4, 5], [6, 7, 8, 9, 10]], warmup=3)
    latency = timing.latency
    assert (latency.median_ms, latency.p90_ms) == (5.5, pytest.approx(9.1))
    assert timing.rounds_ms == (3.0, 8.0)


def test_interval_of_independent_calls_is_scipys() -> None:
    """With one call in a round, drawing rounds is drawing calls."""
    times = np.random.default_rng(5).lognormal(2, 0.3, 60)
    theirs = stats.bootstrap(
        (times,), np.median, n_resamples=9999, method="percentile", random_state=1
    ).confidence_interval
    ours = summary(times.reshape(-1, 1).tolist(), warmup=0)
    assert (ours.low_ms, ours.high_ms) == pytest.approx((theirs.low, theirs.high), rel=0.02)


def test_interval_of_a_ratio_is_scipys_paired_one() -> None:
    random = np.random.default_rng(3)
    luck = random.lognormal(0, 0.3, 30)
    slow, fast = 2 * luck * random.lognormal(0, 0.1, 30), luck * random.lognormal(0, 0.1, 30)

    def statistic(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.median(a, axis=axis) / np.median(b, axis=axis)

    theirs = stats.bootstrap(
        (slow, fast), statistic, paired=True, n_resamples=9999, method="percentile", random_state=1
    ).confidence_interval
    ours = ratio(slow, fast)
    assert ours.value == np.median(slow) / np.median(fast)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.03)


def test_the_interval_holds_the_truth_19_times_in_20() -> None:
    """Rounds with luck of their own, which the interval of single calls would miss most times."""
    random, held = np.random.default_rng(0), 0
    for _ in range(200):
        times = 10 * random.lognormal(0, 0.1, (20, 1)) * random.lognormal(0, 0.03, (20, 30))
        timing = summary(times.tolist(), warmup=0)
        held += timing.low_ms <= 10 <= timing.high_ms
    assert 0.9 <= held / 200 <= 0.99


def test_equal_candidates_are_a_tie() -> None:
    random = np.random.default_rng(0)
    assert ratio(random.lognormal(0, 0.1, 20), random.lognormal(0, 0.1, 20)).tie


def test_a_fast_call_is_timed_a_limited_number_of_times() -> None:
    class Instant(Scripted):
        def warm_up(self, seconds: float) -> tuple[int, float]:
            return 5, 0.0

    timings, _ = interleave({"a": Instant("a", [0.0], [])}, seconds=60, rounds=5)
    assert timings["a"].latency.runs == 5 * rounds.MOST_CALLS
