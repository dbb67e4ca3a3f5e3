"""The rungs before any training: what networks cost on the device, and which are worth trying."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from edgewise.search.budget import Budget
from edgewise.search.choice import Trial, choose_trials, likely, sizes_between
from edgewise.search.costs import Candidate, Cost, as_of_now
from edgewise.search.decisions import Numbers
from edgewise.search.entrants import Entrant, entrants
from edgewise.search.pace import TIMED, Pace, seconds_before
from edgewise.search.state import Settled, State
from edgewise.search.survey import Survey, doubtful, hopeless, open_store, survey
from edgewise.training.start import TooLittleMemory

TIMED_AGAIN = 4  # of the most promising networks, to see how fast the device is today


class NothingFits(Settled):
    """No file that could be made is within the budget; the message has the nearest."""

    exit_status = 3


def surveyed(search: State) -> tuple[tuple[Entrant, ...], list[Cost]]:
    """All networks that may be tried, and what they cost on the device with random weights.

    Raises:
        EdgewiseError: the device went away.
    """
    request, classes = search.request, len(search.dataset.classes)

    def measure() -> Numbers:
        some = entrants(request.models)
        work = Survey(search.device, search.facts, classes, open_store())
        seen = partial(search.watch.measured, some)
        found = survey(some, search.ways, search.budget, work, seen)
        return {
            "entrants": [asdict(entrant) for entrant in some],
            "costs": [asdict(cost) for cost in found],
        }

    numbers = search.decide("survey", measure)
    known = tuple(Entrant(**entrant) for entrant in numbers["entrants"])
    return known, [Cost.read(cost) for cost in numbers["costs"]]


def chosen(search: State, known: Sequence[Entrant], found: Sequence[Cost]) -> list[Trial]:
    """Those worth trying, the most promising first.

    Raises:
        NothingFits: no network is near the budget.
        EdgewiseError: the device went away.
    """
    images = len(search.dataset.splits["train"])
    trials = choose_trials(known, found, search.budget, images)
    doubts = doubtful(found, search.budget)[-TIMED_AGAIN:]  # the largest networks come last
    if trials or doubts:
        work = Survey(search.device, search.facts, len(search.dataset.classes), open_store())
        again = [trial.least for trial in trials[:TIMED_AGAIN]]
        drift = search.decide("drift", lambda: work.drift(again, doubts))
        surveyed, found = found, as_of_now(found, (), drift)
        trials = choose_trials(known, found, search.budget, images)
    if not trials:
        raise NothingFits(nothing_fits(found, search.budget))
    pace, ideal = _pace(search, trials), likely(trials)
    between = sizes_between(trials[:TIMED_AGAIN], found, images, pace)
    if between or "sizes" in search.log.made:
        timed = [Cost.read(cost) for cost in _between(search, work, between, found)["costs"]]
        found = as_of_now(surveyed, timed, drift)
        pace = Pace.read(search.log.made, search.request.minutes)  # with less time left
    trials = choose_trials(known, found, search.budget, images, pace)
    best = likely(trials)
    search.files = 60 * pace.files_minutes(best.entrant, best.imgsz)
    numbers: Numbers = {"trials": [_plain(trial) for trial in trials], "files": search.files}
    if best.name != ideal.name:
        minutes = pace.minutes_for(ideal.entrant, ideal.imgsz) + search.started / 60
        numbers["with_time"] = {"name": ideal.name, "minutes": math.ceil(minutes)}
    search.decide("choose", lambda: numbers)
    return trials


def _between(
    search: State, work: Survey, wanted: Sequence[tuple[str, int]], found: Sequence[Cost]
) -> Numbers:
    """What networks cost at sizes that the survey left out, in the ways that it did not give up."""

    def measure() -> Numbers:
        costs: list[Cost] = []
        for model, imgsz in wanted:
            own = [cost for cost in found if cost.candidate.model == model]
            able = {cost.candidate.way for cost in own if not hopeless([cost], search.budget)}
            costs += work.costs(
                Candidate(model, imgsz, way.precision, way.runtime, way.format)
                for way in search.ways
                if way in able
            )
        return {"costs": [asdict(cost) for cost in costs]}

    numbers = search.decide("sizes", measure)
    search.started = seconds_before(search.log.made)
    return numbers


def _pace(search: State, trials: Sequence[Trial]) -> Pace:
    """How fast networks learn here, by the most promising one that the GPU has room for; and what
    time is left for it.
    """

    def work() -> Numbers:
        entrant, sizes = _epochs(search, trials)
        return {
            "model": entrant.model,
            "epoch_seconds": [seconds for seconds, _ in sizes],
            "steps": round(sizes[0][1], 1),
            "trials": len(trials),
        }

    search.decide("pace", work)
    search.started = seconds_before(search.log.made)
    return Pace.read(search.log.made, search.request.minutes)


def _epochs(search: State, trials: Sequence[Trial]) -> tuple[Entrant, list[tuple[float, float]]]:
    """The first network that there is room for in training, and its epochs; see `time_epoch`."""
    entrant, *others = trials[0].entrant, *trials[1:]
    time_epoch = search.trainer.time_epoch
    try:
        return entrant, [time_epoch(entrant.model, size, entrant.pretrained) for size in TIMED]
    except TooLittleMemory:
        if not others:
            raise
        return _epochs(search, others)


def nothing_fits(found: Sequence[Cost], budget: Budget) -> str:
    """What to say where no network is near the budget: the floor, and the budget for it."""
    able = [cost for cost in found if cost.spent]
    if not able:
        reasons = "; ".join(sorted({cost.failure for cost in found}))
        return f"no network runs on the device: {reasons}"
    least = min(able, key=lambda cost: max(budget.parts(cost.taken).values()))
    spent = least.taken
    takes = {
        "latency": f"{budget.latency_of(spent):.3g} ms ({budget.percentile})",
        "size": f"{spent.size_bytes / 1e6:.3g} MB on the device",
        "memory": f"{(spent.memory_bytes or 0) / 1e6:.3g} MB of memory",
    }
    over = [part for part, used in budget.parts(spent).items() if used > 1]
    faster = ", or a faster device" if "latency" in over else ""
    return (
        f"nothing fits {budget}: the nearest is {least.candidate}, which takes "
        f"{' and '.join(takes[part] for part in over)}. Give at least --budget "
        f"{budget.widened(spent)}{faster}."
    )


def _plain(trial: Trial) -> Numbers:
    return {
        "name": trial.name,
        "model": trial.entrant.model,
        "imgsz": trial.imgsz,
        "pretrained": trial.entrant.pretrained,
        "prior": trial.prior,
        "used": trial.used,
        "above": trial.above,
        "least": asdict(trial.least.candidate),
        "ways": [asdict(way) for way in trial.ways],
    }
