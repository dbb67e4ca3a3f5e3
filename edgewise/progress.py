"""Progress on long work: a bar on a terminal, plain lines in a log. Always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_DRAWINGS = 0.2


class Bar(Protocol):
    """What the body of `bar` moves on."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """`steps` more are done; `note` is shown behind the bar."""


class _Plain:
    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self.done, self.started, self.printed = 0, time.monotonic(), time.monotonic()

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += steps
        now = time.monotonic()
        if now - self.printed >= SECONDS_BETWEEN_LINES and self.done < self.total:
            self.printed = now
            left = (now - self.started) / self.done * (self.total - self.done)
            print(
                f"{self.what}: {self.done}/{self.total}, {left:.0f} s left {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )


@cache
def terminal() -> Console:
    """Standard error, on which bars and tables must take turns."""
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def bar(what: str, total: int) -> Iterator[Bar]:
    """A progress bar over `total` steps, gone when the block ends.

    On a terminal it shows count, speed and time left; elsewhere a line every ten seconds.
    """
    if not sys.stderr.isatty():
        yield _Plain(what, total)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=terminal(), transient=True) as progress:
        task = progress.add_task(what, total=total, note="")

        class _Rich:
            drawn = 0.0

            def advance(self, steps: int = 1, note: str = "") -> None:
                # Under a table rich does not draw a bar anew by itself.
                now = time.monotonic()
                due = now - self.drawn >= SECONDS_BETWEEN_DRAWINGS
                self.drawn = now if due else self.drawn
                progress.update(task, advance=steps, note=note, refresh=due)

        yield _Rich()


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yields `items`, one step of a `bar` each."""
    with bar(what, total) as steps:
        for item in items:
            yield item
            steps.advance()
