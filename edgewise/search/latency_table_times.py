"""The times of rows and networks on a device, each measured once and kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import torch

from edgewise.errors import CantWrite, EdgewiseError, UsageError, reason, unknown
from edgewise.files import of_disk
from edgewise.measure.store import OURS, Row, Store, now
from edgewise.progress import bar
from edgewise.search.device import Device, Measured, TimedFile
from edgewise.search.device_client import TOGETHER as PROCESSES
from edgewise.search.latency_table_parts import EmptyCall, Part
from edgewise.timing.runtimes import RUNTIMES
from edgewise.timing.runtimes.graph import int8_file, onnx_file
from edgewise.weights.hub import cache_folder

FILE = "rows.sqlite"
SECONDS = 0.5  # of timed calls of each part
TOGETHER = PROCESSES - 1  # parts that are timed in turns, with an empty call beside them
WRITERS = {"fp32": onnx_file, "int8": int8_file}


class CantTime(EdgewiseError):
    """A file can't be written, or not be run by a device that is there: nor in another try."""


class Times(Protocol):
    """Something that knows how long parts take."""

    def of(self, parts: Iterable[Part]) -> dict[Part, float]:
        """Milliseconds of a call of each, less what an empty call costs.

        Raises:
            CantTime: one can't be timed.
        """


class DeviceTimes:
    """The times on one device in one runtime, as files with one image a call.

    What was measured once, with as many threads and in the same version of the runtime, is read
    from the store.
    """

    def __init__(
        self,
        device: Device,
        runtime: str = "onnxruntime",
        precision: str = "fp32",
        store: Store | None = None,
    ) -> None:
        """Reads what is known.

        Args:
            device: where to measure.
            runtime: one that reads ONNX files.
            precision: "fp32" or "int8".
            store: of what was measured; None for `rows.sqlite` in the cache folder.

        Raises:
            UsageError: the runtime reads no ONNX files or is not on the device, or there is no such
                precision.
            EdgewiseError: the device can't be reached.
        """
        fitting = [name for name, known in RUNTIMES.items() if known.read]
        if runtime not in fitting:
            raise unknown("runtime for rows, which are ONNX files,", runtime, fitting)
        if precision not in WRITERS:
            raise unknown("precision", precision, WRITERS)
        self.device, self.runtime, self.precision = device, runtime, precision
        self.facts = device.facts()
        if runtime not in self.facts.runtimes:
            there = ", ".join(self.facts.runtimes) or "no runtime at all"
            raise UsageError(f"{device.name} has {there}, and no {runtime}. Install it there.")
        self.store = store or Store(cache_folder() / FILE)
        self.known: dict[str, float] = {}
        ours, sessions = self._row("", EmptyCall(), 0), defaultdict(list)
        for row in self.store.rows():
            if _measured_like(row, ours):
                sessions[row.session].append(row)
        for rows in sessions.values():
            if any(row.graph == ours.graph for row in rows):  # else of another version of Edgewise
                self._learn(rows)

    def of(self, parts: Iterable[Part]) -> dict[Part, float]:
        """See `Times`: those that are not known yet are measured now, up to seven in turns.

        Raises:
            CantTime: one can't be written, or not be run; the others are kept.
            EdgewiseError: the device went away, or the disk is full.
        """
        wanted = list(dict.fromkeys(parts))
        missing = {part.graph: part for part in wanted if part.graph not in self.known}
        left = list(missing.values())
        with bar("timing rows", len(left)) as steps:
            for start in range(0, len(left), TOGETHER):
                some = left[start : start + TOGETHER]
                self._measure(some)
                steps.advance(len(some))
        return {part: self.known[part.graph] for part in wanted}

    def _measure(self, parts: Sequence[Part]) -> None:
        """Times them and an empty call in turns."""
        every: list[Part] = [EmptyCall(), *parts]
        with TemporaryDirectory() as folder:
            files = [self._written(part, Path(folder)) for part in every]
            measured = self.device.measure(files, SECONDS)
        session, rows = now(), []
        for part in every:
            timing = measured[part.graph].timing
            if timing:
                rows.append(self._row(session, part, part.shape[-1]).timed(timing))
        if measured[every[0].graph].timing:
            self.store.add(rows)
            self._learn(rows)
        for part in every:
            _check(measured[part.graph], part, self.device)

    def _written(self, part: Part, folder: Path) -> TimedFile:
        try:
            return self._file(part, folder)
        except Exception as error:  # every converter has its own kinds
            if of_disk(error):
                raise CantWrite(reason(error)) from error
            raise CantTime(f"can't write {part.words}: {reason(error)}") from error

    def _file(self, part: Part, folder: Path) -> TimedFile:
        """The part as the runtime reads it. torch's own random state is left as it was."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            module = part.module()
            mixes = any(weights.ndim > 1 for weights in module.parameters())
            # A pooling, or an empty call, has nothing that could compute in int8.
            write = WRITERS[self.precision if mixes else "fp32"]
            path = write(module, part.shape, folder)
        return TimedFile(part.graph, path, self.runtime, self.precision, part.shape)

    def _row(self, session: str, part: Part, side: int) -> Row:
        facts = self.facts
        return Row(
            *(session, facts.fingerprint, facts.cpu, facts.cores, None),
            *(part.words, part.graph, side, 1, self.device.threads),
            *(OURS, self.runtime, facts.runtimes[self.runtime], self.precision),
        )

    def _learn(self, rows: Sequence[Row]) -> None:
        """Takes up the rows of one session, in which an empty call is."""
        times = {row.graph: row.median_ms or 0.0 for row in rows}
        empty = times.pop(EmptyCall().graph)
        self.known |= {graph: max(ms - empty, 0.0) for graph, ms in times.items()}


def _measured_like(row: Row, other: Row) -> bool:
    """Whether it was on the same machine, in the same way."""
    ways = (
        (r.machine, r.threads, r.library, r.runtime, r.version, r.precision) for r in (row, other)
    )
    return len(set(ways)) == 1


def _check(measured: Measured, part: Part, device: Device) -> None:
    if not measured.timing:
        raise CantTime(f"{device.name} could not time {part.words}: {measured.failure}")
