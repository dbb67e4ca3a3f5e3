"""Measuring before training: what each network, size, precision and runtime costs on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from edgewise.errors import EdgewiseError
from edgewise.measure.rounds import ROUNDS
from edgewise.measure.store import FAILED, OK, Row, Store, fingerprint, now
from edgewise.progress import bar, track
from edgewise.search.budget import Budget, Spent
from edgewise.search.decisions import Numbers
from edgewise.search.device import Device, DeviceFacts, Measured, TimedFile
from edgewise.search.device_client import TOGETHER
from edgewise.search.entrants import SIZES, Entrant
from edgewise.search.graphs import timing_graph
from edgewise.weights.hub import cache_folder

READERS = ("onnxruntime", "openvino")  # runtimes that read the file that is shipped: ONNX
STORE = "devices.sqlite"  # in the cache: as `edgewise bench`'s, but of files on any device
SECONDS = 1.0  # of timed calls of each file
HOPELESS = 4.0  # times the budget: a network that takes more at its smallest size is left alone
ROOM = 1.3  # times the budget: what compression may still bring down


@dataclass(frozen=True)
class Candidate:
    """One network at one size of image, in one precision and runtime.

    Attributes:
        model: a network's name.
        imgsz: height and width of its input, in pixels.
        precision: "fp32" or "int8".
        runtime: as `edgewise bench` calls it.
    """

    model: str
    imgsz: int
    precision: str
    runtime: str

    def __str__(self) -> str:
        return f"{self.model} at {self.imgsz} px, {self.precision} in {self.runtime}"


@dataclass(frozen=True)
class Cost:
    """What a candidate costs; `spent` is None where it can't be run.

    Attributes:
        candidate: of whose file it is.
        spent: on the device.
        low_ms: the lower end of the median's 95 % interval.
        high_ms: the upper end.
        failure: why there is no `spent`.
    """

    candidate: Candidate
    spent: Spent | None
    low_ms: float = 0.0
    high_ms: float = 0.0
    failure: str = ""

    @classmethod
    def read(cls, numbers: Numbers) -> Cost:
        """The inverse of `dataclasses.asdict`, as the log of decisions has it."""
        spent, candidate = numbers["spent"], Candidate(**numbers["candidate"])
        return cls(
            **{**numbers, "candidate": candidate, "spent": Spent(**spent) if spent else None}
        )


@dataclass
class Survey:
    """Measures candidates on a device, each once: what was measured there before is looked up.

    Attributes:
        device: where.
        facts: of it.
        classes: of the networks.
        store: of what was measured.
    """

    device: Device
    facts: DeviceFacts
    classes: int
    store: Store

    def costs(self, candidates: Iterable[Candidate], seconds: float = SECONDS) -> list[Cost]:
        """What each costs, in their order. Those that were not measured yet are timed in turns.

        Raises:
            UsageError: what writes the files is not installed.
            EdgewiseError: the device went away.
        """
        wanted = list(candidates)
        known = {(row.model, row.graph, row.runtime, row.version): row for row in self._rows()}
        files: dict[Candidate, Path] = {}
        for candidate in track(wanted, f"files of {wanted[0].model}", len(wanted)):
            files[candidate] = self._file(candidate)
        new = [c for c in wanted if self._key(c, files[c]) not in known]
        if new:
            by_key = {str(c): c for c in new}
            timed = [TimedFile(key, files[c], c.runtime) for key, c in by_key.items()]

            def keep(key: str, seen: Measured) -> None:
                candidate = by_key[key]
                row = self._row(candidate, files[candidate], seen)
                self.store.add([row])
                known[self._key(candidate, files[candidate])] = row

            turns = ROUNDS * math.ceil(len(timed) / TOGETHER)
            with bar(f"timing {wanted[0].model}", len(timed) + turns) as steps:
                self.device.measure(timed, seconds, lambda what: steps.advance(note=what), keep)
        return [_cost(c, known[self._key(c, files[c])], files[c]) for c in wanted]

    def drift(self, some: Sequence[Cost]) -> float:
        """How many times as long these files take now as when they were measured: the median.

        A machine is slower in one hour than in another: when it is hot, or others use it.

        Raises:
            EdgewiseError: the device went away.
        """
        files = {
            str(cost.candidate): TimedFile(str(cost.candidate), path, cost.candidate.runtime)
            for cost in some
            for path in [self._file(cost.candidate)]
        }
        seen = self.device.measure(list(files.values()), SECONDS)
        then = {str(cost.candidate): cost.spent for cost in some}
        ratios = [
            measured.timing.latency.median_ms / before.median_ms
            for key, measured in seen.items()
            if measured.timing and (before := then[key])
        ]
        return median(ratios) if ratios else 1.0

    def _file(self, candidate: Candidate) -> Path:
        return timing_graph(candidate.model, self.classes, candidate.imgsz, candidate.precision)

    def _rows(self) -> list[Row]:
        return [
            row
            for row in self.store.rows()
            if row.machine == self.facts.fingerprint and row.threads == self.device.threads
        ]

    def _key(self, candidate: Candidate, file: Path) -> tuple[str, str, str, str]:
        version = self.facts.runtimes.get(candidate.runtime, "")
        return candidate.model, _graph(file), candidate.runtime, version

    def _row(self, candidate: Candidate, file: Path, seen: Measured) -> Row:
        blank = Row(
            session=now(),
            machine=self.facts.fingerprint,
            cpu=self.facts.cpu,
            cores=self.facts.cores,
            load=None,
            model=candidate.model,
            graph=_graph(file),
            imgsz=candidate.imgsz,
            batch=1,
            threads=self.device.threads,
            library="edgewise",
            runtime=candidate.runtime,
            version=self.facts.runtimes.get(candidate.runtime, ""),
            precision=candidate.precision,
            peak_bytes=seen.memory_bytes,
        )
        if seen.timing is None:
            return replace(blank, status=FAILED, reason=seen.failure)
        return blank.timed(seen.timing)


def open_store() -> Store:
    """What was ever measured on devices, from this machine."""
    return Store(cache_folder() / STORE)


def survey(
    entrants: Sequence[Entrant],
    precisions: Sequence[str],
    budget: Budget,
    work: Survey,
    on_costs: Callable[[Sequence[Cost]], None] = lambda costs: None,
) -> list[Cost]:
    """The costs that the choice is made by: of each network at the sizes around the budget.

    The cheapest network's smallest size comes first. A network is measured at its smallest size,
    and at its largest unless that is hopeless; in between time is near enough linear in the pixels
    to tell which sizes are worth a measurement: the largest that should fit, and the next one.

    Args:
        entrants: the cheapest first.
        precisions: of each.
        budget: that is to be met.
        work: what measures.
        on_costs: called with what a network costs at a size, as soon as that is measured.

    Returns:
        What was measured, in the order of the entrants, sizes rising.
    """
    runtimes = [name for name in READERS if name in work.facts.runtimes]
    found: list[Cost] = []
    for entrant in entrants:

        def at(imgsz: int, model: str = entrant.model) -> list[Cost]:
            costs = work.costs(Candidate(model, imgsz, p, r) for p in precisions for r in runtimes)
            on_costs(costs)
            return costs

        ends = at(SIZES[0])
        if hopeless(ends, budget):
            found += ends
            if all(hopeless([cost], budget) for cost in found):
                break  # the others are larger still
            continue
        ends += at(SIZES[-1])
        between = worthwhile(ends, budget)
        found += [*ends, *(cost for imgsz in between for cost in at(imgsz))]
    order = {entrant.model: place for place, entrant in enumerate(entrants)}
    return sorted(found, key=lambda cost: (order[cost.candidate.model], cost.candidate.imgsz))


def drifted(cost: Cost, factor: float) -> Cost:
    """The cost if all takes so many times as long."""
    if cost.spent is None:
        return cost
    times = {name: factor * getattr(cost.spent, name) for name in ("median_ms", "p90_ms", "p99_ms")}
    spent = replace(cost.spent, **times)
    return replace(cost, spent=spent, low_ms=factor * cost.low_ms, high_ms=factor * cost.high_ms)


def hopeless(costs: Sequence[Cost], budget: Budget) -> bool:
    """Whether nothing that is done to the cheapest of them could bring it within the budget."""
    return not any(cost.spent and budget.holds(cost.spent, HOPELESS) for cost in costs)


def worthwhile(ends: Sequence[Cost], budget: Budget) -> list[int]:
    """The sizes between the smallest and the largest that the choice needs to know.

    Args:
        ends: the costs at both ends, of all precisions and runtimes.
        budget: that is to be met.
    """
    if budget.latency_ms is None:
        return []
    sizes: set[int] = set()
    by_way: dict[tuple[str, str], dict[int, float]] = {}
    for cost in ends:
        if cost.spent:
            way = cost.candidate.precision, cost.candidate.runtime
            by_way.setdefault(way, {})[cost.candidate.imgsz] = budget.latency_of(cost.spent)
    for times in by_way.values():
        if len(times) == 2:
            (small, least), (large, most) = sorted(times.items())
            slope = (most - least) / (large**2 - small**2)
            guess = {size: least + slope * (size**2 - small**2) for size in SIZES}
            fit = [size for size in SIZES if guess[size] <= budget.latency_ms]
            above = [size for size in SIZES if budget.latency_ms < guess[size]]
            sizes |= {*fit[-1:], *above[:1]}
    return sorted(sizes - {SIZES[0], SIZES[-1]})


def _graph(file: Path) -> str:
    """The folder's name stands for the network, the file's for precision and size."""
    return fingerprint(file.parent.name, file.name)


def _cost(candidate: Candidate, row: Row, file: Path) -> Cost:
    if row.status != OK:
        return Cost(candidate, None, failure=row.reason)
    if row.median_ms is None or row.p90_ms is None or row.p99_ms is None:
        raise EdgewiseError(f"the store of measurements has no times of {candidate}")
    size = file.stat().st_size
    spent = Spent(row.median_ms, row.p90_ms, row.p99_ms, size, row.peak_bytes)
    return Cost(candidate, spent, row.low_ms or 0.0, row.high_ms or 0.0)
