"""Measuring before training: what each network costs on the device, at each size, in each way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median

from edgewise.errors import EdgewiseError
from edgewise.measure.rounds import ROUNDS
from edgewise.measure.store import FAILED, OK, Row, Store, fingerprint, now
from edgewise.progress import bar
from edgewise.search.budget import Budget, Spent
from edgewise.search.costs import Candidate, Cost
from edgewise.search.decisions import Numbers
from edgewise.search.device import Device, DeviceFacts, Measured, TimedFile
from edgewise.search.device_client import TOGETHER, parts
from edgewise.search.device_worker import BROKEN
from edgewise.search.entrants import SIZES, Entrant
from edgewise.search.graphs import graphs_folder
from edgewise.search.timing_files import timed_files
from edgewise.search.ways import Way
from edgewise.weights.hub import cache_folder

STORE = "devices.sqlite"  # in the cache: as `edgewise bench`'s, but of files on any device
SECONDS = 1.0  # of timed calls of each file
HOPELESS = 4.0  # times the budget: a network that takes more at its smallest size is left alone
ROOM = 1.3  # times the budget: what compression may still bring down
OFF = 0.1  # of its time, by which a file's is further off than that of others
# Tried again in the next search, which takes a second: what crashed, for most often memory was
# short just then, and what the device's Python could not import, which is no fault of the file.
# What a runtime refuses it refuses each time, and what hangs takes minutes.
CRASHED = "crashed ("  # as device_runner.py says it
AGAIN = (CRASHED, BROKEN, "ImportError: ", "ModuleNotFoundError: ")


@dataclass
class Survey:
    """Measures candidates on a device, each once: what was measured there before is looked up.

    What crashed before is not, nor what a broken runtime could not load: it is tried again.

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

        One whose file can't be written, or not be run, has the reason.

        Raises:
            EdgewiseError: the device went away.
        """
        wanted = list(candidates)
        files, failures = timed_files(wanted, self.classes)
        known = {(row.model, row.graph, row.runtime, row.version): row for row in self._rows()}
        new = {c: file for c, file in files.items() if self._key(c, file) not in known}
        if new:
            by_key = {str(c): c for c in new}

            def keep(key: str, seen: Measured) -> None:
                candidate = by_key[key]
                row = self._row(candidate, new[candidate], seen)
                self.store.add([row])
                known[self._key(candidate, new[candidate])] = row

            turns = ROUNDS * math.ceil(len(new) / TOGETHER)
            with bar(f"timing {wanted[0].model}", len(new) + turns) as steps:
                self.device.measure(
                    list(new.values()), seconds, lambda what: steps.advance(note=what), keep
                )
        return [
            replace(_cost(c, known[self._key(c, files[c])], files[c]), stored=c not in new)
            if c in files
            else Cost(c, None, failure=failures[c])
            for c in wanted
        ]

    def drift(self, some: Sequence[Cost], doubts: Sequence[Cost] = ()) -> Numbers:
        """How many times as long these files take now as when they were measured: the median.

        A machine is slower in one hour than in another: when it is hot, or others use it. One that
        is further off than the others was measured while something else ran: what it takes now is
        kept for the next search.

        Args:
            some: of what the device ran before.
            doubts: to be timed again as well, but not counted.

        Returns:
            "factor" of those that were measured before this search, "since" of the others, and
            "again", what each costs now; see `edgewise.search.costs.as_of_now`. And "off": those
            that are kept, with the milliseconds that they "took" and "take" at the median.

        Raises:
            EdgewiseError: the device went away.
        """
        costs = {cost.candidate: cost for cost in (*doubts, *some)}
        files, _ = timed_files(list(costs), self.classes)
        measured = self.device.measure(list(files.values()), SECONDS)
        seen = {c: measured[str(c)] for c in files if measured[str(c)].timing and costs[c].spent}
        rows = {c: self._row(c, files[c], own) for c, own in seen.items()}
        now = {c: replace(_cost(c, row, files[c]), stored=False) for c, row in rows.items()}
        ratios = {c: own.taken.median_ms / costs[c].taken.median_ms for c, own in now.items()}
        counted = {cost.candidate for cost in some}

        def of(stored: bool) -> list[float]:
            return [r for c, r in ratios.items() if c in counted and costs[c].stored is stored]

        since = median(of(stored=False) or [1.0])
        factor = median(of(stored=True) or [since])
        expected = {c: factor if costs[c].stored else since for c in ratios}
        off = [c for c, ratio in ratios.items() if abs(ratio / expected[c] - 1) > OFF]
        self.store.add([rows[c] for c in off])
        return {
            "factor": factor,
            "since": since,
            "again": [asdict(own) for own in now.values()],
            "off": [
                {"file": str(c), "took": costs[c].taken.median_ms, "take": now[c].taken.median_ms}
                for c in off
            ],
        }

    def _rows(self) -> list[Row]:
        return [
            row
            for row in self.store.rows()
            if row.machine == self.facts.fingerprint
            and row.threads == self.device.threads
            and not row.reason.startswith(AGAIN)
        ]

    def _key(self, candidate: Candidate, file: TimedFile) -> tuple[str, str, str, str]:
        version = self.facts.runtimes.get(candidate.runtime, "")
        return candidate.model, _graph(file), candidate.runtime, version

    def _row(self, candidate: Candidate, file: TimedFile, seen: Measured) -> Row:
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
    ways: Sequence[Way],
    budget: Budget,
    work: Survey,
    on_costs: Callable[[Sequence[Cost]], None] = lambda costs: None,
) -> list[Cost]:
    """The costs that the choice is made by: of each network at the sizes around the budget.

    The cheapest network's smallest size comes first. A network is measured at its smallest size,
    and at its largest unless that is hopeless; in between time is near enough linear in the pixels
    to tell which sizes are worth a measurement: the largest that should fit, and the next one. If
    memory is enough at the smallest size and not at the largest, so are all that time allows. A way
    that fails at the smallest size, or is hopeless there, is not tried at others. Where all are
    hopelessly slow, larger networks are not measured.

    Args:
        entrants: the cheapest first.
        ways: to ship each.
        budget: that is to be met.
        work: what measures.
        on_costs: called with what a network costs at a size, as soon as that is measured.

    Returns:
        What was measured, in the order of the entrants, sizes rising.
    """
    found: list[Cost] = []
    for entrant in entrants:

        def at(imgsz: int, able: Sequence[Way], model: str = entrant.model) -> list[Cost]:
            costs = work.costs(
                Candidate(model, imgsz, way.precision, way.runtime, way.format) for way in able
            )
            on_costs(costs)
            return costs

        ends = at(SIZES[0], ways)
        if hopeless(ends, budget):
            found += ends
            timed = any(cost.spent for cost in ends)
            if timed and all(_too_slow(cost, budget) for cost in found):
                break  # the others are slower still
            continue
        able = [cost.candidate.way for cost in ends if not hopeless([cost], budget)]
        ends += at(SIZES[-1], able)
        between = worthwhile(ends, budget)
        found += [*ends, *(cost for imgsz in between for cost in at(imgsz, able))]
    order = {entrant.model: place for place, entrant in enumerate(entrants)}
    return sorted(found, key=lambda cost: (order[cost.candidate.model], cost.candidate.imgsz))


def hopeless(costs: Sequence[Cost], budget: Budget) -> bool:
    """Whether nothing that is done to the cheapest of them could bring it within the budget."""
    return not any(cost.spent and budget.holds(cost.spent, HOPELESS) for cost in costs)


def _too_slow(cost: Cost, budget: Budget) -> bool:
    """Whether it is `hopeless` for its time: more sums may come in a smaller file."""
    return cost.spent is None or budget.parts(cost.spent).get("latency", 0.0) > HOPELESS


def doubtful(costs: Sequence[Cost], budget: Budget) -> list[Cost]:
    """Files that are too dear, and took longer than a larger image in the same network and way.

    Something else must have run on the device when they were measured.
    """
    timed = [cost for cost in costs if cost.spent]
    return [
        cost
        for cost in timed
        if not budget.holds(cost.taken)
        and any(
            replace(other.candidate, imgsz=cost.candidate.imgsz) == cost.candidate
            and other.candidate.imgsz > cost.candidate.imgsz
            and other.taken.median_ms < cost.taken.median_ms
            and budget.holds(other.taken, ROOM)
            for other in timed
        )
    ]


def worthwhile(ends: Sequence[Cost], budget: Budget) -> list[int]:
    """The sizes between the smallest and the largest that the choice needs to know.

    Args:
        ends: the costs at both ends, of all ways.
        budget: that is to be met.
    """
    by_way: dict[Way, dict[int, dict[str, float]]] = {}
    for cost in ends:
        if cost.spent:
            used = by_way.setdefault(cost.candidate.way, {})
            used[cost.candidate.imgsz] = budget.parts(cost.spent)
    near = {size for used in by_way.values() if len(used) == 2 for size in _near(used)}
    return sorted(near - {SIZES[0], SIZES[-1]})


def _near(used: Mapping[int, Mapping[str, float]]) -> list[int]:
    """The sizes that one way has to be measured at, by what it takes of the budget at two."""
    (small, least), (large, most) = sorted(used.items())
    time, longer = (parts.get("latency", 0.0) for parts in (least, most))
    slope = (longer - time) / (large**2 - small**2)
    guess = {size: time + slope * (size**2 - small**2) for size in SIZES}
    fit = [size for size in SIZES if guess[size] <= 1]
    above = [size for size in SIZES if guess[size] > 1]
    if least.get("memory", 0.0) <= 1 < most.get("memory", 0.0):
        return [*fit, *above[:1]]  # memory grows in steps that nothing tells beforehand
    return [*fit[-1:], *above[:1]]


def _graph(file: TimedFile) -> str:
    """Its place in the cache stands for the network, the size, the precision and its writer."""
    return fingerprint(*file.path.relative_to(graphs_folder()).parts)


def _cost(candidate: Candidate, row: Row, file: TimedFile) -> Cost:
    if row.status != OK:
        return Cost(candidate, None, failure=row.reason)
    if row.median_ms is None or row.p90_ms is None or row.p99_ms is None:
        raise EdgewiseError(f"the store of measurements has no times of {candidate}")
    size = sum(path.stat().st_size for path in parts(file))
    spent = Spent(row.median_ms, row.p90_ms, row.p99_ms, size, row.peak_bytes)
    return Cost(candidate, spent, row.low_ms or 0.0, row.high_ms or 0.0)
