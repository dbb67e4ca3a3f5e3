"""From labelled images and a budget to the most accurate file that fits: rung by rung.

1. doctor    is training on this data sound?
2. survey    what every network costs on the device, before any is trained; and by how much the
             device is slower now than when that was measured
3. choose    the most promising ones that fit, and that can learn enough in the time; where it is
             short, at smaller images too
4. round 1   a short training of each on the data; round 2: a longer one of the best three
5. train     the best one, for as long as there is time; again from a better one's answers
6. files     exported, timed on the device; a smaller image, or training with int8's rounding,
             where that is needed
7. narrow    a better network that is a little too dear, narrowed by NetAdapt until it fits
8. test      the chosen file, timed afresh, on images that no decision has seen

Each rung's numbers are a line in the log of decisions. A search that was stopped goes on with the
first rung that is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from edgewise.data.doctor import examine
from edgewise.errors import EdgewiseError, UsageError
from edgewise.files import claimed, holds_more_than
from edgewise.run_folder import Run
from edgewise.search.budget import Budget, Spent
from edgewise.search.choice import Trial, choose_trials, sizes_between
from edgewise.search.costs import Candidate, Cost, as_of_now
from edgewise.search.decisions import Numbers
from edgewise.search.device import open_device
from edgewise.search.entrants import Entrant, entrants
from edgewise.search.finishing import files_of, narrowed_files, tested
from edgewise.search.pace import (
    DISTILLING,
    FIRST_ROUND,
    SECOND_ROUND,
    TIGHT,
    TIMED,
    Pace,
    long_share,
    seconds_before,
    trials_in,
)
from edgewise.search.request import Request, SearchFolder
from edgewise.search.state import State, Watch
from edgewise.search.survey import Survey, open_store, survey
from edgewise.training.divergence import Diverged
from edgewise.training.interrupt import Stopped
from edgewise.training.trial import TooLittleTime

TIMED_AGAIN = 4  # of the most promising networks, to see how fast the device is today
SURVIVORS = 3  # of the first round


class NothingFits(EdgewiseError):
    """No file that could be made is within the budget; the message has the nearest."""

    exit_status = 3


def run(request: Request, root: Path, watch: Watch | None = None) -> SearchFolder:
    """Searches in the folder `root`, or goes on with the search that is there.

    Args:
        request: what for; a search that is there must have been asked for the same.
        root: of the search.
        watch: who is told.

    Returns:
        The folder; the last decision, "test", names the chosen file and says whether it fits.

    Raises:
        UsageError: the request, the data or the folder is no good, or another process is at work
            in it.
        NothingFits: no network is anywhere near the budget. (That the best file misses it is no
            error, but said in "test".)
        Stopped: a signal came; everything is saved.
        EdgewiseError: training on the data would be unsound, the device went away, the disk is
            full ... What was decided before is kept.
    """
    folder = SearchFolder(root)
    _check(folder, request)
    device = open_device(request.device, request.threads)
    search = State(request, folder, device, watch or Watch())
    root.mkdir(parents=True, exist_ok=True)
    try:
        with claimed(root):
            _check(folder, request)  # another process may have begun in it by now
            search.begin()
            climb(search)
    except Stopped as stop:
        raise Stopped(
            f"stopped; go on with: edgewise run --resume {root}", stop.exit_status - 128
        ) from stop
    return folder


def _check(folder: SearchFolder, request: Request) -> None:
    """Whether the request can be searched for in the folder; see `run`."""
    root = folder.root
    if SearchFolder.is_search(root):
        if Request.read(folder.request) != request:
            raise UsageError(
                f"{root} is a search for something else. Go on with it as it was asked for: "
                f"edgewise run --resume {root}. Or choose another --name."
            )
    elif holds_more_than(root, ()):
        raise UsageError(f"{root} holds something else already. Choose another --name.")


def climb(search: State) -> None:
    """All rungs."""
    facts = {"device": search.request.device, **asdict(search.facts)}
    facts["left_out"] = search.left_out
    search.decide("device", lambda: facts)
    search.decide("doctor", lambda: _doctor(search))
    known, found = _survey(search)
    trials = _choose(search, known, found)
    kept = _round(search, 1, trials, FIRST_ROUND, SURVIVORS)
    kept = _round(search, 2, kept, SECOND_ROUND, len(kept))
    final = _train(search, kept)
    files = [*files_of(search, final), *narrowed_files(search, kept, final)]
    search.decide("test", lambda: tested(search, files))


def _doctor(search: State) -> Numbers:
    data = search.request.data
    seen = examine(Path(data))
    if not seen.sound:
        errors = " ".join(f.text for f in seen.findings if f.severity == "error")
        raise EdgewiseError(
            f"training on {data} would not be sound: {errors} Look closer with: "
            f"edgewise doctor {data}"
        )
    return {
        "images": seen.usable,
        "classes": list(search.dataset.classes),
        "splits": {split: len(own) for split, own in search.dataset.splits.items()},
        "warnings": [f.text for f in seen.findings if f.severity == "warning"],
    }


def _survey(search: State) -> tuple[tuple[Entrant, ...], list[Cost]]:
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


def _choose(search: State, known: Sequence[Entrant], found: Sequence[Cost]) -> list[Trial]:
    images = len(search.dataset.splits["train"])
    trials = choose_trials(known, found, search.budget, images)
    if trials:
        work = Survey(search.device, search.facts, len(search.dataset.classes), open_store())
        again = [trial.least for trial in trials[:TIMED_AGAIN]]
        drift = search.decide("drift", lambda: work.drift(again))
        surveyed, found = found, as_of_now(found, (), drift)
        trials = choose_trials(known, found, search.budget, images)
    if not trials:
        raise NothingFits(nothing_fits(found, search.budget))
    pace, ideal = _pace(search, trials[0].entrant), _likely(trials)
    between = sizes_between(trials[:TIMED_AGAIN], found, images, pace)
    if between or "sizes" in search.log.made:
        timed = [Cost.read(cost) for cost in _between(search, work, between)["costs"]]
        found = as_of_now(surveyed, timed, drift)
        pace = Pace.read(search.log.made, search.request.minutes)  # with less time left
    trials = choose_trials(known, found, search.budget, images, pace)
    likely = _likely(trials)
    search.files = 60 * pace.files_minutes(likely.entrant, likely.imgsz)
    numbers: Numbers = {"trials": [_plain(trial) for trial in trials], "files": search.files}
    if likely.name != ideal.name:
        minutes = pace.minutes_for(ideal.entrant, ideal.imgsz) + search.started / 60
        numbers["with_time"] = {"name": ideal.name, "minutes": math.ceil(minutes)}
    search.decide("choose", lambda: numbers)
    return trials


def _between(search: State, work: Survey, wanted: Sequence[tuple[str, int]]) -> Numbers:
    """What networks cost at sizes that the survey left out."""

    def measure() -> Numbers:
        costs: list[Cost] = []
        for model, imgsz in wanted:
            costs += work.costs(
                Candidate(model, imgsz, way.precision, way.runtime, way.format)
                for way in search.ways
            )
        return {"costs": [asdict(cost) for cost in costs]}

    numbers = search.decide("sizes", measure)
    search.started = seconds_before(search.log.made)
    return numbers


def _likely(trials: Sequence[Trial]) -> Trial:
    """The most promising one that fits as it is, if one does."""
    return next((trial for trial in trials if not trial.above), trials[0])


def _pace(search: State, entrant: Entrant) -> Pace:
    """How fast networks learn here, by the most promising one; and what time is left for it."""

    def work() -> Numbers:
        sizes = [search.trainer.time_epoch(entrant.model, s, entrant.pretrained) for s in TIMED]
        return {
            "model": entrant.model,
            "epoch_seconds": [seconds for seconds, _ in sizes],
            "steps": round(sizes[0][1], 1),
        }

    search.decide("pace", work)
    search.started = seconds_before(search.log.made)
    return Pace.read(search.log.made, search.request.minutes)


def _round(
    search: State, number: int, trials: Sequence[Trial], share: float, survivors: int
) -> list[Trial]:
    """Trains each trial for its part of the time; returns the best, the best first.

    One whose training diverges is out, unless all do. Where there is little time, only the most
    promising are tried, or none: a training of a few seconds tells nothing.
    """
    fewer = trials[: trials_in(search.left, share)]
    if len(fewer) < 2:
        return list(trials[:survivors])
    minutes = search.left * share / len(fewer)
    tried = {}
    for trial in fewer:
        root = search.folder.trials / f"{number}-{trial.name}"

        def work(trial: Trial = trial, root: Path = root) -> Numbers:
            try:
                return search.outcome(_trained(search, trial, minutes, root))
            except (TooLittleTime, Diverged) as error:
                return _failed(error)

        tried[trial.name] = search.decide(f"round {number}: {trial.name}", work)
    scores = {name: own["score"] for name, own in tried.items()}
    able = [trial for trial in fewer if "out" not in tried[trial.name]] or fewer
    ranked = sorted(able, key=lambda trial: (-scores[trial.name], -trial.prior, trial.name))
    kept = ranked[:survivors]
    fitting = [trial for trial in ranked if not trial.above]
    if fitting and fitting[0] not in kept:  # one at least must fit without compression
        kept[-1] = fitting[0]
    search.decide(f"round {number}", lambda: {"kept": [trial.name for trial in kept]})
    return kept


def _trained(search: State, trial: Trial, minutes: float, root: Path) -> Run:
    return search.trainer.train(
        trial.entrant.model, trial.imgsz, minutes, root, pretrained=trial.entrant.pretrained
    )


def _failed(error: TooLittleTime | Diverged) -> Numbers:
    """Instead of an outcome; "out" where more time would not help."""
    if isinstance(error, Diverged):
        return {"score": 0.0, "failure": f"training diverged: {error.what}", "out": True}
    return {"score": 0.0, "failure": str(error)}


def _train(search: State, trials: Sequence[Trial]) -> Run:
    """The best that fits, trained for long, and again with a better one as its teacher."""
    best = _likely(trials)
    root, second = search.folder.final, search.folder.distilled

    def work() -> Numbers:
        # Ranked before it are only those that did better and do not fit.
        share = long_share(search.left, better=best is not trials[0], tight=best.used > TIGHT)
        made = _trained(search, best, search.left * share, root)
        return {"trial": best.name, **search.outcome(made)}

    first = search.decide("train", work)
    taught = [(search.log.made.get(f"round 2: {t.name}"), t) for t in trials if t is not best]
    better = [(own, t) for own, t in taught if own and own["score"] > first["score"]]
    if not better:
        return Run(root)
    known, teacher = max(better, key=lambda pair: pair[0]["score"])

    def distil() -> Numbers:
        minutes = search.left * DISTILLING
        better = str(search.folder.at(known["run"]))
        try:
            made = search.go_on(Run(root), best.imgsz, minutes, second, teacher=better)
        except (TooLittleTime, Diverged) as error:  # what is there already is kept
            made = _failed(error)
        return {"teacher": teacher.name, **made}

    again = search.decide("distil", distil)
    return Run(second if again["score"] > first["score"] else root)


def nothing_fits(found: Sequence[Cost], budget: Budget) -> str:
    """What to say where no network is near the budget: the floor."""
    able = [cost for cost in found if cost.spent]
    if not able:
        reasons = "; ".join(sorted({cost.failure for cost in found}))
        return f"no network runs on the device: {reasons}"
    least = min(able, key=lambda cost: max(budget.parts(_spent(cost)).values()))
    spent = _spent(least)
    return (
        f"nothing fits {budget}: the nearest is {least.candidate}, with a median of "
        f"{spent.median_ms:.3g} ms (90 % of the calls within {spent.p90_ms:.3g} ms) and "
        f"{spent.size_bytes / 1e6:.2f} MB. Give a larger budget, or a faster device."
    )


def _spent(cost: Cost) -> Spent:
    assert cost.spent
    return cost.spent


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
    }
