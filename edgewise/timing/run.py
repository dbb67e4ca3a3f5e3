"""The loop of `edgewise bench`: prepare the candidates of a group, check them, time in turns."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgewise.errors import EdgewiseError
from edgewise.measure.rounds import ROUNDS, Timing, interleave
from edgewise.measure.store import FAILED, WRONG, Row, new_row, now
from edgewise.timing.answers import fault
from edgewise.timing.onnx_file import FileSubject, NoAnswer
from edgewise.timing.plan import Candidate, Group
from edgewise.timing.subject import graph_now, make_subject
from edgewise.timing.worker import Job, Worker

if TYPE_CHECKING:
    from edgewise.timing.runtimes import Runtime

SECONDS = 2.0  # of timed calls of each candidate
PREPARING = 50  # steps of the progress bar, of which a turn is one
BUSY = 0.3  # of the cores: a load average over this, before we begin, is somebody else's work


@dataclass(frozen=True)
class Watch:
    """What the loop asks and tells while it works.

    Attributes:
        stopped: asked often: whether to keep what is measured and end.
        on_step: called with a few words, and the steps of `steps` that it is, when a candidate is
            to be prepared, is warmed up or had its turn.
    """

    stopped: Callable[[], bool] = lambda: False
    on_step: Callable[[str, int], None] = lambda what, steps: None


def bench(
    groups: Sequence[Group],
    known: Mapping[str, Runtime],
    seconds: float = SECONDS,
    watch: Watch | None = None,
) -> Iterator[list[Row]]:
    """Measures each group and yields its rows, in the order of its candidates.

    A candidate runs in a process of its own, which is bound to as many cores as it has threads, and
    all processes of a group live at once. A candidate that can't be prepared, crashes or answers
    wrongly gives a row that says so, and the others go on; of a file whose right answers nobody can
    say, all candidates give such a row. A wrong one is not timed. When it is stopped, the rows of
    the group at work are those of which enough is known.

    Args:
        groups: of `plan.make_plan`.
        known: the runtimes by name.
        seconds: of timed calls of each candidate.
        watch: how to stop, and who is told.
    """
    watch = watch or Watch()
    session = now()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    for group in groups:
        if watch.stopped():
            return
        tried = _try(group, known, seconds, watch)
        shape = group.imgsz, group.batch, group.threads
        blank = new_row(session, load, group.model, tried.graph, *shape)
        rows = (_row(blank, candidate, tried, known) for candidate in group.candidates)
        yield [row for row in rows if row]


def steps(groups: Sequence[Group]) -> int:
    """The steps that `bench` tells `on_step` of if nothing fails."""
    return sum(len(group.candidates) for group in groups) * (PREPARING + 1 + ROUNDS)


@dataclass
class _Tried:
    """What is known of the candidates of a group.

    Attributes:
        graph: see `Row`.
        file_bytes: of an ONNX file with all its weights, which no runtime can tell.
    """

    graph: str
    file_bytes: int | None
    workers: dict[Candidate, Worker] = field(default_factory=dict)
    timings: dict[Candidate, Timing] = field(default_factory=dict)
    peaks: dict[Candidate, int | None] = field(default_factory=dict)
    failures: dict[Candidate, str] = field(default_factory=dict)


def _try(group: Group, known: Mapping[str, Runtime], seconds: float, watch: Watch) -> _Tried:
    try:
        subject = make_subject(group.model, group.imgsz, group.batch)
    except NoAnswer as error:
        graph = graph_now(group.model, group.imgsz, group.batch)
        return _Tried(graph, None, failures=dict.fromkeys(group.candidates, str(error)))
    size = subject.bytes if isinstance(subject, FileSubject) else None
    tried = _Tried(subject.graph, size)
    folder = Path(tempfile.mkdtemp(prefix="edgewise-bench-"))
    with ExitStack() as resources:
        resources.callback(shutil.rmtree, folder, ignore_errors=True)
        subject.save(folder)
        # One after the other: a compiler needs the cores for itself.
        for candidate in group.candidates:
            if watch.stopped():
                return tried
            watch.on_step(f"preparing {candidate}", PREPARING)
            try:
                worker = Worker(_job(group, candidate, known, folder))
            except EdgewiseError as error:
                tried.failures[candidate] = str(error)
            else:
                tried.workers[candidate] = resources.enter_context(closing(worker))
        _time(tried, seconds, watch)
    return tried


def _job(group: Group, candidate: Candidate, known: Mapping[str, Runtime], folder: Path) -> Job:
    return Job(
        model=group.model,
        library=candidate.library,
        runtime=known[candidate.runtime],
        precision=candidate.precision,
        threads=group.threads,
        subject=folder,
        log=folder / f"{candidate}.log".replace(" ", "-"),
    )


def _time(tried: _Tried, seconds: float, watch: Watch) -> None:
    """Times in turns those whose answers are right."""
    right = {
        candidate: worker
        for candidate, worker in tried.workers.items()
        if not fault(worker.ready.likeness, candidate.precision)
    }
    tried.timings, failures = interleave(
        right, seconds, stopped=watch.stopped, on_turn=lambda: watch.on_step("timing in turns", 1)
    )
    tried.failures |= failures
    for candidate in tried.timings:
        try:
            tried.peaks[candidate] = right[candidate].peak_bytes()
        except EdgewiseError as error:
            tried.failures[candidate] = str(error)


def _row(
    blank: Row, candidate: Candidate, tried: _Tried, known: Mapping[str, Runtime]
) -> Row | None:
    """The candidate's row; None if it was stopped before anything was known of it."""
    version = known[candidate.runtime].version() or ""
    row = replace(blank, version=version, **vars(candidate))
    if candidate in tried.workers:
        ready = tried.workers[candidate].ready
        weight_bytes = tried.file_bytes or ready.weight_bytes
        row = replace(row, first_ms=ready.first_ms, weight_bytes=weight_bytes)
        if ready.likeness:
            row = replace(row, **vars(ready.likeness))
        if wrong := fault(ready.likeness, candidate.precision):
            return replace(row, status=WRONG, reason=wrong)
    if candidate in tried.failures:
        return replace(row, status=FAILED, reason=tried.failures[candidate])
    if candidate not in tried.timings:
        return None
    return replace(row.timed(tried.timings[candidate]), peak_bytes=tried.peaks[candidate])
