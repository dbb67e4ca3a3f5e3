"""Work in a process of its own: what a native library breaks there, it breaks only there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from edgewise.errors import EdgewiseError

P = ParamSpec("P")
T = TypeVar("T")


class Apart:
    """A process for calls one after the other; it is started by the first, and anew after a crash.

    To be used in a `with` statement, which ends it.
    """

    def __init__(self) -> None:
        self._pool = _fresh()

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *raised: object) -> None:
        self._pool.shutdown()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `function` returns there; all must be picklable.

        Raises:
            EdgewiseError: the process crashed, or was killed for want of memory. What the function
                raises is raised here too.
        """
        try:
            return self._pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool = _fresh()
            raise EdgewiseError("its process crashed, or was killed for want of memory") from None


def isolated(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` returns, called in a fresh process; see `Apart.call`."""
    with Apart() as apart:
        return apart.call(function, *args, **kwargs)


def _fresh() -> ProcessPoolExecutor:
    # A fork would share locks and threads.
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
