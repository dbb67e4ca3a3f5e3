"""Which networks are worth training: those that fit, by what to expect of their accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from edgewise.search.budget import Budget
from edgewise.search.costs import Cost
from edgewise.search.decisions import Numbers
from edgewise.search.entrants import SIZES, Entrant
from edgewise.search.pace import Pace
from edgewise.search.survey import ROOM
from edgewise.search.ways import Way

MOST = 8  # that are tried on the user's data
ABOVE = 1  # of these, that need compression to fit
# Standard deviations in points: of what a network comes to on other data, around its prior; and of
# what a short training comes to, around what a long one would.
OWN_DATA, SHORT_TRAINING = 3.0, 3.0


@dataclass(frozen=True)
class Trial:
    """A network at a size of image, to be tried on the data.

    Attributes:
        entrant: the network.
        imgsz: height and width of its input, in pixels.
        prior: the accuracy to expect, in percent, comparable between trials only.
        used: the part of the budget that its cheapest file takes.
        above: whether that is more than there is, and compression has to bring it down.
        least: that file.
        ways: to ship it: of each precision the one that promises to be fastest.
    """

    entrant: Entrant
    imgsz: int
    prior: float
    used: float
    above: bool
    least: Cost
    ways: tuple[Way, ...] = ()

    @property
    def name(self) -> str:
        """Short, for tables and folders."""
        return f"{self.entrant.model}-{self.imgsz}"


def choose_trials(
    entrants: Sequence[Entrant],
    costs: Sequence[Cost],
    budget: Budget,
    images: int,
    pace: Pace | None = None,
) -> list[Trial]:
    """The networks to try, the most promising first.

    Of each network the size that promises most among those that fit in its cheapest file, and of
    those that are a little too dear the most promising, if it promises more than all that fit.
    Those that begin without weights come last.

    Args:
        entrants: that were measured.
        costs: of all their files.
        budget: that is to be met.
        images: that they learn from.
        pace: of training, where it is known: networks that can't learn enough in the time promise
            less.
    """
    by_model = {entrant.model: entrant for entrant in entrants}
    files: dict[tuple[str, int], list[Cost]] = {}
    for cost in costs:
        if cost.spent:
            files.setdefault(cost.candidate.network, []).append(cost)

    def used(cost: Cost) -> float:
        return max(budget.parts(cost.taken).values())

    def prior(entrant: Entrant, imgsz: int) -> float:
        lost = pace.points_lost(entrant, imgsz) if pace else 0.0
        return entrant.prior(imgsz, images) - lost

    trials = []
    for (model, imgsz), own in files.items():
        entrant, least = by_model[model], min(own, key=used)
        if used(least) <= ROOM:
            costly = used(least), used(least) > 1
            ways = fastest_ways(own, budget)
            trials.append(Trial(entrant, imgsz, prior(entrant, imgsz), *costly, least, ways))
    fitting = _best_of_each([trial for trial in trials if not trial.above])
    above = [
        trial
        for trial in _best_of_each([trial for trial in trials if trial.above])
        if all(trial.prior > other.prior for other in fitting)
    ]
    return sorted([*fitting[: MOST - min(ABOVE, len(above))], *above[:ABOVE]], key=_promise)


def fastest_ways(costs: Sequence[Cost], budget: Budget) -> tuple[Way, ...]:
    """Of each precision the fastest way that fits; where none does, the one that is nearest.

    Args:
        costs: of one network's files, which can be run.
        budget: that is to be met.
    """
    best: dict[str, Way] = {}
    for cost in sorted(
        costs,
        key=lambda cost: (max(1.0, *budget.parts(cost.taken).values()), cost.taken.median_ms),
    ):
        best.setdefault(cost.candidate.precision, cost.candidate.way)
    return tuple(best.values())


def sizes_between(
    trials: Sequence[Trial], costs: Sequence[Cost], images: int, pace: Pace
) -> list[tuple[str, int]]:
    """Networks with the size of image that promises most in the time there is, if it is not known
    what they cost at it. They fit there, as they do with the larger images of the trials.

    Args:
        trials: with the sizes that would promise most if there were time.
        costs: that are known.
        images: that they learn from.
        pace: of training.
    """
    known = {cost.candidate.network for cost in costs}
    best = []
    for entrant, largest in ((trial.entrant, trial.imgsz) for trial in trials if not trial.above):
        promise = {
            size: entrant.prior(size, images) - pace.points_lost(entrant, size)
            for size in SIZES
            if size <= largest
        }
        best.append((entrant.model, max(promise, key=promise.__getitem__)))
    return [network for network in best if network not in known]


def _best_of_each(trials: Sequence[Trial]) -> list[Trial]:
    """The most promising of each network, the most promising network first."""
    best: dict[str, Trial] = {}
    for trial in sorted(trials, key=_promise):
        best.setdefault(trial.entrant.model, trial)
    return list(best.values())


def _promise(trial: Trial) -> tuple[bool, float]:
    return not trial.entrant.pretrained, -trial.prior


def promises(trials: Sequence[Trial], reached: Mapping[str, Numbers]) -> dict[str, float]:
    """The accuracies to expect after short trainings, in percent, comparable among these only.

    A few dozen images can't tell networks apart that differ by a few points: the best of three
    would be the luckiest. So each promises what it did before, moved towards what it reached by as
    much as that can tell: the mean of two normal distributions.

    Args:
        trials: to be held against each other.
        reached: the score of each by its name, and the images that it is of.
    """
    scores = [reached[trial.name]["score"] for trial in trials]
    images = max((reached[trial.name].get("images", 1) for trial in trials), default=1)
    right = fmean(scores)
    by_chance = 100**2 * right * (1 - right) / images + SHORT_TRAINING**2
    told = OWN_DATA**2 / (OWN_DATA**2 + by_chance)
    return {
        trial.name: trial.prior + told * (100 * score - trial.prior)
        for trial, score in zip(trials, scores, strict=True)
    }


def likely(trials: Sequence[Trial]) -> Trial:
    """The most promising one that fits as it is, if one does."""
    return next((trial for trial in trials if not trial.above), trials[0])
