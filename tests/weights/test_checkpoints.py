"""The table of published checkpoints against timm's own settings and networks; names and tags."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from oracles import import_timm, import_torchvision
from torch import nn

from edgewise.errors import UsageError
from edgewise.families import VARIANTS, list_models
from edgewise.network import build
from edgewise.weights import pretrained
from edgewise.weights.checkpoints import SQUASHED
from edgewise.weights.convert import copy_by_order
from edgewise.weights.hub import HubFile
from edgewise.weights.order import in_registered_order
from edgewise.weights.pretrained import (
    PRETRAINED,
    Alias,
    Checkpoint,
    choose,
    load_pretrained,
    preferred,
    resolve,
)

EVERY = [c for checkpoints in PRETRAINED.values() for c in checkpoints]
ON_HUB = [c for c in EVERY if isinstance(c.source, HubFile)]


def test_every_model_has_published_weights_and_each_has_its_own_tag() -> None:
    known = [name for name in list_models() if name != "tiny"]  # of these tests
    assert sorted(PRETRAINED) == sorted(known)
    keys = [(c.model, c.width, c.tag) for c in EVERY]
    assert len(set(keys)) == len(keys)
    assert all(c.model == name for name, found in PRETRAINED.items() for c in found)
    assert all(1 <= len(found) <= 6 for found in PRETRAINED.values())


def config(checkpoint: Checkpoint) -> Any:
    """timm's own settings of a checkpoint."""
    assert isinstance(checkpoint.source, HubFile)
    found = import_timm().get_pretrained_cfg(checkpoint.source.name)
    assert found, f"timm has no {checkpoint.source.name}"
    return found


@pytest.mark.parametrize("checkpoint", ON_HUB, ids=lambda c: c.source.name)
def test_settings_are_timms(checkpoint: Checkpoint) -> None:
    timm = config(checkpoint)
    ours, source = checkpoint.preprocess, checkpoint.source
    size = timm.test_input_size or timm.input_size
    crop = timm.test_crop_pct or timm.crop_pct
    assert isinstance(source, HubFile)
    assert timm.hf_hub_id == source.repo
    assert timm.num_classes == (1000 if checkpoint.classifier else 0)
    assert size == (3, ours.size, ours.size)
    assert (ours.crop, ours.interpolation) == (crop, timm.interpolation)
    assert ours.mean == pytest.approx([255 * x for x in timm.mean])
    assert ours.std == pytest.approx([255 * x for x in timm.std])
    assert checkpoint.licence.lower() == timm.license
    squashed = timm.crop_mode == "squash"
    assert squashed == (checkpoint.top1_source == SQUASHED)


@cache
def meta(name: str) -> nn.Module:
    with torch.device("meta"):
        network: nn.Module = import_timm().create_model(name)
    return network


NETWORKS = {
    c.source.name.partition(".")[0]: c
    for c in ON_HUB
    if isinstance(c.source, HubFile) and c.classifier
}


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_epsilon_and_padding_are_those_of_timms_network(name: str) -> None:
    """Without a number in memory, so that the largest can take part."""
    checkpoint, theirs = NETWORKS[name], meta(name)
    spec = pretrained._spec(checkpoint)
    with torch.device("meta"):
        ours = build(spec)
    copy_by_order(theirs.state_dict(), ours)
    eps = {module.eps for module in theirs.modules() if hasattr(module, "eps")}
    assert eps == {module.eps for module in ours.modules() if hasattr(module, "eps")}
    assert eps <= {checkpoint.norm_eps}
    same = any(type(module).__name__ == "Conv2dSame" for module in theirs.modules())
    assert same == (checkpoint.padding == "same")


@pytest.mark.parametrize("name", NETWORKS)
def test_order_is_restored_from_names(name: str) -> None:
    names = list(meta(name).state_dict())
    by_name = {key: key for key in sorted(names)}
    assert list(by_name) != names
    assert list(in_registered_order(by_name)) == names


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "mobilenet_v3_small", "efficientnet_v2_s", "convnext_tiny", "vgg16"]
)
def test_torchvisions_order_is_restored_too(name: str) -> None:
    with torch.device("meta"):
        names = list(getattr(import_torchvision().models, name)().state_dict())
    assert list(in_registered_order(dict.fromkeys(sorted(names)))) == names


def test_preferred_is_timms_default_and_never_non_commercial() -> None:
    """Where it differs, timm's own squeezes the image, which we don't."""
    timm = import_timm()
    for name, checkpoints in PRETRAINED.items():
        first = preferred(name)
        assert (first is None) == name.startswith("convnext_v2")
        assert first is None or "nc" not in first.licence.lower()
        on_hub = next(c for c in checkpoints if isinstance(c.source, HubFile))
        default = timm.get_pretrained_cfg(config(on_hub).architecture)
        assert default.tag == on_hub.tag or default.crop_mode == "squash", (name, default.tag)


def test_non_commercial_weights_are_asked_for_by_tag() -> None:
    with pytest.raises(UsageError, match=r"forbid commercial.*'fcmae_ft_in1k' \(CC-BY-NC-4.0\)"):
        choose("convnext_v2_atto")
    assert choose("convnext_v2_atto", "fcmae_ft_in1k").licence == "CC-BY-NC-4.0"


def test_unknown_tags_widths_and_models_are_answered_with_those_that_exist(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match=r"resnet50 weights 'a9'.*tv_in1k \(BSD-3-Clause\)"):
        choose("resnet50", "a9")
    with pytest.raises(UsageError, match=r"mobilenet_v2 of width 0.75. .* width 0.5, 1, 1.4"):
        choose("mobilenet_v2", None, 0.75)
    with pytest.raises(UsageError, match="unknown mobilenet_v2 weights 'lamb_in1k'"):
        choose("mobilenet_v2", "lamb_in1k")  # which is of width 0.5
    with pytest.raises(UsageError, match="Nearest: mobilenet_v2"):
        load_pretrained("mobilenet_v22")
    monkeypatch.delitem(pretrained.PRETRAINED, "mobilenet_v1")
    with pytest.raises(UsageError, match=r"no pretrained weights for mobilenet_v1.*start without"):
        load_pretrained("mobilenet_v1")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mobilenet_v2", Alias("mobilenet_v2")),
        ("mobilenetv2_050", Alias("mobilenet_v2", 0.5, None, "lamb_in1k")),
        ("mobilenetv3_large_100", Alias("mobilenet_v3_large", 1.0, None, "ra_in1k")),
        ("tf_mobilenetv3_large_075", Alias("mobilenet_v3_large", 0.75, "same", "in1k")),
        ("tf_efficientnet_b0", Alias("efficientnet_b0", 1.0, "same", "ns_jft_in1k")),
        ("tf_efficientnet_b0.in1k", Alias("efficientnet_b0", 1.0, "same", "in1k")),
        ("resnet50.tv_in1k", Alias("resnet50", 1.0, None, "tv_in1k")),
        ("convnextv2_tiny", Alias("convnext_v2_tiny")),  # whose licence wants a tag
        (
            "convnextv2_tiny.fcmae_ft_in1k",
            Alias("convnext_v2_tiny", 1.0, None, "fcmae_ft_in1k"),
        ),
    ],
)
def test_timms_names_are_understood(name: str, meant: Alias) -> None:
    assert resolve(name) == meant


def test_every_name_of_timms_and_torchvisions_for_our_networks_is_understood() -> None:
    for checkpoint in ON_HUB:
        assert isinstance(checkpoint.source, HubFile)
        alias = resolve(checkpoint.source.name)
        assert choose(alias.name, alias.tag, alias.width) is checkpoint
        assert (alias.padding == "same") == (checkpoint.padding == "same")
    for known in VARIANTS.values():
        assert not known.timm or resolve(known.timm).name == known.name
    models = import_torchvision().models
    theirs = set(models.list_models(module=models))
    for family in ("mobilenet_v", "efficientnet_", "convnext_", "resnet18", "resnet34", "vgg16"):
        for name in theirs:
            if name.startswith(family) and name != "vgg16_bn":
                assert resolve(name) == Alias(name)


@pytest.mark.parametrize("name", ["tf_resnet50", "mobilenetv2_033", "resnet50.a9", "resnet51"])
def test_nobodys_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="Nearest: "):
        resolve(name)
