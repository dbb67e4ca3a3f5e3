"""What too short a training costs, and how long files take, beside what was measured."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import pytest
from made_search import all_decisions

from edgewise.search.entrants import Entrant
from edgewise.search.pace import (
    DISTILLING,
    ENOUGH_STEPS,
    FEW_STEPS,
    FIRST_ROUND,
    LEAST_STEPS,
    LEAST_TRIAL,
    LOWERING,
    NARROWING,
    SECOND_ROUND,
    SURVIVORS,
    Pace,
    long_share,
    macs_at,
    per_epoch,
    rounds_in,
    steps_in,
    trials_in,
)

ONE = Entrant("one", 70.0, 224, 1_000, pretrained=True)

# Test accuracy in percent after so many steps: docs/run.md, "What too little time costs".
MEASURED = {
    "efficientnet_lite0 digits": {10: 33.9, 20: 55.0, 40: 64.7, 80: 91.2, 160: 96.2},
    "efficientnet_lite0 emoji": {10: 28.9, 20: 35.4, 40: 47.2, 80: 57.4, 160: 57.2},
    "mobilenet_v2 digits": {10: 61.2, 20: 59.3, 40: 90.2, 80: 94.8},
}


def pace_of(steps: float) -> Pace:
    """One that leaves time for so many steps of a network of 1,000 MACs."""
    pace = Pace(0.0, 0.06, steps=1, trained=700, tested=0, minutes=60.0)
    return replace(pace, seconds_per_mac=0.06 * pace.steps_of(ONE, 224) / steps)


def test_points_lost_are_those_that_were_measured() -> None:
    for steps in (10, 20, 40, 80):
        lost = mean(max(seen.values()) - seen[steps] for seen in MEASURED.values())
        assert pace_of(steps).points_lost(ONE, 224) == pytest.approx(lost, abs=6), steps
    assert pace_of(ENOUGH_STEPS + 1).points_lost(ONE, 224) == 0


def test_there_is_time_for_two_where_half_of_it_costs_less_than_more_images_bring() -> None:
    """Where half is enough steps, and as many epochs as a training has by default."""
    few = Pace(0.0, 0.006, steps=12.5, trained=300, tested=0, minutes=60.0)  # 6 s an epoch
    file = 2 / 3 * few.files_minutes(ONE, 224)  # that the second makes
    assert LEAST_STEPS / 12.5 == 12
    assert few.each_of_two(ONE, 224, minutes=file + 2 * 1.21) == pytest.approx(1.21)
    assert few.each_of_two(ONE, 224, minutes=file + 2 * 1.19) == 0
    many = replace(few, steps=1_000)
    assert many.each_of_two(ONE, 224, minutes=file + 2 * 1.01) == pytest.approx(1.01)
    assert many.each_of_two(ONE, 224, minutes=file + 2 * 0.99) == 0
    gains = mean((2.4, 1.6, 0.1))  # docs/run.md, "The images that it was chosen by"
    assert pace_of(LEAST_STEPS).points_lost(ONE, 224) == pytest.approx(gains, abs=0.2)


def test_steps_of_half_the_pictures_are_worth_what_was_measured() -> None:
    """Digits after 13 epochs of 300: 96.8 % in batches of 32 (two seeds), 98.1 in those of 16."""
    assert steps_in(320, 32) == 10
    assert steps_in(300, 16) == pytest.approx(19 * 0.5**0.5)
    whole, half = (pace_of(13 * steps_in(300, batch)) for batch in (32, 16))
    gained = whole.points_lost(ONE, 224) - half.points_lost(ONE, 224)
    assert gained == pytest.approx(98.1 - 96.8, abs=0.5)


def test_epochs_are_those_that_were_measured() -> None:
    """EfficientNet-Lite0 at 64 and at 192 px: 2.47 and 10.6 s; MobileNetV2 at 128 px: 6.75 s."""
    lite0 = Entrant("efficientnet_lite0", 75.0, 224, 385_000_000, pretrained=True)
    v2 = Entrant("mobilenet_v2", 72.0, 224, 300_000_000, pretrained=True)
    fixed, slope = per_epoch(lite0, {64: 2.47, 192: 10.6})
    assert 1 < fixed < 2.47
    assert fixed + slope * macs_at(lite0, 192) == pytest.approx(10.6)
    assert fixed + slope * macs_at(lite0, 64) == pytest.approx(2.47)
    assert fixed + slope * macs_at(v2, 128) == pytest.approx(6.75, rel=0.4)
    assert per_epoch(lite0, {64: 3.0, 128: 2.9}) == (3.0, 0.0)  # as bound by something else


@pytest.mark.parametrize(
    ("fixed", "epoch_seconds", "tested", "took"),
    [
        (1.95, 2.34, 1060, 16.6),  # MobileNetV3-Small at 96 px and half of the width
        (2.95, 4.51, 1060, 23.8),  # MobileNetV2 at 96
        (4.35, 9.42, 1060, 32.6),  # EfficientNet-Lite0 at 160, with the fixed part of Lite2
        (4.32, 9.68, 1060, 34.8),  # the same once more
        (2.98, 12.1, 1060, 32.8),  # and a third time
        (4.60, 11.4, 1060, 39.0),  # at 192
    ],
)
def test_files_take_about_as_long_as_was_measured(
    fixed: float, epoch_seconds: float, tested: int, took: float
) -> None:
    pace = Pace(fixed, (epoch_seconds - fixed) / ONE.macs, 10, 300, tested, minutes=3.0)
    assert 60 * pace.files_minutes(ONE, 224) == pytest.approx(took, rel=0.21)


def test_more_files_take_longer() -> None:
    """As many as the survey has precisions, whatever their formats and what runs them."""
    made = {step: {"seconds": 30.0, **numbers} for step, numbers in all_decisions().items()}
    two = Pace.read(made, minutes=10.0)
    assert two.files == 2  # fp32 and int8, each in two runtimes
    candidate = made["survey"]["costs"][0]["candidate"]
    for precision in ("fp16", "bf16", "int8"):
        other = {**candidate, "format": "litert", "precision": precision, "runtime": "litert"}
        made["survey"]["costs"].append({**made["survey"]["costs"][0], "candidate": other})
    four = Pace.read(made, minutes=10.0)
    assert four.files_minutes(ONE, 224) == pytest.approx(2 * two.files_minutes(ONE, 224))
    one = replace(two, files=1)
    assert one.files_minutes(ONE, 224) == two.files_minutes(ONE, 224)


def test_all_of_the_time_is_shared() -> None:
    """Long or short: with what smaller images may need there is a little left, and no more."""
    for minutes in (1.0, 4.0, 6.0, 11.0, 60.0):
        shares = {1: FIRST_ROUND, 2: SECOND_ROUND}
        for trials in (8, 3, 1):
            rounds = rounds_in(minutes, trials=trials)
            tried = sum(shares[number] for number in rounds)
            helped = DISTILLING + NARROWING if 2 in rounds else 0
            assert 0.9 < tried + long_share(rounds) + helped + LOWERING < 1, minutes
            assert 0.9 < tried + long_share(rounds, better=False) + LOWERING < 1, minutes
            assert 0.9 < tried + long_share(rounds, tight=False) + helped < 1, minutes
            assert 0.9 < tried + long_share(rounds, better=False, tight=False) < 1, minutes


def test_rounds_are_for_more_than_one_and_more_than_go_on() -> None:
    assert [trials_in(minutes, FIRST_ROUND) for minutes in (1, 4, 5.1, 60)] == [0, 0, 2, 24]
    found = [rounds_in(minutes) for minutes in (3.3, 3.4, 9.9, 10)]
    assert found == [set(), {2}, {2}, {1, 2}]  # three that all go on to the second need no first
    assert [rounds_in(60, trials=trials) for trials in (1, 2, 3, 4)] == [set(), {2}, {2}, {1, 2}]


def test_a_short_training_has_enough_steps_to_tell_something() -> None:
    """300 emoji, 10 s an epoch of 12.5 steps: 8 epochs each, for which 10 minutes are too few."""
    emoji = Pace(0.0, 0.01, steps=12.5, trained=300, tested=600, minutes=10.0)
    assert emoji.least_trial(ONE, 224) == pytest.approx(FEW_STEPS / 12.5 * 10 / 60)
    minutes = 10.0 - emoji.files_minutes(ONE, 224)
    share = long_share(())
    assert emoji.steps_of(ONE, 224) == pytest.approx(12.5 * 60 * minutes * share / 10)
    assert rounds_in(minutes, emoji.least_trial(ONE, 224)) == set()
    assert rounds_in(30.0, emoji.least_trial(ONE, 224)) == {2}
    many = replace(emoji, steps=1_500)
    assert many.least_trial(ONE, 224) == LEAST_TRIAL


def test_a_network_that_is_tried_alone_learns_for_as_long_as_it_will_be_given() -> None:
    """And two or three for as long as there is without a first round."""
    pace = Pace(0.0, 0.0006, steps=1, trained=700, tested=0, minutes=60.0)
    minutes = pace.minutes - pace.files_minutes(ONE, 224)
    for trials, rounds in ((8, {1, 2}), (3, {2}), (1, ())):
        own = replace(pace, trials=trials)
        steps = 100 * minutes * long_share(rounds)  # a hundred a minute
        assert own.steps_of(ONE, 224) == pytest.approx(steps)
        enough = replace(own, minutes=own.minutes_for(ONE, 224))
        assert ENOUGH_STEPS - 1e-9 <= enough.steps_of(ONE, 224) < ENOUGH_STEPS + 1


def test_it_is_read_from_the_log() -> None:
    made = {step: {"seconds": 30.0, **numbers} for step, numbers in all_decisions().items()}
    pace = Pace.read(made, minutes=10.0)
    assert pace.minutes == pytest.approx(10 - 5 * 0.5)  # device, doctor, survey, drift and pace
    assert (pace.steps, pace.trained, pace.tested) == (14, 422, 83 + 95)
    assert pace.trials > SURVIVORS
    made["doctor"]["read_seconds"] = 90.0
    made["pace"]["trials"] = 1
    later = Pace.read(made, minutes=10.0)
    assert (later.minutes, later.trials) == (pytest.approx(10 - 5 * 0.5 - 1.5), 1)
    lite4 = next(e for e in made["survey"]["entrants"] if e["model"] == "efficientnet_lite4")
    at_128 = pace.fixed + pace.seconds_per_mac * macs_at(Entrant(**lite4), 128)
    assert at_128 == pytest.approx(12.5)


def test_with_the_time_that_it_asks_for_a_network_loses_nothing() -> None:
    pace = Pace(1.0, 0.06, steps=10, trained=700, tested=100, minutes=2.0)
    assert pace.points_lost(ONE, 224) > 10
    enough = replace(pace, minutes=pace.minutes_for(ONE, 224))
    assert enough.steps_of(ONE, 224) >= ENOUGH_STEPS - 1e-9
    assert replace(pace, minutes=0.3 * enough.minutes).steps_of(ONE, 224) < ENOUGH_STEPS
