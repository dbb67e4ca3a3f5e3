"""Our networks against timm's and torchvision's with the same random weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oracles import Differences, compare, import_timm, import_torchvision, randomise, twin

from edgewise.families import VARIANTS, list_models, variant
from edgewise.network import build
from edgewise.spec import Spec

# timm's name -> ours and the width. timm has a 1x1 convolution where MobileNetV3 has a linear layer
# after the pooling: the same sums in another order, so those may differ in the last bits of a
# float, and must agree in double precision.
TIMM = {
    "mobilenetv1_100": ("mobilenet_v1", 1.0),
    "mobilenetv1_125": ("mobilenet_v1", 1.25),
    "mobilenetv2_035": ("mobilenet_v2", 0.35),
    "mobilenetv2_050": ("mobilenet_v2", 0.5),
    "mobilenetv2_075": ("mobilenet_v2", 0.75),
    "mobilenetv2_100": ("mobilenet_v2", 1.0),
    "mobilenetv2_140": ("mobilenet_v2", 1.4),
    "mobilenetv3_large_075": ("mobilenet_v3_large", 0.75),
    "mobilenetv3_large_100": ("mobilenet_v3_large", 1.0),
    "mobilenetv3_small_050": ("mobilenet_v3_small", 0.5),
    "mobilenetv3_small_075": ("mobilenet_v3_small", 0.75),
    "mobilenetv3_small_100": ("mobilenet_v3_small", 1.0),
    "tf_mobilenetv3_large_075": ("mobilenet_v3_large", 0.75),
    "tf_mobilenetv3_small_075": ("mobilenet_v3_small", 0.75),
    "tf_mobilenetv3_large_100": ("mobilenet_v3_large", 1.0),
    "tf_mobilenetv3_small_100": ("mobilenet_v3_small", 1.0),
    **{f"efficientnet_b{i}": (f"efficientnet_b{i}", 1.0) for i in range(8)},
    **{f"tf_efficientnet_b{i}": (f"efficientnet_b{i}", 1.0) for i in range(8)},
    **{f"efficientnet_lite{i}": (f"efficientnet_lite{i}", 1.0) for i in range(5)},
    **{f"tf_efficientnet_lite{i}": (f"efficientnet_lite{i}", 1.0) for i in range(5)},
}
TORCHVISION = {
    "mobilenet_v2": ("mobilenet_v2", 0.35, 0.5, 0.75, 1.0, 1.4),
    "mobilenet_v3_large": ("mobilenet_v3_large", 1.0),
    "mobilenet_v3_small": ("mobilenet_v3_small", 1.0),
    **{f"efficientnet_b{i}": (f"efficientnet_b{i}", 1.0) for i in range(8)},
}
LARGE = ("b3", "b4", "b5", "b6", "b7", "lite3", "lite4")


def _sized(name: str, *values: object) -> object:
    """A test parameter, marked slow for the large networks."""
    return pytest.param(name, *values, marks=pytest.mark.slow if name.endswith(LARGE) else ())


def timm_differences(name: str, size: int = 64, dtype: torch.dtype = torch.float32) -> Differences:
    ours, width = TIMM[name]
    padding = "same" if name.startswith("tf_") else "symmetric"
    spec = replace(variant(ours).spec(width=width), padding=padding)
    return compare(lambda: import_timm().create_model(name), spec, size, dtype)


def torchvision_differences(name: str, width: float) -> Differences:
    models = import_torchvision().models
    options: dict[str, float] = {"dropout": 0.0}
    if name == "mobilenet_v2":
        options["width_mult"] = width
    if name.startswith("efficientnet"):
        options["stochastic_depth_prob"] = 0.0
    return compare(lambda: getattr(models, name)(**options), variant(name).spec(width=width))


@pytest.mark.parametrize("name", [_sized(name) for name in TIMM])
def test_equals_timm(name: str) -> None:
    differences = timm_differences(name)
    if "mobilenetv3" in name:
        assert max(differences.logits, differences.train_logits) <= 1e-6
        assert timm_differences(name, dtype=torch.float64).largest() <= 1e-13
    else:
        assert differences.largest() == 0.0


@pytest.mark.parametrize(
    ("name", "width"),
    [_sized(name, w) for name, (_, *widths) in TORCHVISION.items() for w in widths],
)
def test_equals_torchvision(name: str, width: float) -> None:
    assert torchvision_differences(name, width).largest() == 0.0


@pytest.mark.parametrize("name", ["mobilenetv2_100", "tf_efficientnet_lite0", "tf_efficientnet_b0"])
@pytest.mark.parametrize("size", [65, 75])
def test_odd_sizes_equal_timm(name: str, size: int) -> None:
    assert timm_differences(name, size).largest() == 0.0


@pytest.mark.parametrize("name", ["mobilenetv1_100", "mobilenetv2_100", "efficientnet_b0"])
def test_features_equal_timm(name: str) -> None:
    oracle = import_timm().create_model(name, features_only=True)
    randomise(oracle)
    spec = variant(TIMM[name][0]).spec()
    # timm leaves the head out of these, so ours is cut down to the body before copying.
    body = twin(oracle, replace(spec, classes=0, head=replace(spec.head, conv=0, hidden=0)))
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        for ours, theirs in zip(body.eval().features(images), oracle.eval()(images), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", list_models())
def test_features_are_known_without_a_tensor(name: str) -> None:
    spec = variant(name).spec(width=0.5)
    with torch.device("meta"):
        maps = build(spec).features(torch.empty(1, 3, 64, 64))
    assert [(f.channels, 64 // f.stride) for f in spec.features()] == [
        (m.shape[1], m.shape[2]) for m in maps
    ]
    assert [f.stride for f in spec.features()] == [2, 4, 8, 16, 32]


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize(("width", "classes", "in_chans"), [(0.3, 7, 1), (1.25, 0, 5), (2.0, 2, 4)])
def test_any_width_classes_and_channels(
    name: str, width: float, classes: int, in_chans: int
) -> None:
    with torch.device("meta"):
        network = build(variant(name).spec(width, classes, in_chans))
        output = network(torch.empty(2, in_chans, 64, 64))
    last = (
        network.spec.head.hidden or network.spec.head.conv or network.spec.features()[-1].channels
    )
    assert output.shape == (2, classes or last)


def test_a_fresh_network_learns_nothing_and_breaks_nothing() -> None:
    """Fresh weights: finite, of moderate size, different for each seed, equal for the same."""

    def logits(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        network = build(variant("mobilenet_v3_small").spec(width=0.5)).eval()
        with torch.inference_mode():
            return network(torch.ones(1, 3, 64, 64))

    assert torch.equal(logits(1), logits(1))
    assert not torch.equal(logits(1), logits(2))
    assert logits(1).abs().max() < 10


def test_every_spec_survives_json() -> None:
    import json

    for v in VARIANTS.values():
        for width in (0.35, 1.0, 1.4):
            spec = v.spec(width=width, classes=10, in_chans=1)
            assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
