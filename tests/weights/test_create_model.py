"""`create_model`, the adapted ends of a network, and weights that come by order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import import_timm, import_torchvision, randomise
from torch import nn

from edgewise.errors import UsageError
from edgewise.families import list_models, variant
from edgewise.model import Model
from edgewise.network import Network, build
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from edgewise.weights.convert import copy_by_order
from edgewise.weights.create import adapt, adapt_stem, create_model
from edgewise.weights.folder import save_model

PREPROCESS = Preprocess(32, 0.875, "bicubic", IMAGENET_MEAN, IMAGENET_STD)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return build(variant("mobilenet_v2").spec(0.35, classes=4))


@pytest.mark.parametrize("name", list_models("mobilenet*"))
def test_by_name(name: str) -> None:
    network = create_model(name, num_classes=7, in_chans=2, width=0.35)
    assert network.training
    assert network.eval()(torch.randn(1, 2, 40, 33)).shape == (1, 7)


def test_from_a_spec_and_from_a_folder(tmp_path: Path, network: Network) -> None:
    fresh = create_model(network.spec, num_classes=2)
    assert (fresh.spec.classes, fresh.spec.stages) == (2, network.spec.stages)
    save_model(Model(network, PREPROCESS, ("a", "b", "c", "d")), tmp_path / "model")
    for source in (tmp_path / "model", str(tmp_path / "model")):
        loaded = create_model(source)
        state = loaded.state_dict()
        assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
        assert loaded.training
    assert create_model(tmp_path / "model", num_classes=9).head.classifier.out_features == 9


def test_pretrained_keeps_the_body() -> None:
    whole = create_model("efficientnet_lite0", pretrained=True).eval()
    three = create_model("efficientnet_lite0", num_classes=3, pretrained=True).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(three.features(x)[-1], whole.features(x)[-1])
        assert three(x).shape == (1, 3)
    assert (three.spec.padding, three.spec.norm_eps) == ("same", 1e-3)


def test_strides_and_drop_path_change_and_the_weights_stay() -> None:
    whole = create_model("efficientnet_lite0", pretrained=True)
    changed = create_model(
        "efficientnet_lite0", pretrained=True, stem="small", output_stride=8, drop_path=0.3
    )
    assert [f.stride for f in changed.spec.features()] == [1, 1, 2, 4, 8]
    assert changed.spec.drop_path == 0.3 and whole.spec.drop_path == 0.2
    dilated = create_model("efficientnet_lite0", pretrained=True, output_stride=16)
    assert [f.stride for f in dilated.spec.features()] == [2, 4, 8, 16, 16]
    for network in (changed, dilated):
        state = network.state_dict()
        assert all(torch.equal(v, state[k]) for k, v in whole.state_dict().items())


def test_a_dilated_source_stays_dilated(tmp_path: Path) -> None:
    dense = create_model("mobilenet_v4_conv_small", num_classes=2, width=0.35, output_stride=8)
    save_model(Model(dense, PREPROCESS, ("a", "b")), tmp_path / "model")
    image = torch.randn(1, 3, 64, 64)
    for source in (dense.spec, tmp_path / "model"):
        again = create_model(source)
        assert again.spec == dense.spec
        again.load_state_dict(dense.state_dict())
        with torch.inference_mode():
            torch.testing.assert_close(again.eval()(image), dense.eval()(image))
    stages = create_model(tmp_path / "model", num_classes=9).spec.stages
    assert stages == dense.spec.stages


def test_depth_and_width_make_the_larger_efficientnets() -> None:
    """B3 is B0's table at width 1.2 and depth 1.4, V2-B3 is V2-B0's (their papers' code)."""
    for name in ("efficientnet_b", "efficientnet_v2_b"):
        made = create_model(f"{name}0", width=1.2, depth=1.4, num_classes=0).spec
        assert made.stages == variant(f"{name}3").spec().stages


def test_other_libraries_names_are_understood() -> None:
    small = create_model("mobilenetv2_050")
    assert small.spec.stages == variant("mobilenet_v2").spec(0.5).stages
    tensorflows = create_model("tf_efficientnet_b0").spec
    assert (tensorflows.padding, tensorflows.norm_eps) == ("same", 1e-3)
    assert create_model("convnext_tiny", drop_path=0.1).spec.drop_path == 0.1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"source": "mobilenet_v22"}, "Nearest: mobilenet_v2"),
        (
            {"source": "mobilenet_v2", "width": 0.4, "pretrained": True},
            "of width 0.4.*width 0.5, 1, 1.4",
        ),
        ({"source": "convnext_v2_atto", "pretrained": True}, "forbid commercial use"),
        ({"source": "mobilenet_v2", "pretrained": "ra_in2k"}, "Nearest: ra_in1k"),
        ({"source": "mobilenet_v2", "stem": "smal"}, "Nearest: small"),
        ({"source": "mobilenet_v2", "output_stride": 4}, "8, 16 or 32"),
        ({"source": "mobilenet_v2", "drop_path": 1.0}, "drop_path: must be"),
        (
            {"source": variant("mobilenet_v1").spec(), "width": 0.5},
            "width and depth are for a model's name",
        ),
        ({"source": variant("mobilenet_v1").spec(), "pretrained": True}, "for a model's name"),
        ({"source": Path("no/such/folder")}, "no such model folder"),
        ({"source": "mobilenet_v2", "num_classes": -1}, "classes"),
        ({"source": "mobilenet_v2", "in_chans": 0}, "in_chans"),
        ({"source": "mobilenet_v2", "width": -1.0}, "width"),
        ({"source": "mobilenet_v2", "depth": 1.5}, "mobilenet_v2 has no depth multiplier"),
        ({"source": "efficientnet_b0", "depth": 0.0}, "above 0"),
        ({"source": "efficientnet_b0", "depth": 1.1, "pretrained": True}, "published depth"),
    ],
)
def test_wrong_call(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        create_model(**arguments)


@pytest.mark.parametrize("in_chans", [1, 2, 4, 6, 7])
def test_stem_is_adapted_as_timm_does(network: Network, in_chans: int) -> None:
    adapt_input_conv = import_timm().models.adapt_input_conv
    kernels = adapt_input_conv(in_chans, network.stem.conv.weight)
    adapted = adapt_stem(network, in_chans)
    torch.testing.assert_close(adapted.stem.conv.weight, kernels)
    assert adapted.spec.in_chans == in_chans


def test_grey_image_gives_what_its_three_copies_gave(network: Network) -> None:
    grey = torch.randn(2, 1, 48, 48)
    with torch.inference_mode():
        three = network.eval()(grey.expand(-1, 3, -1, -1))
        one = adapt_stem(network, 1)(grey)  # in evaluation mode too
    torch.testing.assert_close(one, three)


def test_another_number_of_classes_gets_a_fresh_classifier(network: Network) -> None:
    for classes in (9, 0):
        adapted = adapt(network, replace(network.spec, classes=classes))
        ours, old = adapted.state_dict(), network.state_dict()
        kept = {name for name in old if name in ours and torch.equal(ours[name], old[name])}
        assert old.keys() - kept == {"head.classifier.weight", "head.classifier.bias"}
        assert adapted(torch.randn(2, 3, 32, 32)).shape == (2, classes or 1280)


def test_copy_by_order_takes_a_1x1_convolution_for_a_linear_layer() -> None:
    """timm's MobileNetV3 has a convolution where ours (and torchvision's) is linear."""
    oracle = import_timm().create_model("mobilenetv3_small_050")
    randomise(oracle)
    ours = build(variant("mobilenet_v3_small").spec(0.5))
    copy_by_order(oracle.state_dict(), ours)
    assert oracle.conv_head.weight.ndim == 4
    hidden = ours.head.hidden[0].weight
    assert torch.equal(hidden, oracle.conv_head.weight[:, :, 0, 0])


def refused(source: nn.Module, ours: Network) -> str:
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    with pytest.raises(UsageError) as error:
        copy_by_order(source.state_dict(), ours)
    assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())
    return str(error.value)


def test_copy_by_order_names_the_first_that_differs() -> None:
    source = import_torchvision().models.mobilenet_v2(width_mult=0.5)
    says = refused(source, build(variant("mobilenet_v2").spec(0.35)))
    # Both widths have a stem of 16 and a first block of 8; the second block's expansion is 48 in
    # both; its projection is the first that differs (16 against 8).
    assert "'features.2.conv.2.weight' is (16, 48, 1, 1)" in says
    assert "'stages.1.0.project.conv.weight' is (8, 48, 1, 1)" in says


def test_copy_by_order_refuses_what_is_left_over() -> None:
    source = import_torchvision().models.mobilenet_v2(width_mult=0.35)
    says = refused(source, build(variant("mobilenet_v2").spec(0.35, classes=0)))
    assert "left over is 'classifier.1.weight'" in says
    source.classifier = nn.Identity()
    says = refused(source, build(variant("mobilenet_v2").spec(0.35)))
    assert "left over is 'head.classifier.weight'" in says
