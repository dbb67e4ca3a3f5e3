"""Ctrl-C and SIGTERM, turned into a flag that the work looks at where it can stop cleanly."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from edgewise.errors import EdgewiseError


class Stopped(EdgewiseError):
    """The work was stopped by a signal after all of it was saved; the message says how to go on."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + number  # the shells' convention: 130 and 143


@dataclass
class StopRequest:
    """The signal that asked to stop, or None so far."""

    number: int | None = None


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """A SIGTERM ends the work as a Ctrl-C does, by an exception: `SystemExit`, with status 143.

    Without it Python ends at once, and what is done on the way out is not. Outside of the main
    thread it does nothing.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Notes the first SIGINT or SIGTERM; a SIGINT after it raises KeyboardInterrupt at once.

    A SIGTERM after it does nothing: `timeout`, torchrun and Slurm may send two of them, one to the
    process and one to all of its group or job.

    Outside of the main thread, where Python allows no handlers, it does nothing.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        if request.number is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        request.number = number
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nstopping once what is at work is saved; another Ctrl-C stops at once\n")

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
