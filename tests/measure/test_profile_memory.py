"""Peak memory of activations, by hand."""

from __future__ import annotations

import subprocess
import sys

import pytest
from torch import Tensor, nn
from torch.nn import functional as F

import edgewise
from edgewise.measure.profile_memory import Step, peak


def test_a_buffer_lives_to_its_last_reader() -> None:
    """a -> b -> c, then a + c: while c is made, a, b and c are there."""
    steps = [Step("standard", "a", "b"), Step("standard", "b", "c"), Step("standard", "ac", "d")]
    sizes = {"a": 1, "b": 10, "c": 100, "d": 5}
    assert peak(steps, sizes, "a", "d") == (111, 1)


def test_an_output_lives_to_the_end() -> None:
    steps = [Step("standard", "a", "b"), Step("standard", "a", "c"), Step("standard", "c", "d")]
    sizes = {"a": 1, "b": 10, "c": 100, "d": 1000}
    assert peak(steps, sizes, "a", "bd") == (1110, 2)
    assert peak(steps, sizes, "a", "d") == (1100, 2)


def test_what_nobody_reads_is_gone_after_its_step() -> None:
    steps = [Step("pool", "a", "bi"), Step("standard", "b", "c")]
    assert peak(steps, {"a": 1, "b": 10, "i": 7, "c": 9}, "a", "c") == (19, 1)


def test_an_elementwise_operator_writes_over_its_input() -> None:
    sizes = {"a": 10, "b": 10, "c": 10}
    both = [Step("elementwise", "a", "b"), Step("elementwise", "b", "c")]
    assert peak(both, sizes, "a", "c")[0] == 10
    needed = [Step("elementwise", "a", "b"), Step("elementwise", "ab", "c")]
    assert peak(needed, sizes, "a", "c")[0] == 20
    smaller = [Step("elementwise", "a", "b")]
    assert peak(smaller, {"a": 10, "b": 9}, "a", "b")[0] == 19
    assert peak([Step("pool", "a", "b")], sizes, "a", "b")[0] == 20


def test_weights_are_apart() -> None:
    assert peak([Step("standard", ("a", "w"), "b")], {"a": 1, "b": 2}, "a", "b") == (3, 0)


class Skip(nn.Module):
    """(1, 3, 8, 8) -> wide (1, 12, 8, 8) -> (1, 3, 8, 8), plus the input."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 12, 1)
        self.norm = nn.BatchNorm2d(12)
        self.project = nn.Conv2d(12, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(F.relu(self.norm(self.expand(x))))
        return x + y


def test_a_residual_keeps_its_input() -> None:
    """The input, the wide map and the projection at once; norm and activation need no more."""
    profile = edgewise.profile(Skip(), 8, batch=2)
    assert profile.peak_memory == 2 * 4 * 64 * (3 + 12 + 3)
    assert profile.peak_layer == "project"


def test_a_view_has_no_memory_of_its_own() -> None:
    chain = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Unflatten(1, (3, 8, 8)))
    assert edgewise.profile(chain, 8).peak_memory == 2 * 4 * 3 * 64


def test_the_peak_of_mobilenet_v2() -> None:
    """Its first 6-fold expansion, 96 channels at 112 px, and what the depthwise leaves of it."""
    profile = edgewise.profile("mobilenet_v2", 224)
    assert profile.peak_memory == 4 * 96 * (112**2 + 56**2)
    assert profile.peak_layer == "stages.1.0.depthwise.conv"


def test_in_place_or_not_needs_the_same() -> None:
    def chain(inplace: bool) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace), nn.Conv2d(8, 8, 1))

    peaks = {edgewise.profile(chain(inplace), 8).peak_memory for inplace in (True, False)}
    assert peaks == {4 * 64 * 16}


RUN = """
import resource, sys, edgewise
profile = edgewise.profile(sys.argv[1], 512)
print(profile.params, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_counting_a_huge_network_takes_no_memory() -> None:
    """2.6 GB of weights and 0.2 GB of activations would be more than 50 MB above a small one's."""
    used = {}
    for name in ("mobilenet_v2", "convnext_v2_huge"):
        done = subprocess.run(
            [sys.executable, "-c", RUN, name], capture_output=True, text=True, check=True
        )
        params, kilobytes = map(int, done.stdout.split())
        used[params] = kilobytes / 1e3
    small, huge = used[3_504_872], used[660_289_640]
    assert huge - small < 50
