"""Work in a process of its own: what a native library breaks there, it breaks only there."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from edgewise.errors import EdgewiseError

PRELOADED = ["torch", "onnxscript", "edgewise.deploy.export", "edgewise.deploy.verify"]  # if there

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
    """One process, which has our environment as it is now.

    A fork of this process would share its locks and threads. It is forked off a server that has
    done nothing but to import, which saves each process two seconds; or begins from nothing where
    there is no such server.
    """
    able = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if able else "spawn")
    if able:
        context.set_forkserver_preload(PRELOADED)
    return ProcessPoolExecutor(
        1, mp_context=context, initializer=_settle, initargs=(dict(os.environ),)
    )


def _settle(environment: dict[str, str]) -> None:
    os.environ.clear()  # the server's, which may be older
    os.environ.update(environment)
