"""Mixup and CutMix: the shares are what the pictures show; timm's with the same draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import import_timm

from edgewise.training.mixing import Mixing, cut

LABELS = torch.tensor([0, 1, 2, 3])


def constant() -> torch.Tensor:
    """Image i is i + 1 everywhere, so that a mean says how much of whom is in it."""
    return torch.arange(1.0, 5.0)[:, None, None, None].expand(4, 3, 20, 30).contiguous()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("mixing", [Mixing(0.8, 0), Mixing(0, 1.0), Mixing(0.8, 1.0)])
def test_targets_are_what_the_pictures_show(mixing: Mixing, seed: int) -> None:
    images, targets = mixing.mix(constant(), LABELS, 5, np.random.default_rng(seed))
    assert torch.allclose(targets.sum(1), torch.ones(4))
    shown = images.mean((1, 2, 3))
    told = targets @ torch.arange(1.0, 6.0)
    assert torch.allclose(shown, told, atol=1e-4)
    assert (targets[:, 4] == 0).all()


def test_one_of_both_by_chance_and_none_when_off() -> None:
    cuts = 0
    for seed in range(200):
        images, _ = Mixing(0.8, 1.0).mix(constant(), LABELS, 4, np.random.default_rng(seed))
        cuts += len(images[0].unique()) == 2 or images[0].unique().tolist() == [4.0]
    assert 70 < cuts < 130
    images, targets = Mixing().mix(constant(), LABELS, 4, np.random.default_rng(0))
    assert torch.equal(images, constant()) and torch.equal(targets, torch.eye(4))


def test_mixup_is_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    import_timm()
    from timm.data.mixup import Mixup

    theirs = Mixup(mixup_alpha=0.8, cutmix_alpha=0.0, label_smoothing=0.0, num_classes=4)
    share = np.random.default_rng(3).beta(0.8, 0.8)
    monkeypatch.setattr(np.random, "beta", lambda a, b: share)
    torch.manual_seed(0)
    images = torch.randn(4, 3, 8, 8)
    expected, told = theirs(images.clone(), LABELS)
    mixed, targets = Mixing(0.8).mix(images, LABELS, 4, np.random.default_rng(3))
    assert torch.allclose(mixed, expected, atol=1e-6)
    assert torch.allclose(targets, told, atol=1e-6)


def test_a_cut_has_the_part_that_was_asked_unless_an_edge_cuts_it() -> None:
    random = np.random.default_rng(0)
    boxes = [cut(40, 60, 0.25, random) for _ in range(500)]
    areas = np.array([(bottom - top) * (right - left) for top, bottom, left, right in boxes])
    assert areas.max() == 20 * 30
    assert areas.min() >= 10 * 15 - 30  # centre in a corner
    assert all(0 <= t <= b <= 40 and 0 <= x <= r <= 60 for t, b, x, r in boxes)
    top, bottom, left, right = cut(40, 60, 0.0, random)
    assert (top, left) == (bottom, right)
