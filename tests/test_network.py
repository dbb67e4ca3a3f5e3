"""Our networks against timm's and torchvision's with the same random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from oracles import (
    Differences,
    compare,
    import_timm,
    import_torchvision,
    randomise,
    twin,
    with_random_weights,
)

from edgewise.errors import UsageError
from edgewise.families import VARIANTS, list_models, variant
from edgewise.layers import DropPath
from edgewise.network import build
from edgewise.spec import Attention, Block, ConvNeXt, MBConv, Spec
from edgewise.strides import dilate, small_stem

# Every network of ours that timm has: its name -> ours and the width.
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
    "tf_mobilenetv3_large_minimal_100": ("mobilenet_v3_large_minimalistic", 1.0),
    "tf_mobilenetv3_small_minimal_100": ("mobilenet_v3_small_minimalistic", 1.0),
    "mobilenetv4_conv_small_035": ("mobilenet_v4_conv_small", 0.35),
    "mobilenetv4_conv_small_050": ("mobilenet_v4_conv_small", 0.5),
    "mobilenetv4_conv_small": ("mobilenet_v4_conv_small", 1.0),
    "mobilenetv4_conv_medium": ("mobilenet_v4_conv_medium", 1.0),
    "mobilenetv4_conv_large": ("mobilenet_v4_conv_large", 1.0),
    "mobilenetv4_hybrid_medium_075": ("mobilenet_v4_hybrid_medium", 0.75),
    "mobilenetv4_hybrid_medium": ("mobilenet_v4_hybrid_medium", 1.0),
    "mobilenetv4_hybrid_large_075": ("mobilenet_v4_hybrid_large", 0.75),
    "mobilenetv4_hybrid_large": ("mobilenet_v4_hybrid_large", 1.0),
    **{f"efficientnet_b{i}": (f"efficientnet_b{i}", 1.0) for i in range(8)},
    # The larger ones with this padding are the same rows again.
    **{f"tf_efficientnet_b{i}": (f"efficientnet_b{i}", 1.0) for i in range(4)},
    **{f"efficientnet_lite{i}": (f"efficientnet_lite{i}", 1.0) for i in range(5)},
    **{f"tf_efficientnet_lite{i}": (f"efficientnet_lite{i}", 1.0) for i in range(5)},
    **{f"efficientnetv2_{x}": (f"efficientnet_v2_{x}", 1.0) for x in ("s", "m", "l", "xl")},
    **{
        f"tf_efficientnetv2_{x}": (f"efficientnet_v2_{x}", 1.0)
        for x in ("b0", "b1", "b2", "b3", "s")
    },
    **{name: (name, 1.0) for name in list_models("convnext_[!v]*")},
    **{name.replace("_v2", "v2"): (name, 1.0) for name in list_models("convnext_v2*")},
    **{name: (name, 1.0) for name in ("resnet18", "resnet34", "resnet50", "vgg16")},
}
# Where timm does the same sums in another order: MobileNetV3's layer after the pooling and the
# small ConvNeXts' layers are 1x1 convolutions there and linear layers here; GRN's shift is fused
# with its scale there; VGG's first linear layer is a 7x7 convolution, a sum of 25,088 numbers. They
# must agree in double precision.
OTHER_ORDER = {
    "mobilenetv3": 1e-6,
    **dict.fromkeys(("convnext_atto", "convnext_femto", "convnext_pico", "convnext_nano"), 1e-6),
    "convnextv2": 1e-6,
    "vgg16": 1e-5,
}
TORCHVISION = {
    "mobilenet_v2": (0.35, 0.5, 0.75, 1.0, 1.4),
    **dict.fromkeys(("mobilenet_v3_large", "mobilenet_v3_small"), (1.0,)),
    **{f"efficientnet_b{i}": (1.0,) for i in range(8)},
    **{f"efficientnet_v2_{size}": (1.0,) for size in ("s", "m", "l")},
    **{f"convnext_{size}": (1.0,) for size in ("tiny", "small", "base", "large")},
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "vgg16"), (1.0,)),
}
# One of each table: the others are these with other numbers.
TENSORFLOWS = [*list_models("mobilenet*"), *list_models("efficientnet*0"), "efficientnet_v2_s"]
OTHERS = ["convnext_atto", "convnext_v2_atto", "resnet18", "resnet50", "vgg16"]
QUICK = 12e6  # parameters; larger networks are compared in the slow step


def _sized(name: str, ours: str, *values: object) -> object:
    """A test parameter, marked slow for the large networks."""
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build(variant(ours).spec()).parameters())
    return pytest.param(name, *values, marks=pytest.mark.slow if parameters > QUICK else ())


def timm_differences(
    name: str, size: int = 64, dtype: torch.dtype = torch.float32, gradients: bool = True
) -> Differences:
    ours, width = TIMM[name]
    padding = "same" if name.startswith("tf_") else "symmetric"
    spec = replace(variant(ours).spec(width=width), padding=padding)
    options = {}
    if name == "vgg16" and dtype == torch.float64:  # one layer has most of its gigabyte
        options = {"mlp_ratio": 1 / 8}
        spec = replace(spec, head=replace(spec.head, hidden=(512, 4096)))
    make = partial(import_timm().create_model, name, **options)
    return compare(make, spec, size, dtype, gradients)


def torchvision_differences(name: str, width: float) -> Differences:
    models = import_torchvision().models
    options: dict[str, float] = {}
    if name.startswith(("mobilenet", "efficientnet", "vgg")):
        options["dropout"] = 0.0
    if name == "mobilenet_v2":
        options["width_mult"] = width
    if name.startswith(("efficientnet", "convnext")):
        options["stochastic_depth_prob"] = 0.0
    return compare(lambda: getattr(models, name)(**options), variant(name).spec(width=width))


@pytest.mark.parametrize("name", [_sized(name, TIMM[name][0]) for name in TIMM])
def test_equals_timm(name: str) -> None:
    bounds = [bound for part, bound in OTHER_ORDER.items() if part in name]
    if not bounds:
        assert timm_differences(name).largest() == 0.0
        return
    differences = timm_differences(name, gradients=False)
    assert max(differences.logits, differences.train_logits) <= bounds[0]
    if not name.endswith(("_base", "_large", "_huge")):  # the same code with more gigabytes
        assert timm_differences(name, dtype=torch.float64).largest() <= 1e-12


@pytest.mark.parametrize(
    ("name", "width"),
    [_sized(name, name, width) for name, widths in TORCHVISION.items() for width in widths],
)
def test_equals_torchvision(name: str, width: float) -> None:
    assert torchvision_differences(name, width).largest() == 0.0


def test_every_variant_is_compared_with_timm() -> None:
    assert {ours for ours, _ in TIMM.values()} == set(list_models()) - {"tiny"}
    assert all(import_timm().is_model(name) for name in TIMM)


@pytest.mark.parametrize(
    "name",
    ["mobilenetv2_100", "tf_efficientnet_lite0", "tf_efficientnet_b0", "mobilenetv4_conv_small"],
)
@pytest.mark.parametrize("size", [65, 75])
def test_odd_sizes_equal_timm(name: str, size: int) -> None:
    assert timm_differences(name, size).largest() == 0.0


@pytest.mark.parametrize("name", ["convnext_tiny", "mobilenetv4_hybrid_medium", "resnet18"])
def test_odd_sizes_of_other_kinds_equal_timm(name: str) -> None:
    assert timm_differences(name, 79).logits == 0.0


@pytest.mark.parametrize(
    "name", ["mobilenetv1_100", "mobilenetv2_100", "efficientnet_b0", "tf_efficientnetv2_b0"]
)
def test_features_equal_timm(name: str) -> None:
    oracle = with_random_weights(lambda: import_timm().create_model(name, features_only=True))
    spec = variant(TIMM[name][0]).spec()
    spec = replace(spec, padding="same" if name.startswith("tf_") else "symmetric")
    # timm leaves the head out of these, so ours is cut down to the body before copying.
    body = twin(oracle, replace(spec, classes=0, head=replace(spec.head, conv=0, hidden=())))
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        for ours, theirs in zip(body.eval().features(images), oracle.eval()(images), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", [*TENSORFLOWS, *OTHERS])
def test_features_are_known_without_a_tensor(name: str) -> None:
    spec = variant(name).spec(width=0.5)
    with torch.device("meta"):
        maps = build(spec).eval().features(torch.empty(1, 3, 64, 64))
    assert [(f.channels, 64 // f.stride) for f in spec.features()] == [
        (m.shape[1], m.shape[2]) for m in maps
    ]
    strides = [4, 8, 16, 32] if "convnext" in name else [2, 4, 8, 16, 32]
    assert [f.stride for f in spec.features()] == ([1] if name == "vgg16" else []) + strides


@pytest.mark.parametrize("name", [*TENSORFLOWS, *OTHERS])
@pytest.mark.parametrize(("width", "classes", "in_chans"), [(0.3, 7, 1), (1.25, 0, 5)])
def test_any_width_classes_and_channels(
    name: str, width: float, classes: int, in_chans: int
) -> None:
    with torch.device("meta"):
        network = build(variant(name).spec(width, classes, in_chans)).eval()
        output = network(torch.empty(2, in_chans, 64, 64))
    head = network.spec.head
    last = head.hidden[-1] if head.hidden else head.conv or network.spec.features()[-1].channels
    assert output.shape == (2, classes or last)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "convnext_atto", "mobilenet_v4_conv_small"])
def test_a_fresh_network_learns_nothing_and_breaks_nothing(name: str) -> None:
    """Fresh weights: finite, of moderate size, different for each seed, equal for the same."""

    def logits(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        network = build(variant(name).spec(width=0.5)).eval()
        with torch.inference_mode():
            return network(torch.ones(1, 3, 64, 64))

    assert torch.equal(logits(1), logits(1))
    assert not torch.equal(logits(1), logits(2))
    assert 0 < logits(1).abs().max() < 10


@pytest.mark.parametrize(("name", "norm"), [("mobilenet_v2", "layer"), ("convnext_atto", "batch")])
def test_the_norm_of_the_stem_leaves_the_other_weights_as_they_begin(name: str, norm: str) -> None:
    spec = variant(name).spec(0.25, classes=9)
    assert spec.stem.norm != norm
    deviations = []
    for stem in (spec.stem, replace(spec.stem, norm=norm)):
        torch.manual_seed(0)
        last = build(replace(spec, stem=stem)).stages[-1][-1].project
        deviations.append([w.detach().std().item() for w in last.parameters() if w.ndim > 1])
    assert deviations[1] == pytest.approx(deviations[0], rel=0.05)


def test_every_spec_survives_json() -> None:
    for v in VARIANTS.values():
        for width in (0.35, 1.0, 1.4):
            spec = v.spec(width=width, classes=10, in_chans=1)
            assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_b4", "efficientnet_v2_s"])
def test_drop_path_rates_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        oracle = getattr(import_torchvision().models, name)()
        ours = build(variant(name).spec())
    rates = [m.p for n, m in oracle.named_modules() if n.endswith("stochastic_depth")]
    found = [m.probability for m in ours.stages.modules() if isinstance(m, DropPath)]
    # Our fused blocks without expansion have theirs beside the convolution, which has one too.
    assert [rate for rate in found if rate] == pytest.approx(rates[1:])


def test_layer_scale_starts_where_the_authors_code_starts_it() -> None:
    for name in list_models():
        starts = {
            getattr(block, "layer_scale", 0.0)
            for stage in variant(name).spec().stages
            for block in stage
        }
        hybrid, v1 = "hybrid" in name, name.startswith("convnext_") and "_v2" not in name
        assert starts - {0.0} == ({1e-5} if hybrid else {1e-6} if v1 else set()), name


def without_the_whole_map(spec: Spec) -> Spec:
    """The spec without what looks at all of a map at once: that sees more of a dilated one."""

    def local(block: Block) -> Block:
        if isinstance(block, MBConv):
            return replace(block, squeeze=0)
        return replace(block, grn=False) if isinstance(block, ConvNeXt) else block

    stages = tuple(
        tuple(local(block) for block in stage if not isinstance(block, Attention))
        for stage in spec.stages
    )
    return replace(spec, stages=stages)


@pytest.mark.parametrize(
    ("name", "padding"),
    [
        *((name, "symmetric") for name in (*TENSORFLOWS, *OTHERS)),
        *((name, "same") for name in TENSORFLOWS),
    ],
)
def test_dilation_keeps_the_features_of_the_strides(name: str, padding: str) -> None:
    """The same weights with strides, and with dilation sampled at every second (fourth) place.

    In double precision, over the whole map, borders included. With TensorFlow's padding the
    kept places are the last of each 2 (4), as its strides begin one pixel later on even sides.
    """
    v = variant(name)
    spec = without_the_whole_map(replace(v.spec(width=0.25), padding=padding))
    torch.manual_seed(0)
    dense = build(spec).double()
    randomise(dense)
    image = torch.randn(1, 3, 96, 96, dtype=torch.double)
    with torch.inference_mode():
        wanted = dense.eval().features(image)[-1]
        for output_stride in (8, 16):
            dilated = build(dilate(spec, output_stride)).double().eval()
            dilated.load_state_dict(dense.state_dict())
            step = 32 // output_stride
            first = step - 1 if padding == "same" else 0
            found = dilated.features(image)[-1]
            assert found.shape[2] == 96 // output_stride
            difference = (found[..., first::step, first::step] - wanted).abs().max()
            assert difference <= 1e-12 * wanted.abs().max()


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_tiny", "efficientnet_b0", "mobilenetv2_100"]
)
def test_dilated_networks_equal_timm(name: str) -> None:
    """timm dilates these as we do (its code says of its V4 block that it doesn't)."""
    oracle = with_random_weights(lambda: import_timm().create_model(name, output_stride=16))
    ours = twin(oracle, dilate(variant(TIMM[name][0]).spec(), 16))
    images = torch.randn(2, 3, 97, 97)
    with torch.inference_mode():
        found, wanted = ours.eval()(images), oracle.eval()(images)
    # The same operators on the same numbers; yet PyTorch's dilated depthwise convolution isn't
    # always the same to the last bit in two calls.
    assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()


@pytest.mark.parametrize("name", [*TENSORFLOWS, *OTHERS])
def test_a_dilated_spec_stays_dilated(name: str) -> None:
    spec = variant(name).spec(width=0.25)
    dense, half = dilate(spec, 8), dilate(spec, 16)
    assert dense != half != spec
    for asked in (8, 16, 32):
        assert dilate(dense, asked) == dense
    assert dilate(half, 32) == dilate(half, 16) == half
    assert dilate(half, 8) == dense


def test_dilation_of_ones_own_is_doubled_with_the_rest() -> None:
    """The same weights, sampled, as for the dilation that comes from strides alone."""
    spec = without_the_whole_map(variant("mobilenet_v3_small").spec(width=0.25))
    last = tuple(replace(block, dilation=2) for block in spec.stages[-1])
    spec = replace(spec, stages=(*spec.stages[:-1], last))
    assert dilate(spec, 32) == spec
    network, dilated = build(spec).double(), build(dilate(spec, 16)).double()
    randomise(network)
    dilated.load_state_dict(network.state_dict())
    image = torch.randn(1, 3, 96, 96, dtype=torch.double)
    with torch.inference_mode():
        wanted = network.eval().features(image)[-1]
        found = dilated.eval().features(image)[-1][..., ::2, ::2]
    assert (found - wanted).abs().max() <= 1e-12 * wanted.abs().max()


@pytest.mark.parametrize("name", [*TENSORFLOWS, *OTHERS])
def test_small_stem_keeps_the_weights_and_drops_two_halvings(name: str) -> None:
    spec = variant(name).spec(width=0.25)
    small = small_stem(spec)
    assert [f.stride * 4 for f in small.features()][-4:] == [4, 8, 16, 32]
    assert [f.channels for f in small.features()] == [f.channels for f in spec.features()]
    with torch.device("meta"):
        ours, wanted = build(small), build(spec)
        assert ours.eval().features(torch.empty(1, 3, 28, 28))[-1].shape[2] >= 28 // 8
    shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in (ours, wanted)]
    assert shapes[0] == shapes[1]


def test_output_stride_that_is_none() -> None:
    with pytest.raises(UsageError, match="8, 16 or 32"):
        dilate(variant("mobilenet_v2").spec(), 12)
