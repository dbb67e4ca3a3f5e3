"""The rungs that train: short rounds of the most promising networks, and the best one for long."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from edgewise.run_folder import Run
from edgewise.search.choice import Trial, likely, promises
from edgewise.search.decisions import Numbers
from edgewise.search.pace import DISTILLING, SURVIVORS, TIGHT, Pace, long_share, trials_in
from edgewise.search.state import Settled, State
from edgewise.search.trials import tried


def round_of(
    search: State, number: int, trials: Sequence[Trial], share: float, above: int
) -> list[Trial]:
    """Trains each trial for its part of the time; returns the best, the best first.

    One whose training diverges is out, unless all do. Where there is little time, only the most
    promising are tried; or none, if they would not be more than `above`.
    """
    pace = Pace.read(search.log.made, search.request.minutes)
    least = max(pace.least_trial(trial.entrant, trial.imgsz) for trial in trials[: above + 1])
    fewer = trials[: trials_in(search.left, share, least, above)]
    if len(fewer) <= above:
        return list(trials[:SURVIVORS])
    minutes = search.left * share / len(fewer)
    reached = {}
    for trial in fewer:
        root = search.folder.trials / f"{number}-{trial.name}"

        def work(trial: Trial = trial, root: Path = root) -> Numbers:
            return search.outcome(_train(search, trial, minutes, root))

        step = f"round {number}: {trial.name}"
        reached[trial.name] = search.decide(step, partial(tried, work))
    able = [trial for trial in fewer if "out" not in reached[trial.name]] or fewer
    promise = promises(able, reached)
    ranked = sorted(able, key=lambda trial: (-promise[trial.name], -trial.prior, trial.name))
    kept = ranked[:SURVIVORS]
    fitting = [trial for trial in ranked if not trial.above]
    if fitting and fitting[0] not in kept:  # one at least must fit without compression
        kept[-1] = fitting[0]
    names = [trial.name for trial in kept]
    decided = search.decide(f"round {number}", lambda: {"kept": names, "promise": promise})
    by_name = {trial.name: trial for trial in fewer}
    return [by_name[name] for name in decided["kept"]]


def trained(search: State, trials: Sequence[Trial]) -> Run:
    """The best that fits, trained for long, and again with a better, too dear one as its teacher.

    Where there is more time than one training can use, and no better one to learn from, half of it
    is kept for `learned_again`.

    Raises:
        Settled: the long training diverged, or its time is too short for an epoch.
    """
    best = likely(trials)
    root, second = search.folder.final, search.folder.distilled
    made = search.log.made
    scores: defaultdict[str, float] = defaultdict(float)
    for trial in trials:
        if (step := f"round 2: {trial.name}") in made:
            scores[trial.name] = made[step]["score"]

    def work() -> Numbers:
        # One that fits and did better was lucky: it would be the best, had it promised more.
        better = any(trial.above and scores[trial.name] > scores[best.name] for trial in trials)
        rounds = [number for number in (1, 2) if f"round {number}" in made]
        share = long_share(rounds, better, best.used > TIGHT)
        minutes, again = search.left * share, 0.0
        if not better and (each := each_of_two(search, best, minutes)):
            minutes = again = each
        numbers = tried(lambda: search.outcome(_train(search, best, minutes, root)))
        if "failure" in numbers:  # there is nothing else yet that could be shipped
            mend = "other --models, or another --seed" if "out" in numbers else "more --time"
            raise Settled(
                f"the long training of {best.name} failed: {numbers['failure']}. Search again "
                f"under another --name, with {mend}; what was measured is kept."
            )
        return {"trial": best.name, "again": again, **numbers}

    first = search.decide("train", work)
    dear = [trial for trial in trials if trial.above and trial is not best]
    teachers = [trial for trial in dear if scores[trial.name] > first["score"]]
    if not teachers and "distil" not in made:  # an older version asked those that fit, too
        return Run(root)

    def distil() -> Numbers:
        teacher = max(teachers, key=lambda trial: scores[trial.name])
        minutes = search.left * DISTILLING
        answers = search.folder.at(made[f"round 2: {teacher.name}"]["run"])
        go_on = partial(search.go_on, Run(root), best.imgsz, minutes, second, teacher=str(answers))
        return {"teacher": teacher.name, **tried(go_on)}

    again = search.decide("distil", distil)
    return Run(second if again["score"] > first["score"] else root)


def each_of_two(search: State, trial: Trial, minutes: float) -> float:
    """Minutes for the long training where there is time for `learned_again`; 0 where there is none.

    From scratch there is none: there, longer is better for longer.
    """
    if not trial.entrant.pretrained:
        return 0.0
    pace = Pace.read(search.log.made, search.request.minutes)
    return pace.each_of_two(trial.entrant, trial.imgsz, minutes)


def _train(search: State, trial: Trial, minutes: float, root: Path) -> Run:
    return search.trainer.train(
        trial.entrant.model, trial.imgsz, minutes, root, pretrained=trial.entrant.pretrained
    )
