from __future__ import annotations

import numpy as np
import pytest
from matplotlib.ticker import MaxNLocator

from edgewise.reporting.charts import curve, reliability, ticks
from edgewise.training.history import EpochMetrics


@pytest.mark.parametrize("seed", range(40))
def test_ticks_are_those_of_matplotlib(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.normal() * 10.0 ** rng.integers(-4, 4)
    high = low + rng.random() * 10.0 ** rng.integers(-4, 4)
    locator = MaxNLocator(nbins=5, steps=[1, 2, 5, 10])
    theirs = locator.tick_values(low, high)
    inside = [t for t in theirs if low < t < high]
    assert [t for t in ticks(low, high, 5) if low < t < high] == pytest.approx(inside)


def test_ticks_of_a_constant() -> None:
    assert ticks(0, 0, 5)[0] <= 0 < ticks(0, 0, 5)[-1]
    assert ticks(3, 3, 5)[0] <= 3 < ticks(3, 3, 5)[-1]


def epoch(number: int, phase: str, loss: float) -> EpochMetrics:
    return EpochMetrics(number, phase, 0.1, 0.0, 0.0, loss, 0.5, 0.5, 0.5, 100.0, 1.0)


LOSS = [("val_loss", "validation", "")]


def test_a_curve_goes_from_corner_to_corner() -> None:
    epochs = (epoch(1, "head", 2), epoch(2, "all", 1.5), epoch(3, "all", 0))
    plot = curve(epochs, "Loss", LOSS, "")
    assert plot is not None
    assert [(p.x, p.y) for p in plot.lines[0].points] == [(0, 0), (50, 25), (100, 100)]
    assert plot.shaded == 25  # up to the middle between epochs 1 and 2
    assert plot.alt == "Loss by epoch, 1 to 3: validation ends at 0."


def test_no_two_ticks_read_the_same() -> None:
    plot = curve((epoch(1, "all", 1.3873), epoch(2, "all", 1.3881)), "Loss", LOSS, "")
    assert plot is not None
    assert [tick.text for tick in plot.y_ticks] == [
        "1.3872",
        "1.3874",
        "1.3876",
        "1.3878",
        "1.388",
        "1.3882",
    ]


def test_a_loss_that_overflowed_leaves_a_gap() -> None:
    epochs = (epoch(1, "all", 2), epoch(2, "all", float("nan")), epoch(3, "all", float("inf")))
    plot = curve(epochs, "Loss", LOSS, "")
    assert plot is not None
    assert len(plot.lines[0].points) == 1
    assert curve(epochs[1:], "Loss", LOSS, "") is None


def test_reliability_bars_stand_at_their_accuracy() -> None:
    bins = [
        {"low": i / 4, "high": (i + 1) / 4, "count": n, "confidence": 0.1 + i / 4, "accuracy": a}
        for i, (n, a) in enumerate([(0, 0.0), (10, 0.3), (0, 0.0), (30, 0.9)])
    ]
    plot = reliability(bins)
    assert [(bar.x, round(bar.y)) for bar in plot.bars] == [(37.5, 70), (87.5, 10)]
    assert "of 30 answers at 85.0%, 90.0% were right" in plot.alt
