"""What is counted and timed, and the sentences that are made of it."""

from __future__ import annotations

import time

import pytest
import torch
from scripted import Scripted
from torch import nn
from torch.nn import functional as F

from edgewise.errors import UsageError
from edgewise.layers import Conv2d
from edgewise.lessons import int8
from edgewise.lessons.clock import Plan, Recorded, Stopwatch
from edgewise.lessons.explain import tell
from edgewise.lessons.lesson import Part
from edgewise.lessons.parts import part, peak
from edgewise.lessons.text import notes
from edgewise.lessons.words import bound, compare, ratio
from edgewise.measure.latency import Latency


class Steps:
    """A bar that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.notes.append(note)


def test_a_part_by_hand() -> None:
    # 4 channels of 5 x 5 in, 6 of 3 x 3 out at stride 2, kernels of 3 x 3: 216 weights.
    clock = Scripted(conv=4.0)
    seen = part(clock, "conv", lambda: Conv2d(4, 6, 3, 2), (1, 4, 5, 5))
    assert seen.output == (6, 3, 3)
    assert (seen.params, seen.macs) == (216, 216 * 9)
    assert seen.bytes == 4 * (100 + 216 + 54)
    assert seen.speed == pytest.approx(216 * 9 / 4e-3 / 1e9)
    assert seen.intensity == 216 * 9 / (4 * 370)
    assert clock.asked == ["conv", f"copying {seen.bytes:,} bytes"]


def test_a_function_is_a_part_without_macs() -> None:
    seen = part(Scripted(), "product", lambda: torch.mul, (1, 2, 3, 3), (1, 2, 1, 1), copied=False)
    assert (seen.params, seen.macs, seen.output, seen.copy_ms) == (0, 0, (2, 3, 3), None)
    assert seen.bytes == 4 * (18 + 2 + 18)


def test_what_takes_too_long_is_refused_before_it_is_built() -> None:
    with pytest.raises(UsageError, match="Choose a smaller --size or fewer channels"):
        tell("depthwise-separable", Scripted(), in_chans=10_000, out=10_000, kernel=31, size=1000)


def test_int8_is_refused_before_its_numbers_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "_example", lambda *_: pytest.fail("they were drawn"))
    with pytest.raises(UsageError, match=r"float32 takes 36\.9.G MACs .* Choose a smaller --size"):
        tell("int8", Scripted(), size=1000)


def test_the_ceiling_is_that_of_a_matrix_product() -> None:
    assert peak(Scripted(matrix_product=2.0)) == pytest.approx(512**3 / 2e-3 / 1e9)


def test_each_name_is_timed_once_on_one_thread_in_evaluation_mode() -> None:
    threads, seen = torch.get_num_threads(), []

    class Spy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not x.is_meta:
                seen.append(
                    (torch.get_num_threads(), self.training, torch.is_inference_mode_enabled())
                )
            return F.relu(x)

    torch.set_num_threads(2)
    try:
        steps = Steps()
        stopwatch = Stopwatch(steps, seconds=0.01)
        first = part(stopwatch, "spy", Spy, (1, 2), copied=False)
        calls = len(seen)
        again = part(stopwatch, "spy", Spy, (1, 2), copied=False)
        assert set(seen) == {(1, False, True)}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert again.time is first.time and len(seen) == calls >= 10
    assert steps.notes == ["spy"]
    recorded = Recorded(stopwatch.record())
    assert recorded.time("spy", pytest.fail) == first.time
    assert recorded.machine == stopwatch.machine


def test_a_busy_machine_is_told() -> None:
    stopwatch = Stopwatch(Steps(), seconds=0.05)
    stopwatch.time("sleeping", lambda: lambda: time.sleep(0.01))
    assert stopwatch.share < 0.5
    assert Recorded(stopwatch.record()).share == stopwatch.share
    clock = Scripted()
    assert not any("busy" in note for note in notes(tell("uib", clock)))
    clock.share = 0.4
    assert any("had 40.0% of a core" in note for note in notes(tell("uib", clock)))


def test_timing_does_not_touch_the_users_random_numbers() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    part(Stopwatch(Steps(), seconds=0.01), "conv", lambda: Conv2d(1, 1), (1, 1, 2, 2))
    assert torch.equal(torch.rand(3), expected)


def test_channels_last_is_only_another_order() -> None:
    layouts = []

    class Spy(Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not x.is_meta:
                layouts.append(x.is_contiguous(memory_format=torch.channels_last))
            return super().forward(x)

    for last in (False, True):
        stopwatch = Stopwatch(Steps(), seconds=0.01)
        part(stopwatch, "spy", lambda: Spy(4, 4, 3), (1, 4, 5, 5), channels_last=last)
        assert set(layouts) == {last}
        layouts.clear()


def test_a_plan_runs_nothing_and_knows_all_names() -> None:
    plan, clock = Plan(), Scripted()
    tell("uib", plan)
    tell("uib", clock)
    assert list(plan.names) == list(dict.fromkeys(clock.asked))


def test_comparisons() -> None:
    assert compare(1, 2.5, "time") == "40.0% of the time of"
    assert compare(25, 2, "time") == "12 times the time of"
    assert compare(1.05, 1, "time") == "about as much time as"
    assert (ratio(7.89), ratio(1234)) == ("7.9", "1,234")


def test_the_limit_that_holds() -> None:
    def said(macs: int, milliseconds: float, copy_ms: float = 0.1) -> str:
        """At 10 GMAC/s, where 1 M MACs take 0.1 ms."""
        part = Part("it", (1,), 0, macs, 1000, Latency(milliseconds, 0, 0, 1, 1), copy_ms)
        return bound(part, peak=10).replace("\N{NO-BREAK SPACE}", " ")

    sums = said(1_000_000, 0.15, copy_ms=0.05)
    assert "its limit is the sums. It took 0.15 ms, 1.5 times that." in sums
    assert sums.startswith("It: 1,000 MACs for each byte")
    moving = said(1_000_000, 2, copy_ms=0.5)
    assert "its limit is moving the data. It took 2 ms, 4.0 times that; the rest is" in moving
    assert "about that" in said(1_000_000, 0.101)
    assert "It took 0.05 ms, less than that; why isn't known." in said(1_000_000, 0.05)
    assert "It took 0.05 ms, less than that: it goes over the same 4 bytes again" in said(0, 0.05)
    assert said(0, 0.2).startswith("It counts no MACs, but only copying its bytes takes 0.1 ms")
