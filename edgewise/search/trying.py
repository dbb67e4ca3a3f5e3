"""The rungs that train: short rounds of the most promising networks, and the best one for long."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from edgewise.errors import EdgewiseError
from edgewise.run_folder import Run
from edgewise.search.choice import Trial, likely
from edgewise.search.decisions import Numbers
from edgewise.search.pace import DISTILLING, TIGHT, Pace, long_share, trials_in
from edgewise.search.state import State
from edgewise.search.trials import tried


def round_of(
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
    reached = {}
    for trial in fewer:
        root = search.folder.trials / f"{number}-{trial.name}"

        def work(trial: Trial = trial, root: Path = root) -> Numbers:
            return search.outcome(_train(search, trial, minutes, root))

        step = f"round {number}: {trial.name}"
        reached[trial.name] = search.decide(step, partial(tried, work))
    scores = {name: own["score"] for name, own in reached.items()}
    able = [trial for trial in fewer if "out" not in reached[trial.name]] or fewer
    ranked = sorted(able, key=lambda trial: (-scores[trial.name], -trial.prior, trial.name))
    kept = ranked[:survivors]
    fitting = [trial for trial in ranked if not trial.above]
    if fitting and fitting[0] not in kept:  # one at least must fit without compression
        kept[-1] = fitting[0]
    search.decide(f"round {number}", lambda: {"kept": [trial.name for trial in kept]})
    return kept


def trained(search: State, trials: Sequence[Trial]) -> Run:
    """The best that fits, trained for long, and again with a better one as its teacher.

    Where there is more time than one training can use, and no better one to learn from, half of it
    is kept for `learned_again`.

    Raises:
        EdgewiseError: the long training diverged, or its time is too short for an epoch.
    """
    best = likely(trials)
    root, second = search.folder.final, search.folder.distilled

    def work() -> Numbers:
        # Ranked before it are only those that did better and do not fit.
        share = long_share(search.left, better=best is not trials[0], tight=best.used > TIGHT)
        minutes, again = search.left * share, 0.0
        if best is trials[0] and enough_for_two(search, best, minutes):
            minutes = again = minutes / 2
        numbers = tried(lambda: search.outcome(_train(search, best, minutes, root)))
        if "failure" in numbers:  # there is nothing else yet that could be shipped
            mend = "other --models, or another --seed" if "out" in numbers else "more --time"
            raise EdgewiseError(
                f"the long training of {best.name} failed: {numbers['failure']}. Search again "
                f"under another --name, with {mend}; what was measured is kept."
            )
        return {"trial": best.name, "again": again, **numbers}

    first = search.decide("train", work)
    taught = [(search.log.made.get(f"round 2: {t.name}"), t) for t in trials if t is not best]
    better = [(own, t) for own, t in taught if own and own["score"] > first["score"]]
    if not better:
        return Run(root)
    known, teacher = max(better, key=lambda pair: pair[0]["score"])

    def distil() -> Numbers:
        minutes = search.left * DISTILLING
        better = str(search.folder.at(known["run"]))
        go_on = partial(search.go_on, Run(root), best.imgsz, minutes, second, teacher=better)
        return {"teacher": teacher.name, **tried(go_on)}

    again = search.decide("distil", distil)
    return Run(second if again["score"] > first["score"] else root)


def enough_for_two(search: State, trial: Trial, minutes: float) -> bool:
    """Whether so long a training leaves time for `learned_again`.

    From scratch none does: there, longer is better for longer.
    """
    if not trial.entrant.pretrained:
        return False
    pace = Pace.read(search.log.made, search.request.minutes)
    return pace.enough_for_two(trial.entrant, trial.imgsz, minutes)


def _train(search: State, trial: Trial, minutes: float, root: Path) -> Run:
    return search.trainer.train(
        trial.entrant.model, trial.imgsz, minutes, root, pretrained=trial.entrant.pretrained
    )
