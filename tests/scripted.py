"""A clock of our own for lessons: every time is known, and nothing is run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from edgewise.lessons.clock import Run
from edgewise.lessons.explain import tell
from edgewise.lessons.lesson import Lesson
from edgewise.measure.latency import Latency


class Scripted:
    """One millisecond for all but those that are given by name; p90 is twice that."""

    def __init__(self, **milliseconds: float) -> None:
        self.machine = {"cpu": "a processor", "cores": 2, "platform": "a system"}
        self.share = 1.0
        self.milliseconds, self.asked = milliseconds, []

    def time(self, what: str, prepare: Callable[[], Run]) -> Latency:
        self.asked.append(what)
        median = self.milliseconds.get(what.replace(" ", "_"), 1.0)
        return Latency(median, 2 * median, 3 * median, 10, 5)


@cache
def told(subject: str) -> Lesson:
    """A lesson with its own settings and such times; told once for all tests."""
    return tell(subject, Scripted())
