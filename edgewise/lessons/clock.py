"""Where a lesson's times come from: measured now, or read from an earlier measurement.

A lesson asks its clock for each time by name. So the pages in `docs/` can be made again from the
times that were recorded with them, and tests never wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from time import perf_counter, process_time
from typing import Any, Protocol

from edgewise.measure.latency import Latency, benchmark, machine
from edgewise.progress import Bar

Run = Callable[[], object]


class Clock(Protocol):
    """Gives the time of what `prepare` prepares. `prepare` is only called if that is measured.

    `share` is how much of a core it had: below 1 other work took the rest, and slowed down long
    calls more than those that fit between two turns of the others.
    """

    machine: dict[str, str | int]

    @property
    def share(self) -> float:
        """In [0, 1]."""

    def time(self, what: str, prepare: Callable[[], Run]) -> Latency:
        """The time of one call of what `prepare` returns; `what` names it within the lesson."""


@dataclass
class Plan:
    """Measures nothing: what is in `names` afterwards is what a lesson is going to ask for."""

    names: dict[str, None] = field(default_factory=dict)
    machine: dict[str, str | int] = field(default_factory=machine)
    share: float = 1.0

    def time(self, what: str, prepare: Callable[[], Run]) -> Latency:
        """One millisecond."""
        self.names[what] = None
        return Latency(1.0, 1.0, 1.0, 1, 0)


@dataclass
class Stopwatch:
    """Measures on one thread, each name once, for `seconds`; `bar` moves on with each."""

    bar: Bar
    seconds: float = 0.4
    times: dict[str, Latency] = field(default_factory=dict)
    machine: dict[str, str | int] = field(default_factory=machine)
    _worked: float = 0.0  # seconds of a core
    _passed: float = 0.0  # seconds on the wall

    @property
    def share(self) -> float:
        """Of all timings so far."""
        return min(1.0, self._worked / self._passed) if self._passed else 1.0

    def time(self, what: str, prepare: Callable[[], Run]) -> Latency:
        """Prepares and times it, unless it has already."""
        import torch

        if what not in self.times:
            self.bar.advance(note=what)
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                with torch.inference_mode(), torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    run = prepare()
                    worked, passed = process_time(), perf_counter()
                    self.times[what] = benchmark(run, self.seconds)
                    self._worked += process_time() - worked
                    self._passed += perf_counter() - passed
            finally:
                torch.set_num_threads(threads)
        return self.times[what]

    def record(self) -> dict[str, Any]:
        """What `Recorded` reads."""
        return {
            "machine": self.machine,
            "share": self.share,
            "times": {what: asdict(time) for what, time in self.times.items()},
        }


class Recorded:
    """Tells times that a `Stopwatch` has taken before."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.machine: dict[str, str | int] = record["machine"]
        self.share: float = record["share"]
        self._times = {what: Latency(**time) for what, time in record["times"].items()}

    def time(self, what: str, prepare: Callable[[], Run]) -> Latency:
        """The recorded one."""
        return self._times[what]
