"""One candidate in a process of its own.

A native runtime may crash, keeps its own threads, and leaves memory behind: none of that may reach
the others. The process waits on a pipe while it is not its turn, so that it takes no core.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from edgewise.errors import EdgewiseError, shortened
from edgewise.measure.rounds import Here
from edgewise.measure.store import OURS

if TYPE_CHECKING:
    from torch import nn

    from edgewise.timing.answers import Likeness
    from edgewise.timing.runtimes import Prepared, Runtime
    from edgewise.timing.subject import Subject

LONGEST = 900.0  # seconds: what takes longer to prepare or to answer hangs
GRACE = 5.0  # seconds to end by itself
LONGEST_REASON = 300  # characters of a foreign error


@dataclass(frozen=True)
class Job:
    """What a worker is to run.

    Attributes:
        model: the name that the network was made by.
        library: whose network: "edgewise" or a peer's name.
        runtime: what runs it.
        precision: of the weights and the sums.
        threads: that it may use; the process is bound to as many cores.
        subject: the folder with the network and its inputs; files made of it go there too.
        log: the file for what its libraries print.
    """

    model: str
    library: str
    runtime: Runtime
    precision: str
    threads: int
    subject: Path
    log: Path


@dataclass(frozen=True)
class Ready:
    """A prepared candidate.

    Attributes:
        first_ms: the first inference; what came before it (export, compilation) is not in it.
        weight_bytes: of the weights, as the runtime has them.
        likeness: of its answers to PyTorch's; None if they can't be compared.
    """

    first_ms: float
    weight_bytes: int
    likeness: Likeness | None


class Worker:
    """The handle of a candidate's process, prepared and answering when the constructor returns.

    Raises:
        EdgewiseError: it can't be prepared, or it crashed; the message says why.
    """

    def __init__(self, job: Job) -> None:
        self.log = job.log
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, job), daemon=True)
        with _no_interrupt():  # one that came while it starts would end it with a traceback
            self.process.start()
        theirs.close()  # so that the pipe ends with the process
        try:
            self.ready: Ready = self._answer()
        except BaseException:
            self.close()
            raise

    def warm_up(self, seconds: float) -> tuple[int, float]:
        """See `rounds.Timed`."""
        calls, median_ms = self._ask("warm_up", seconds)
        return calls, median_ms

    def time(self, calls: int) -> list[float]:
        """See `rounds.Timed`."""
        return list(self._ask("time", calls))

    def peak_bytes(self) -> int | None:
        """Most memory that its process had since it was prepared; None if it can't be known here.

        Python and whatever was imported to prepare the network are in it.
        """
        peak: int | None = self._ask("peak_bytes")
        return peak

    def close(self) -> None:
        """Ends the process, kindly if it listens."""
        self.pipe.close()
        self.process.join(GRACE)
        self.process.kill()
        self.process.join()

    def _ask(self, what: str, *arguments: object) -> Any:
        try:
            self.pipe.send((what, *arguments))
        except OSError:
            raise self._crashed() from None
        return self._answer()

    def _answer(self) -> Any:
        try:
            if not self.pipe.poll(LONGEST):
                raise EdgewiseError(f"gave no answer in {LONGEST:.0f} s")
            answer = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise self._crashed() from None
        if isinstance(answer, EdgewiseError):
            raise answer
        return answer

    def _crashed(self) -> EdgewiseError:
        self.process.join(10)
        code = self.process.exitcode or 0
        reason = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        text = self.log.read_text(errors="replace").split("\n") if self.log.is_file() else []
        last = next((line.strip() for line in reversed(text) if line.strip()), "")
        return EdgewiseError(f"crashed ({reason}) {last}".strip()[:LONGEST_REASON])


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl-C waits until the block is left, and never comes to a process that is started in it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # which the first start would do, and let interrupts in
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, job: Job) -> None:
    """What the process does: prepares, says how that went, then answers requests until killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    with job.log.open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    # Read by the libraries when they are loaded, so nothing of theirs is imported before.
    os.environ["OMP_NUM_THREADS"] = str(job.threads)
    try:
        candidate = _Candidate(job)
        pipe.send(candidate.ready)
        while True:
            what, *arguments = pipe.recv()
            pipe.send(getattr(candidate, what)(*arguments))
    except EOFError:
        return  # the parent is gone
    except EdgewiseError as error:
        pipe.send(EdgewiseError(str(error)))
    except Exception as error:  # whatever a runtime raises is that candidate's result
        pipe.send(EdgewiseError(shortened(error)))


def _bind(threads: int) -> None:
    """Binds all threads of this process to as many cores; Linux only.

    The last ones: interrupts are mostly served by the first. Not before the network is prepared,
    for a compiler may use every core.
    """
    if sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))[-threads:]
        for task in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)


def _prepared(job: Job, subject: Subject) -> Prepared:
    network: nn.Module = subject.network
    if job.library != OURS:
        from edgewise.timing.peers import twin

        network = twin(job.library, job.model, subject.network)
    return job.runtime.prepare(network, subject.shape, job.precision, job.threads, job.subject)


class _Candidate(Here):
    """The candidate inside of its process: what a request's name stands for."""

    def __init__(self, job: Job) -> None:
        from edgewise.timing.onnx_file import FileSubject
        from edgewise.timing.subject import open_subject

        subject = open_subject(job.subject)
        if isinstance(subject, FileSubject):
            self.prepared = job.runtime.prepare_file(subject.path, subject.shape, job.threads)
        else:
            self.prepared = _prepared(job, subject)
        super().__init__(self.prepared.call)
        _bind(job.threads)
        _forget_peak()
        self.ready = self._first_answers(subject.inputs, subject.right)

    def _first_answers(self, inputs: Any, right: Any) -> Ready:
        import numpy as np

        from edgewise.timing.answers import liken

        start = perf_counter()
        answers = [self.prepared.run(inputs[0])]
        first_ms = 1e3 * (perf_counter() - start)
        answers += [self.prepared.run(x) for x in inputs[1:]]
        likeness = liken(np.concatenate(answers), right)
        return Ready(first_ms, self.prepared.weight_bytes, likeness)

    def time(self, calls: int) -> list[float]:
        return [self.prepared.milliseconds() for _ in range(calls)]

    def peak_bytes(self) -> int | None:
        return _peak_bytes()


def _forget_peak() -> None:
    """Linux only: the most memory is counted from here on, without what preparing took."""
    if sys.platform == "linux":
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # not allowed in some containers: the peak is then the whole life's
            return


def _peak_bytes() -> int | None:
    if sys.platform != "linux":
        return None
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
