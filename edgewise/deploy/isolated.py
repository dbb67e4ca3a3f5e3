"""Work in a process of its own: what a native library breaks there, it breaks only there."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from multiprocessing import spawn
from typing import Any, ParamSpec, TypeVar

from edgewise.errors import EdgewiseError, shortened

PRELOADED = ["torch", "onnxscript", "edgewise.deploy.export", "edgewise.deploy.verify"]  # if there

P = ParamSpec("P")
T = TypeVar("T")
_STARTING = threading.Lock()


class NotStartedError(EdgewiseError):
    """There is no process to work in: this says nothing of the work."""


class Apart:
    """A process for calls one after the other; it is started by the first, and anew after a crash.

    To be used in a `with` statement, which ends it.
    """

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._pool:
            self._pool.shutdown()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `function` returns there; all must be picklable.

        Raises:
            NotStartedError: no process could be started.
            EdgewiseError: the process crashed, or was killed for want of memory. What the function
                raises is raised here too.
        """
        if not self._pool:
            self._pool = _started(of_main=getattr(function, "__module__", "") == "__main__")
        try:
            return self._pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool = None
            raise EdgewiseError("its process crashed, or was killed for want of memory") from None


def isolated(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` returns, called in a fresh process; see `Apart.call`."""
    with Apart() as apart:
        return apart.call(function, *args, **kwargs)


def _started(of_main: bool) -> ProcessPoolExecutor:
    """One process, which has our environment as it is now.

    A fork of this process would share its locks and threads. It is forked off a server that has
    done nothing but to import, which saves each process two seconds; or begins from nothing where
    there is no such server.

    Args:
        of_main: whether its work is a function of the program's main module.
    """
    able = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if able else "spawn")
    if able:
        context.set_forkserver_preload(PRELOADED)
    pool = ProcessPoolExecutor(1, mp_context=context)
    try:
        with nullcontext() if of_main else _without_main():
            settled = pool.submit(_settle, dict(os.environ))  # starts the process
        settled.result()
    except Exception as error:  # of the system, of the pool, or of a program's main module
        pool.shutdown()
        raise NotStartedError(
            f"can't start a process of its own for it ({shortened(error)})"
        ) from error
    return pool


@contextmanager
def _without_main() -> Iterator[None]:
    """Processes that this thread starts don't import the program's main module.

    They need nothing of it, and where it is a script without `if __name__ == "__main__"`, to import
    it is to do all its work again. `multiprocessing` has no setting for this.
    """
    ours = threading.get_ident()
    with _STARTING:
        prepare = spawn.get_preparation_data

        def prepare_without(name: str) -> dict[str, Any]:
            told = prepare(name)
            if threading.get_ident() == ours:
                for key in ("init_main_from_name", "init_main_from_path"):
                    told.pop(key, None)
            return told

        spawn.get_preparation_data = prepare_without
        try:
            yield
        finally:
            spawn.get_preparation_data = prepare


def _settle(environment: dict[str, str]) -> None:
    os.environ.clear()  # the server's, which may be older
    os.environ.update(environment)
