"""How long one call takes, as a distribution, and on what machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter_ns

import numpy as np

MIN_RUNS = 10
MAX_RUNS = 10_000
WINDOW = 5  # warm-up has settled once the medians of two windows in a row agree ...
SETTLED = 0.05  # ... to within this part


@dataclass(frozen=True)
class Latency:
    """The distribution of the time of one call.

    Attributes:
        median_ms: half of the calls took at most this long, in milliseconds.
        p90_ms: 90 % of the calls took at most this long.
        p99_ms: 99 % of the calls took at most this long; with fewer than 100 runs, in effect the
            slowest call.
        runs: how many calls were timed.
        warmup: how many calls came before, untimed.
    """

    median_ms: float
    p90_ms: float
    p99_ms: float
    runs: int
    warmup: int


def benchmark(run_once: Callable[[], object], seconds: float = 2.0) -> Latency:
    """Times `run_once`, one call after the other, each on its own.

    First come warm-up calls, until the medians of two successive groups of 5 agree to within 5 %
    or half of `seconds` is over. Then calls are timed for `seconds`, at least 10 and at most
    10,000 of them. The clock is the monotonic `perf_counter_ns`; percentiles interpolate linearly
    (NumPy's default). Nothing is thrown away as an outlier: a slow call is a call that a user
    waits for.

    The number of threads is the business of whoever made `run_once`. A call that only queues work
    (a GPU) must wait for it to end.
    """
    warmup = warm_up(run_once, seconds / 2)
    times: list[float] = []
    end = perf_counter_ns() + seconds * 1e9
    while len(times) < MIN_RUNS or (perf_counter_ns() < end and len(times) < MAX_RUNS):
        times.append(time_ms(run_once))
    middle, p90, p99 = np.percentile(times, (50, 90, 99))
    return Latency(float(middle), float(p90), float(p99), len(times), warmup)


def machine() -> dict[str, str | int]:
    """What a latency depends on: the processor's name, the usable cores, the operating system."""
    return {"cpu": _cpu_name(), "cores": _usable_cores(), "platform": platform.platform()}


def warm_up(run_once: Callable[[], object], seconds: float) -> int:
    """Calls `run_once` until its time has settled; returns the number of calls."""
    times: list[float] = []
    end = perf_counter_ns() + seconds * 1e9
    while not times or perf_counter_ns() < end:
        times.append(time_ms(run_once))
        before, now = times[-2 * WINDOW : -WINDOW], times[-WINDOW:]
        if len(before) == WINDOW and abs(median(now) / median(before) - 1) <= SETTLED:
            break
    return len(times)


def time_ms(run_once: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    start = perf_counter_ns()
    run_once()
    return (perf_counter_ns() - start) / 1e6


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # Linux; platform.processor() is empty or "x86_64" there
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    board = Path("/proc/device-tree/model")  # on ARM, where the processor has no name
    if board.is_file():
        return board.read_text(errors="replace").strip("\0 \n")
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # a container may have fewer than the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
