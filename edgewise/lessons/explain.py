"""`edgewise.explain`: a lesson by its name, or a network by its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgewise.errors import UsageError, unknown
from edgewise.families import VARIANTS
from edgewise.lessons.clock import Clock, Plan, Stopwatch
from edgewise.lessons.lesson import Lesson
from edgewise.lessons.network import network_lesson
from edgewise.lessons.table import LESSONS
from edgewise.progress import bar
from edgewise.weights.pretrained import ALIASES

# What the settings are called on the command line.
OPTIONS = {
    "in_chans": "--in",
    "out": "--out",
    "kernel": "--kernel",
    "size": "--size",
    "stride": "--stride",
    "dilation": "--dilation",
    "expand": "--expand",
    "heads": "--heads",
    "dim": "--dim",
    "model": "--model",
}


def explain(subject: str, **settings: int | str) -> Lesson:
    """A lesson with its numbers, its times measured here and now on one thread.

    Args:
        subject: a lesson (`edgewise.lessons.table.LESSONS`), a network's name, ours or timm's, or
            a run or model folder.
        settings: some of the lesson's: `in_chans`, `out`, `kernel`, `size` (the side of the map or
            image in pixels), `stride`, `dilation`, `expand`, `heads`, `dim`, `model`. A network
            has only `size`.

    Raises:
        UsageError: an unknown subject, or a setting that it doesn't have or that is out of range.
    """
    plan = Plan()
    tell(subject, plan, **settings)  # refuses a wrong call before any time is spent
    with bar("Timing", len(plan.names)) as steps:
        return tell(subject, Stopwatch(steps), **settings)


def tell(subject: str, clock: Clock, **settings: int | str) -> Lesson:
    """`explain` with the times of a given clock.

    Raises:
        UsageError: an unknown subject, or a setting that it doesn't have or that is out of range.
    """
    function = _function(subject)
    known = defaults(function)
    for name, value in settings.items():
        _check(subject, name, value, known)
    lesson = function(clock, **settings)
    asked = {**known, **settings, **lesson.settings}
    return replace(lesson, settings=asked, machine=clock.machine, share=clock.share)


def defaults(function: Callable[..., Lesson]) -> dict[str, int | str]:
    """The settings of a lesson's function with their defaults."""
    parameters = inspect.signature(function).parameters
    return {name: p.default for name, p in parameters.items() if name in OPTIONS}


def _function(subject: str) -> Callable[..., Lesson]:
    if subject in LESSONS:
        return LESSONS[subject]
    network = subject.partition(".")[0]  # timm's tag follows a dot
    if network in VARIANTS or network in ALIASES or Path(subject).is_dir():
        return partial(network_lesson, subject=subject)
    raise unknown("lesson or model", subject, [*LESSONS, *VARIANTS])


def _check(subject: str, name: str, value: int | str, known: dict[str, int | str]) -> None:
    if name not in known:
        have = ", ".join(OPTIONS[other] for other in known)
        raise UsageError(f"{subject} has no {OPTIONS.get(name, name)}. It has: {have}.")
    if isinstance(value, int) and value < 1:
        raise UsageError(f"{OPTIONS[name]} must be at least 1, not {value}")
    if name == "kernel" and int(value) % 2 == 0:
        raise UsageError(f"--kernel must be odd, not {value}: an even one has no middle")
