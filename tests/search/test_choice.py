"""What is tried, by hand."""

from __future__ import annotations

from dataclasses import replace
from math import log2

import numpy as np
import pytest

from edgewise.search.budget import Budget, Spent
from edgewise.search.choice import (
    OWN_DATA,
    SHORT_TRAINING,
    Trial,
    choose_trials,
    promises,
    sizes_between,
)
from edgewise.search.costs import Candidate, Cost
from edgewise.search.entrants import Entrant
from edgewise.search.pace import LOST_PER_HALVING, LOST_PER_LATE_HALVING, Pace
from edgewise.search.survey import worthwhile

BUDGET = Budget.parse("latency=5ms")


def cost(model: str, imgsz: int, ms: float, precision: str = "fp32", memory: int = 0) -> Cost:
    spent = Spent(ms, 1.1 * ms, 1.2 * ms, 1_000_000, memory)
    return Cost(Candidate(model, imgsz, precision, "onnxruntime"), spent)


def entrant(model: str, top1: float, pretrained: bool = True) -> Entrant:
    return Entrant(model, top1, 224, 1, pretrained)


def names(trials: list[Trial]) -> list[str]:
    return [trial.name for trial in trials]


def test_the_largest_size_that_fits_in_any_file() -> None:
    costs = [
        cost("a", 64, 1),
        cost("a", 128, 6),
        cost("a", 128, 4.9, "int8"),
        cost("a", 160, 8),
        cost("a", 160, 7, "int8"),
    ]
    (trial,) = choose_trials([entrant("a", 70)], costs, BUDGET, 1000)
    assert trial.name == "a-128"
    assert trial.least.candidate.precision == "int8"
    assert trial.used == 4.9 / 5
    assert not trial.above


def test_one_a_little_above_if_it_promises_more() -> None:
    costs = [cost("a", 128, 4), cost("b", 128, 6), cost("c", 128, 6.4), cost("d", 128, 6.6)]
    some = [entrant("a", 70), entrant("b", 72), entrant("c", 74), entrant("d", 90)]
    trials = choose_trials(some, costs, BUDGET, 1000)
    assert names(trials) == ["c-128", "a-128"]
    assert [trial.above for trial in trials] == [True, False]
    worse = [entrant("a", 70), entrant("b", 69), entrant("c", 68), entrant("d", 90)]
    assert names(choose_trials(worse, costs, BUDGET, 1000)) == ["a-128"]


def test_with_little_time_one_that_learns_faster() -> None:
    """At 128 px an epoch lasts four times as long as at 64, and so does what files take of it."""
    costs = [cost("a", 64, 1), cost("a", 128, 4)]
    one = replace(entrant("a", 70), macs=224**2 * 1000)
    pace = Pace(0.0, 6 / (64**2 * 1000), steps=10, trained=500, tested=0, minutes=134 / 60)
    assert pace.files_minutes(one, 64) == pytest.approx((8 + 6) / 60)
    assert pace.files_minutes(one, 128) == pytest.approx((8 + 24) / 60)
    # 2 and 1.7 minutes are left; rounds have no time, so 0.8 of it are for the training.
    assert pace.steps_of(one, 64) == pytest.approx(10 * 0.8 * 120 / 6)
    assert pace.steps_of(one, 128) == pytest.approx(10 * 0.8 * 102 / 24)
    assert pace.points_lost(one, 64) == pytest.approx(LOST_PER_LATE_HALVING * log2(200 / 160))
    lost = LOST_PER_LATE_HALVING + LOST_PER_HALVING * log2(100 / 34)
    assert pace.points_lost(one, 128) == pytest.approx(lost)
    assert names(choose_trials([one], costs, BUDGET, 1000, pace)) == ["a-64"]
    assert names(choose_trials([one], costs, BUDGET, 1000, replace(pace, minutes=20))) == ["a-128"]
    assert replace(pace, minutes=0.1).steps_of(one, 64) == 0


def test_with_little_time_sizes_between_are_worth_a_look() -> None:
    """The survey knows the ends, as all sizes fit: 64 px promises less than 96 would."""
    costs = [cost("a", 64, 1), cost("a", 224, 4), cost("b", 64, 1), cost("b", 224, 6)]
    some = [replace(entrant(name, 70), macs=224**2 * 1000) for name in "ab"]
    trials = choose_trials(some, costs, BUDGET, 1000)
    assert names(trials) == ["a-224", "b-64"]
    pace = Pace(0.0, 6 / (64**2 * 1000), steps=10, trained=500, tested=0, minutes=134 / 60)
    lost = {size: some[0].prior(64, 1000) - some[0].prior(size, 1000) for size in (96, 128)}
    gained = {size: -lost[size] - pace.points_lost(some[0], size) for size in (96, 128)}
    assert gained[96] > max(gained[128], -pace.points_lost(some[0], 64))
    assert sizes_between(trials, costs, 1000, pace) == [("a", 96)]  # b fits at 64 px only
    assert sizes_between(trials, [*costs, cost("a", 96, 2)], 1000, pace) == []
    assert sizes_between(trials, costs, 1000, replace(pace, minutes=200)) == []


def test_from_scratch_comes_last_whatever_it_promises() -> None:
    costs = [cost("a", 128, 4), cost("b", 128, 4)]
    some = [entrant("a", 50), entrant("b", 90, pretrained=False)]
    assert names(choose_trials(some, costs, BUDGET, 1000)) == ["a-128", "b-128"]


def test_at_most_eight() -> None:
    some = [entrant(f"n{i}", 60 + i) for i in range(12)]
    costs = [cost(one.model, 128, 4 if i < 10 else 6) for i, one in enumerate(some)]
    trials = choose_trials(some, costs, BUDGET, 1000)
    assert names(trials) == [f"n{i}-128" for i in (11, 9, 8, 7, 6, 5, 4, 3)]


def test_what_failed_is_no_candidate() -> None:
    failed = Cost(Candidate("a", 64, "fp32", "onnxruntime"), None, failure="crashed")
    assert choose_trials([entrant("a", 70)], [failed], BUDGET, 1000) == []


def test_the_sizes_around_the_budget_are_worth_measuring() -> None:
    # 1 us a pixel: 64 -> 4.1 ms, 96 -> 9.2, 128 -> 16.4, 160 -> 25.6, 192 -> 36.9, 224 -> 50.2
    ends = [cost("a", 64, 4.096), cost("a", 224, 50.176)]
    assert worthwhile(ends, Budget.parse("latency=17ms")) == [128, 160]
    assert worthwhile(ends, Budget.parse("latency=5ms")) == [96]
    assert worthwhile(ends, Budget.parse("latency=60ms")) == []
    assert worthwhile(ends, Budget.parse("size=2MB")) == []
    both = [*ends, cost("a", 64, 2.048, "int8"), cost("a", 224, 25.088, "int8")]
    assert worthwhile(both, Budget.parse("latency=17ms")) == [128, 160, 192]


def test_where_memory_is_short_all_sizes_between_are_worth_measuring() -> None:
    """Those that time allows: it grows in steps, so that the ends don't tell which fit."""
    ends = [cost("a", 64, 4.096, memory=10**6), cost("a", 224, 50.176, memory=5 * 10**6)]
    assert worthwhile(ends, Budget.parse("memory=4MB")) == [96, 128, 160, 192]
    assert worthwhile(ends, Budget.parse("latency=60ms,memory=4MB")) == [96, 128, 160, 192]
    assert worthwhile(ends, Budget.parse("latency=17ms,memory=4MB")) == [96, 128, 160]
    assert worthwhile(ends, Budget.parse("latency=17ms,memory=5MB")) == [128, 160]
    assert worthwhile(ends, Budget.parse("memory=5MB")) == []
    assert worthwhile(ends, Budget.parse("memory=900KB")) == []


def trials_of(priors: list[float]) -> list[Trial]:
    return [
        Trial(entrant(name, prior), 128, prior, 0.9, False, cost(name, 128, 4))
        for name, prior in zip("abc", priors, strict=False)
    ]


def test_a_few_images_more_are_luck_and_a_few_hundred_are_not() -> None:
    """41 of 70 right for 37; and the same of a hundred times as many."""
    better, worse = trials_of([74.0, 72.0])
    for images, first in ((70, better), (7_000, worse)):
        reached = {
            trial.name: {"score": right / 70, "images": images}
            for trial, right in ((better, 37), (worse, 41))
        }
        promise = promises([better, worse], reached)
        assert max(promise, key=promise.__getitem__) == first.name, images
    nowhere = {better.name: {"score": 0.1, "images": 70}, worse.name: {"score": 0.6, "images": 70}}
    promise = promises([better, worse], nowhere)
    assert promise[worse.name] > promise[better.name]


@pytest.mark.parametrize("images", [40, 300, 10_000])
def test_promises_choose_better_than_the_score_or_the_prior_alone(images: int) -> None:
    """Thousands of made-up searches, whose networks are what is taken for granted of them."""
    random = np.random.default_rng(0)
    came_to: dict[str, list[float]] = {"promise": [], "score": [], "prior": []}
    for _ in range(3_000):
        trials = trials_of(list(70 + 2 * random.standard_normal(3)))
        true = {t.name: t.prior + OWN_DATA * random.standard_normal() for t in trials}
        reached = {}
        for name, accuracy in true.items():
            chance = (accuracy - 15 + SHORT_TRAINING * random.standard_normal()) / 100
            reached[name] = {"score": random.binomial(images, chance) / images, "images": images}
        promise = promises(trials, reached)
        came_to["promise"].append(true[max(promise, key=promise.__getitem__)])
        came_to["score"].append(true[max(reached, key=lambda name: reached[name]["score"])])
        came_to["prior"].append(true[max(trials, key=lambda trial: trial.prior).name])
    means = {way: float(np.mean(values)) for way, values in came_to.items()}
    assert means["promise"] > max(means["score"], means["prior"]) + 0.1, means
