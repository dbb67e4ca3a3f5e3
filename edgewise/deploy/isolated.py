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


def isolated(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` returns, called in a fresh process; both must be picklable.

    Raises:
        EdgewiseError: the process crashed, or was killed for want of memory. What the function
            raises is raised here too.
    """
    fresh = multiprocessing.get_context("spawn")  # a fork would share locks and threads
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool:
            raise EdgewiseError("its process crashed, or was killed for want of memory") from None
