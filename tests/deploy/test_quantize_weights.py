"""Weights in int8, held to nearest rounding, to all ways of rounding and to sums by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from int8_graphs import answers, batches, exported
from numpy.typing import NDArray
from torch import nn
from without_vnni import EMULATOR, answer_without_vnni, answers_of_runtimes

from edgewise.deploy import quantize_weights
from edgewise.deploy.quantize import calibrate
from edgewise.deploy.quantize_weights import round_together

FREE = torch.empty(0, 1, dtype=torch.long)  # no term meets another


def test_weights_of_independent_inputs_are_rounded_to_the_nearest() -> None:
    rows = torch.randn(2, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scales = rows.abs().amax(2) / 127
    variances = torch.rand(2, 12, dtype=torch.float64) + 0.1
    found = round_together(rows, scales, torch.diag_embed(variances), 127, FREE.expand(0, 12))
    assert torch.equal(found, (rows / scales[:, :, None]).round())


def test_weights_of_inputs_that_go_together_make_up_for_each_other() -> None:
    random = np.random.default_rng(1)
    mixed = random.normal(size=(4, 4)) * [1.0, 0.2, 0.2, 0.2]
    covariance = torch.from_numpy(mixed @ mixed.T + 0.01 * np.eye(4))[None]
    rows = torch.from_numpy(random.normal(size=(1, 40, 4)))
    scales = rows.abs().amax(2) / 7
    low = (rows[0] / scales[0, :, None]).floor()

    def error(integers: torch.Tensor) -> torch.Tensor:
        lost = rows[0] - integers * scales[0, :, None]
        return torch.einsum("oi,ij,oj->o", lost, covariance[0], lost)

    ways = [low + torch.tensor(up) for up in itertools.product((0, 1), repeat=4)]
    best = torch.stack([error(way) for way in ways]).min(0).values.sum()
    nearest = error((rows[0] / scales[0, :, None]).round()).sum()
    found = error(round_together(rows, scales, covariance, 7, FREE.expand(0, 4))[0]).sum()
    assert found < 0.8 * nearest
    assert found < 2 * best  # of all 16 ways to round a row up and down


def test_the_bias_takes_up_the_mean_of_what_rounding_loses() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, 1)
    x = torch.rand(8, 8, 12, 12) + 2.0  # a mean that shows
    proto = exported(conv, x)
    fed = batches(x.numpy())
    calibrated = calibrate(proto, fed)
    graph = calibrated.quantized()
    error = answers(graph, x.numpy()) - answers(proto, x.numpy())
    assert np.abs(error).mean() > 5 * np.abs(error.mean((0, 2, 3))).max()


def test_inputs_that_hardly_differ_from_a_large_mean_are_no_error() -> None:
    """Their covariance is lost in rounding, and has no Cholesky factor."""
    torch.manual_seed(0)
    conv = nn.Conv2d(96, 16, 1)
    x = 1e3 * torch.rand(96)[:, None, None] + 1e-2 * torch.randn(8, 96, 6, 6)
    proto = exported(conv, x)
    expected = answers(proto, x.numpy())
    found = answers(calibrate(proto, batches(x.numpy())).quantized(), x.numpy())
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_two_weights_that_meet_in_16_bits_are_rounded_as_well_as_their_bound_allows() -> None:
    """Held to a search of all pairs of integers whose sum is bound."""
    rows = torch.tensor([[[100.4, 90.3], [-120.2, -60.4], [100.0, -90.0], [60.2, 40.3]]]).double()
    covariance = torch.tensor([[[1.0, 0.6], [0.6, 0.9]]]).double()
    scales = torch.ones(1, 4).double()
    found = round_together(rows, scales, covariance, 127, torch.tensor([[1, 0]]))[0]
    whole = torch.arange(-127, 128).double()
    every = torch.cartesian_prod(whole, whole)
    bound = every[every.sum(1).abs() <= 128]

    def error(weights: torch.Tensor, integers: torch.Tensor) -> torch.Tensor:
        lost = weights - integers
        return torch.einsum("...i,ij,...j->...", lost, covariance[0], lost)

    for row, integers in zip(rows[0], found, strict=True):
        assert integers.sum().abs() <= 128
        assert error(row, integers) <= 1.7 * error(row, bound).min() + 0.3
    assert found[2:].tolist() == [[100, -90], [60, 40]]


def test_a_weight_that_meets_two_others_is_bound_by_both() -> None:
    rows = torch.tensor([[[90.0, 100.0, 80.0], [80.0, 100.0, 90.0]]]).double()
    partners = torch.tensor([[1, 0, 3], [3, 2, 1]])  # 3: none
    ones = torch.ones(1, 2).double()
    found = round_together(rows, ones, torch.eye(3).double()[None], 127, partners)[0]
    assert found.tolist() == [[90, 38, 80], [80, 48, 80]]


KINDS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "dense": (lambda: nn.Conv2d(32, 24, 1), 12),
    "dense-odd": (lambda: nn.Conv2d(7, 16, 3, padding=1), 12),
    "pointwise-odd": (lambda: nn.Conv2d(7, 16, 1), 12),
    "stem": (lambda: nn.Conv2d(3, 16, 3, 2, 1), 12),
    "stem-large": (lambda: nn.Conv2d(3, 32, 3, 2, 1), 64),
    "patches": (lambda: nn.Conv2d(3, 16, 4, 4), 12),
    "row": (lambda: nn.Conv2d(3, 16, (1, 5)), 12),
    "wide": (lambda: nn.Conv2d(64, 64, 3, padding=1), 7),
    "grouped": (lambda: nn.Conv2d(16, 16, 3, padding=1, groups=2), 7),
    "depthwise": (lambda: nn.Conv2d(24, 24, 5, padding=2, groups=24), 12),
    "one-place": (lambda: nn.Conv2d(32, 16, 1), 1),
    "matrix": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(40, 10)), 0),
    "matrix-odd": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(41, 10)), 0),
}
ODD = ("dense-odd", "pointwise-odd", "stem", "patches", "row")  # input channels
ROUNDING = 0.01  # of the largest answer: a byte or two


def loud(kind: str, mixed: bool) -> tuple[Any, NDArray[np.float32]]:
    """A graph in int8 whose sums are large, and inputs for it.

    Args:
        kind: of its layer. Behind it is one that changes nothing: else a runtime may compute a
            convolution in floats, for no bytes come out of it.
        mixed: whether there are weights below 0.
    """
    torch.manual_seed(0)
    make, side = KINDS[kind]
    module = make()
    with torch.no_grad():
        for parameter in module.parameters():
            if mixed and parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter))
            else:
                parameter.abs_().add_(0.1)
            if parameter.ndim > 1:  # of an odd number of channels the last one has no other
                parameter[:, -1].mul_(2)
    first = next(module.parameters())
    channels = first.shape[1] * getattr(module, "groups", 1)
    x = torch.rand(8, channels, side, side) if side else torch.rand(8, channels)
    x[1:3] = 1.0
    if side:
        same = nn.Conv2d(first.shape[0], first.shape[0], 1, groups=first.shape[0])
        with torch.no_grad():
            same.weight.fill_(1.0)
            same.bias.zero_()  # type: ignore[union-attr]
        module = nn.Sequential(module, same)
    proto = exported(module, x)
    return calibrate(proto, batches(x.numpy())).quantized(), x.numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_runtimes_answer_as_the_graph_is_written(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    graph, x = loud(kind, mixed=False)
    onnx.save(graph, tmp_path / f"{kind}.onnx")
    np.save(tmp_path / f"{kind}.npy", x)
    plain = answers(graph, x, plain=True)
    for found in answers_of_runtimes(tmp_path / f"{kind}.onnx"):
        assert np.abs(found - plain).max() < ROUNDING * np.abs(plain).max()


@pytest.mark.slow
@pytest.mark.skipif(not EMULATOR, reason="needs qemu-x86_64 (Debian: apt-get install qemu-user)")
def test_no_sum_of_two_products_leaves_16_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an emulated processor that has no VNNI; without the bounds they do."""
    pytest.importorskip("openvino")
    layers = [*itertools.product(KINDS, [False]), *itertools.product(ODD, [True])]
    bound = {f"{kind}-{mixed}": loud(kind, mixed) for kind, mixed in layers}
    monkeypatch.setattr(
        quantize_weights,
        "partners_of",
        lambda channels, places: torch.empty(0, channels * places, dtype=torch.long),
    )
    layers = [("dense", False), ("stem", True), ("matrix", False)]
    free = {f"{kind}-{mixed}-free": loud(kind, mixed) for kind, mixed in layers}
    for name, (graph, x) in (bound | free).items():
        onnx.save(graph, tmp_path / f"{name}.onnx")
        np.save(tmp_path / f"{name}.npy", x)
    answer_without_vnni(tmp_path)  # at once: an emulated interpreter is slow to start

    def errors(name: str, graph: Any, x: NDArray[np.float32]) -> list[float]:
        expected, told = answers(graph, x, plain=True), np.load(tmp_path / f"{name}.npz").values()
        return [float(np.abs(one - expected).max() / np.abs(expected).max()) for one in told]

    within = {name: errors(name, *made) for name, made in bound.items()}
    assert {name: both for name, both in within.items() if max(both) >= ROUNDING} == {}
    assert all(min(errors(name, *made)) > ROUNDING for name, made in free.items())
