"""What too short a training costs, and how long files take, beside what was measured."""

from __future__ import annotations

from statistics import mean

import pytest

from edgewise.search.entrants import Entrant
from edgewise.search.pace import ENOUGH_STEPS, Pace, files_seconds

# Test accuracy in percent after so many steps: docs/run.md, "What too little time costs".
MEASURED = {
    "efficientnet_lite0 digits": {10: 33.9, 20: 55.0, 40: 64.7, 80: 91.2, 160: 96.2},
    "efficientnet_lite0 emoji": {10: 28.9, 20: 35.4, 40: 47.2, 80: 57.4, 160: 57.2},
    "mobilenet_v2 digits": {10: 61.2, 20: 59.3, 40: 90.2, 80: 94.8},
}


def test_points_lost_are_those_that_were_measured() -> None:
    one = Entrant("one", 70.0, 224, 1_000, pretrained=True)
    for steps in (10, 20, 40, 80):
        pace = Pace(epoch_seconds=60.0, macs=1_000, steps=steps, minutes=1.0)
        lost = mean(max(seen.values()) - seen[steps] for seen in MEASURED.values())
        assert pace.points_lost(one, 224) == pytest.approx(lost, abs=6), steps
    assert Pace(60.0, 1_000, ENOUGH_STEPS, 1.0).points_lost(one, 224) == 0


@pytest.mark.parametrize(("epoch_seconds", "took"), [(2.47, 34.7), (10.6, 53.4), (6.75, 33.5)])
def test_files_take_about_as_long_as_was_measured(epoch_seconds: float, took: float) -> None:
    """EfficientNet-Lite0 at 64 and 192 px, MobileNetV2 at 128; the test of 60 images included."""
    assert files_seconds(epoch_seconds, 300, 60) == pytest.approx(took, rel=0.5)
