"""Which ranks are worth it, against trying all of them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from edgewise.compress.separate_ranks import DenseLayer, choose_ranks, saving_ranks
from edgewise.errors import UsageError


def layer(errors: tuple[float, ...], out: int = 32, macs: int = 288_000) -> DenseLayer:
    return DenseLayer("conv", (3, 3), 8, out, macs, errors)


def random_errors(seed: int, ranks: int) -> tuple[float, ...]:
    energy = np.sort(np.random.default_rng(seed).exponential(size=9))[::-1] ** 2
    return tuple(1 - np.cumsum(energy / energy.sum()))[:ranks]


@pytest.mark.parametrize("kernel", [(2, 2), (3, 3), (1, 7), (5, 5)])
@pytest.mark.parametrize("out", [1, 2, 8, 64, 1000])
def test_saving_ranks_are_those_that_cost_less(kernel: tuple[int, int], out: int) -> None:
    area = math.prod(kernel)
    saving = [rank for rank in range(1, area + 1) if rank * (area + out) < area * out]
    assert saving_ranks(kernel, out) == max(saving, default=0)


def test_costs_are_those_of_the_two_convolutions() -> None:
    pixels, dense = 14 * 14, layer((0.5, 0.2), out=32, macs=14 * 14 * 8 * 32 * 9)
    assert dense.macs_at(0) == dense.macs
    assert dense.macs_at(2) == pixels * 2 * 8 * 9 + pixels * 2 * 8 * 32
    assert [dense.error_at(rank) for rank in (0, 1, 2)] == [0, 0.5, 0.2]


@pytest.mark.parametrize("part", [0.2, 0.35, 0.5, 0.62])
@pytest.mark.parametrize("seed", range(4))
def test_equal_layers_get_the_best_ranks_of_all(seed: int, part: float) -> None:
    """Where every step costs the same, the best step each time is the best of all choices."""
    layers = [layer(random_errors(10 * seed + i, 6)) for i in range(3)]
    total = sum(one.macs for one in layers)
    ranks = choose_ranks(layers, 0, part)

    def kept(choice: tuple[int, ...]) -> float:
        pairs = zip(layers, choice, strict=True)
        return math.prod(1 - one.error_at(rank) for one, rank in pairs)

    def cost(choice: tuple[int, ...]) -> int:
        return sum(one.macs_at(rank) for one, rank in zip(layers, choice, strict=True))

    choices = itertools.product(range(1, 7), repeat=3)
    best = max((c for c in choices if cost(c) <= part * total), key=kept)
    assert cost(ranks) <= part * total
    assert kept(ranks) == pytest.approx(kept(best))


def test_unequal_layers_come_near_the_best_of_all() -> None:
    sizes = ((8, 1), (32, 3), (128, 2))
    layers = [
        layer(random_errors(i, saving_ranks((3, 3), out)), out, 8 * 9 * out * 10_000 * much)
        for i, (out, much) in enumerate(sizes)
    ]
    total, others = sum(one.macs for one in layers), 1_000_000
    for part in (0.3, 0.5, 0.7):
        limit = int(part * (total + others)) - others
        ranks = choose_ranks(layers, others, part)
        every = itertools.product(*(range(len(one.errors) + 1) for one in layers))
        found = {}
        for choice in every:
            pairs = list(zip(layers, choice, strict=True))
            if sum(one.macs_at(rank) for one, rank in pairs) <= limit:
                found[choice] = math.prod(1 - one.error_at(rank) for one, rank in pairs)
        assert found[ranks] > 0.9 * max(found.values())


def test_nearly_all_macs_leave_the_layers_that_matter_dense() -> None:
    layers = [layer((0.9, 0.8, 0.7)), layer((0.01, 0.005, 0.001))]
    assert choose_ranks(layers, 0, 0.7)[0] == 0


def test_a_budget_out_of_reach_names_the_smallest() -> None:
    layers = [layer((0.5, 0.2)), layer((0.5, 0.2))]
    least = layers[0].macs_at(1) / layers[0].macs
    with pytest.raises(UsageError, match=r"0.1 of the MACs is out of reach.* 0\.143") as said:
        choose_ranks(layers, 0, 0.1)
    assert least == pytest.approx(0.1424, abs=1e-4)
    named = float(str(said.value).split()[-1])
    assert choose_ranks(layers, 0, named) == (1, 1)
