"""Timing several candidates in turns, and what a median of such times is worth.

A machine drifts: its clock, its heat, what else runs on it. A B A B ... spreads that over all
candidates alike, so that their ratio is worth more than either time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from edgewise.errors import EdgewiseError
from edgewise.measure.latency import WINDOW, Latency, time_ms, warm_up

if TYPE_CHECKING:
    from numpy.typing import NDArray

K = TypeVar("K")
ROUNDS = 20
FEWEST_ROUNDS = 5  # with fewer, an interval says nothing: what was stopped before is not kept
MOST_CALLS = 500  # in one turn
RESAMPLES = 2000
INTERVAL = (2.5, 97.5)  # percentiles: a 95 % interval
WIDE = 0.1  # of the median: an interval wider than this is a noisy machine's


class Timed(Protocol):
    """One candidate, ready to run, most likely in a process of its own."""

    def warm_up(self, seconds: float) -> tuple[int, float]:
        """Calls it until its time has settled: the number of calls, the last ones' median in ms."""

    def time(self, calls: int) -> list[float]:
        """The milliseconds of each of `calls` calls in a row."""


class Here:
    """A candidate in this process."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def warm_up(self, seconds: float) -> tuple[int, float]:
        """See `Timed`."""
        calls = warm_up(self.call, seconds)
        return calls, median(self.time(WINDOW))

    def time(self, calls: int) -> list[float]:
        """See `Timed`."""
        return [time_ms(self.call) for _ in range(calls)]


@dataclass(frozen=True)
class Timing:
    """What the turns of one candidate gave.

    Attributes:
        latency: of all its calls.
        low_ms: the lower end of the median's 95 % interval.
        high_ms: the upper end.
        rounds_ms: the median of each round. Two candidates of one run share their rounds.
    """

    latency: Latency
    low_ms: float
    high_ms: float
    rounds_ms: tuple[float, ...]


@dataclass(frozen=True)
class Ratio:
    """How many times as long one takes as another, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def tie(self) -> bool:
        """Whether neither is surely the faster one."""
        return self.low <= 1 <= self.high


def interleave(
    candidates: Mapping[K, Timed],
    seconds: float,
    rounds: int = ROUNDS,
    stopped: Callable[[], bool] = lambda: False,
    on_turn: Callable[[], None] = lambda: None,
) -> tuple[dict[K, Timing], dict[K, str]]:
    """Times all candidates in turns, for about `seconds` each.

    All are warmed up first. Each round then has one turn of every candidate, in an order that is
    drawn anew. The first call of a turn is not timed: another's data is in the caches then.
    Nothing else is thrown away. A candidate that fails is out; the others go on.

    Args:
        candidates: by any key.
        seconds: of timed calls of each candidate, in all rounds together.
        rounds: how many; with `stopped`, those that were begun by all are kept.
        stopped: asked before each turn whether to stop here.
        on_turn: called after each warm-up and each turn, for a progress bar.

    Returns:
        The timings, and the reasons of those that failed. Stopped before `FEWEST_ROUNDS` rounds,
        there are no timings.
    """
    failures: dict[K, str] = {}
    warmups: dict[K, int] = {}
    calls: dict[K, int] = {}
    for key, candidate in candidates.items():
        if stopped():
            return {}, failures
        try:
            warmups[key], median_ms = candidate.warm_up(seconds / 2)
        except EdgewiseError as error:
            failures[key] = str(error)
        else:
            calls[key] = int(np.clip(seconds / rounds * 1e3 / max(median_ms, 1e-6), 1, MOST_CALLS))
        on_turn()
    times: dict[K, list[list[float]]] = {key: [] for key in calls}
    order, shuffle = list(calls), np.random.default_rng(0)
    for _ in range(rounds):
        for key in (order[i] for i in shuffle.permutation(len(order))):
            if stopped():
                break
            if key not in failures:
                try:
                    times[key].append(candidates[key].time(calls[key] + 1)[1:])
                except EdgewiseError as error:
                    failures[key] = str(error)
            on_turn()
    whole = min((len(turns) for key, turns in times.items() if key not in failures), default=0)
    if whole < min(rounds, FEWEST_ROUNDS):
        return {}, failures
    return {
        key: summary(turns[:whole], warmups[key])
        for key, turns in times.items()
        if key not in failures
    }, failures


def summary(rounds: Sequence[Sequence[float]], warmup: int) -> Timing:
    """The distribution of the times in `rounds`, in milliseconds, each with as many calls.

    The interval is a percentile bootstrap (Efron 1979) over whole rounds, since the calls of one
    turn share their luck: to draw single calls would make it too narrow.
    """
    times = np.asarray(rounds)
    middle, p90, p99 = np.percentile(times, (50, 90, 99))
    resampled = np.array([np.median(times[drawn]) for drawn in _draws(len(times))])
    low, high = np.percentile(resampled, INTERVAL)
    return Timing(
        Latency(float(middle), float(p90), float(p99), times.size, warmup),
        float(low),
        float(high),
        tuple(float(median) for median in np.median(times, axis=1)),
    )


def ratio(slow: Sequence[float], fast: Sequence[float]) -> Ratio:
    """The ratio of two candidates' medians, from the medians of the rounds that they shared.

    The bootstrap draws rounds, so that both are always looked at in the same ones.
    """
    ones, others = np.asarray(slow), np.asarray(fast)
    draws = _draws(len(ones))
    resampled = np.median(ones[draws], axis=1) / np.median(others[draws], axis=1)
    low, high = np.percentile(resampled, INTERVAL)
    return Ratio(float(np.median(ones) / np.median(others)), float(low), float(high))


def _draws(rounds: int) -> NDArray[np.int64]:
    """(RESAMPLES, rounds): indices drawn with replacement, the same for the same number."""
    return np.random.default_rng(0).integers(rounds, size=(RESAMPLES, rounds))
