"""Sums of separable kernels against NumPy's singular values and least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edgewise.compress import separate_kernel
from edgewise.compress.separate_kernel import Decomposition, decompose

OUT, IN, SIDES = 24, 10, (3, 5)
AREA = SIDES[0] * SIDES[1]


@pytest.fixture
def kernel() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(OUT, IN, *SIDES, dtype=torch.double)


def samples(count: int = 4000, mixed: bool = True) -> Tensor:
    """Numbers under a kernel, (count, K, I): all mixed, or only within each channel."""
    torch.manual_seed(1)
    if mixed:
        mix = torch.randn(AREA * IN, AREA * IN, dtype=torch.double)
        return (torch.randn(count, len(mix), dtype=torch.double) @ mix).reshape(count, AREA, IN)
    own = torch.randn(IN, AREA, AREA, dtype=torch.double)
    return torch.einsum("npi,ipq->nqi", torch.randn(count, AREA, IN, dtype=torch.double), own)


def covariance(numbers: Tensor) -> Tensor:
    found = np.cov(numbers.flatten(1).numpy(), rowvar=False, bias=True)
    return torch.from_numpy(found).reshape(AREA, IN, AREA, IN)


def dense(parts: Decomposition, rank: int) -> Tensor:
    """The kernel that a rank stands for."""
    depthwise, pointwise = parts.at(rank)
    assert depthwise.shape == (rank * IN, 1, *SIDES)
    assert pointwise.shape == (OUT, rank * IN, 1, 1)
    each = pointwise[:, :, :, :] * depthwise.transpose(0, 1)  # (O, R I, kh, kw)
    return each.reshape(OUT, rank, IN, *SIDES).sum(1)


def on(numbers: Tensor, kernel: Tensor) -> np.ndarray:
    """What a kernel gives, (count, O)."""
    return torch.einsum("npi,oip->no", numbers, kernel.flatten(2)).numpy()


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 0, 1), (1, 2, 2)])
def test_full_rank_is_the_convolution(
    kernel: Tensor, known: bool, stride: int, padding: int, dilation: int
) -> None:
    parts = decompose(kernel, covariance(samples()) if known else None)
    assert len(parts.errors) == AREA
    assert parts.errors[-1] < 1e-12 < parts.errors[-2]
    depthwise, pointwise = parts.at(AREA)
    image = torch.randn(2, IN, 13, 17, dtype=torch.double)
    copies = torch.cat([image] * AREA, 1)
    given = F.conv2d(copies, depthwise, None, stride, padding, dilation, groups=AREA * IN)
    wanted = F.conv2d(image, kernel, None, stride, padding, dilation)
    assert (F.conv2d(given, pointwise) - wanted).abs().max() < 1e-9 * wanted.abs().max()


def test_the_error_is_that_of_the_singular_values_left_out(kernel: Tensor) -> None:
    parts = decompose(kernel)
    slices = kernel.flatten(2).transpose(0, 1).numpy()
    energy = np.square(np.linalg.svd(slices, compute_uv=False))  # (I, K), by LAPACK through NumPy
    for rank in range(1, AREA + 1):
        theory = energy[:, rank:].sum() / energy.sum()
        assert parts.errors[rank - 1] == pytest.approx(theory, abs=1e-12)
        lost = (kernel - dense(parts, rank)).square().sum() / kernel.square().sum()
        assert float(lost) == pytest.approx(theory, abs=1e-12)
    assert np.all(np.diff(parts.errors) < 0)


def test_white_inputs_make_no_difference(kernel: Tensor) -> None:
    white = torch.eye(AREA * IN, dtype=torch.double).reshape(AREA, IN, AREA, IN)
    assert decompose(kernel, white).errors == pytest.approx(decompose(kernel).errors, abs=1e-12)
    for never in (0 * white, white):  # an input that never changes tells nothing
        found = dense(decompose(kernel, never), 2)
        assert torch.allclose(found, dense(decompose(kernel), 2), atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_pointwise_kernel_is_that_of_least_squares(
    kernel: Tensor, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(separate_kernel, "RIDGE", 1e-14)
    numbers = samples()
    numbers = numbers - numbers.mean(0)
    parts = decompose(kernel, covariance(numbers))
    depthwise, pointwise = parts.at(rank)
    each = depthwise.reshape(rank, IN, AREA)
    given = torch.einsum("npi,rip->nri", numbers, each).flatten(1).numpy()
    wanted = on(numbers, kernel)
    solved, *_ = np.linalg.lstsq(given, wanted, rcond=None)
    assert np.allclose(pointwise[:, :, 0, 0].T.numpy(), solved, atol=1e-6 * np.abs(solved).max())
    lost = np.square(given @ solved - wanted).sum() / np.square(wanted).sum()
    assert parts.errors[rank - 1] == pytest.approx(lost, abs=1e-9)


def test_independent_channels_lose_the_weighed_singular_values(kernel: Tensor) -> None:
    """With nothing to learn from neighbours, each slice stands for itself: W root(C)."""
    moments = covariance(samples(mixed=False))
    own = np.stack([moments[:, i, :, i].numpy() for i in range(IN)])
    blocks = torch.zeros_like(moments)
    for i in range(IN):
        blocks[:, i, :, i] = moments[:, i, :, i]
    roots = np.linalg.cholesky(own)
    slices = kernel.flatten(2).transpose(0, 1).numpy()
    energy = np.square(np.linalg.svd(slices @ roots, compute_uv=False))
    parts = decompose(kernel, blocks)
    for rank in (1, 4, 9):
        theory = energy[:, rank:].sum() / energy.sum()
        assert parts.errors[rank - 1] == pytest.approx(theory, rel=0.01)  # the ridge


def test_fitted_kernels_lose_less_of_the_output_and_more_of_the_kernel(kernel: Tensor) -> None:
    numbers = samples()
    parts, plain = decompose(kernel, covariance(numbers)), decompose(kernel)
    wanted = on(numbers, kernel)

    def lost(approximate: Tensor) -> float:
        return float((on(numbers, approximate) - wanted).var() / wanted.var())

    for rank in (1, 2, 4):
        fitted, other = dense(parts, rank), dense(plain, rank)
        assert lost(fitted) < 0.95 * lost(other)
        assert (kernel - fitted).norm() > (kernel - other).norm()


def test_fewer_ranks_are_the_first_of_all(kernel: Tensor) -> None:
    moments = covariance(samples())
    for known in (None, moments):
        some, every = decompose(kernel, known, ranks=3), decompose(kernel, known)
        assert some.errors == pytest.approx(every.errors[:3], abs=1e-12)
        assert torch.allclose(dense(some, 2), dense(every, 2), atol=1e-9)


def test_fewer_samples_than_numbers_have_an_answer(kernel: Tensor) -> None:
    numbers = samples(count=40)  # 150 numbers under the kernel
    found = dense(decompose(kernel, covariance(numbers)), 2)
    assert found.isfinite().all()
    assert found.abs().max() < 10 * kernel.abs().max()


def test_a_kernel_of_zeros_loses_nothing() -> None:
    assert decompose(torch.zeros(4, 3, 3, 3)).errors == (0.0,) * 4  # no more ranks than outputs
