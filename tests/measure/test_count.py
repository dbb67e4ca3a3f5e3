"""Counted costs against PyTorch's own counter, published figures and the modules themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oracles import import_torchvision
from torch.utils.flop_counter import FlopCounterMode

from edgewise.compress.separate_spec import rank_fields, with_ranks
from edgewise.errors import UsageError
from edgewise.families import VARIANTS, variant
from edgewise.measure.count import Layer, count
from edgewise.network import Network, build
from edgewise.spec import Attention, Conv, MBConv, Pool, Spec
from edgewise.strides import dilate, small_stem


def torch_macs(network: Network, size: int) -> int:
    """A FLOP of PyTorch's counter is half a multiply-accumulate; it counts what we count."""
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.empty(1, network.spec.in_chans, size, size, device="meta"))
    flops: int = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


def on_meta(spec: Spec) -> Network:
    with torch.device("meta"):
        return build(spec)


def test_pytorchs_counter_sees_attention() -> None:
    """On the meta device, too, and with keys and values that all heads share."""
    query, shared = torch.empty(1, 4, 100, 64, device="meta"), torch.empty(1, 1, 25, 64).to("meta")
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.scaled_dot_product_attention(query, shared, shared)
    assert counter.get_total_flops() == 2 * (2 * 4 * 100 * 25 * 64)


FAMILIES = {
    name: variant(name).spec(width=0.75, classes=11, in_chans=5)
    for name in (
        "mobilenet_v1",
        "mobilenet_v2",
        "mobilenet_v3_large",
        "mobilenet_v4_conv_medium",
        "mobilenet_v4_hybrid_medium",
        "efficientnet_b0",
        "efficientnet_lite2",
        "efficientnet_v2_b0",
        "convnext_atto",
        "convnext_v2_atto",
        "resnet18",
        "resnet50",
        "vgg16",
    )
}
V4, CONVNEXT = FAMILIES["mobilenet_v4_hybrid_medium"], FAMILIES["convnext_v2_atto"]
EVEN = (Conv(out=12), Conv(out=8, kernel=4, dilation=3), Pool(out=8, kernel=2))
SPECS = {
    **FAMILIES,
    "same padding": replace(V4, padding="same"),
    "dilated hybrid": dilate(V4, 8),
    "dilated convnext": dilate(CONVNEXT, 8),
    "dilated resnet": dilate(FAMILIES["resnet50"], 16),
    "small stem": small_stem(V4),
    "small convnext": small_stem(CONVNEXT),
    **{
        f"{name} separated": with_ranks(spec, dict.fromkeys(rank_fields(spec), 2))
        for name, spec in FAMILIES.items()
        if rank_fields(spec)
    },
    "no classes": replace(V4, classes=0),
    "even kernels": replace(FAMILIES["vgg16"], stages=(EVEN,), head=replace(V4.head, grid=2)),
    "norm of a grid": replace(CONVNEXT, head=replace(CONVNEXT.head, grid=2)),
    "even kernel, other stride": replace(CONVNEXT, stem=replace(CONVNEXT.stem, stride=2)),
    "stride on the start": replace(
        V4, stages=((), (MBConv(out=8, start=3, kernel=0, expand=16, stride=2, skip=False),))
    ),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_layer_equals_its_module(spec: Spec) -> None:
    network, sizes = on_meta(spec), dict[str, torch.Size]()
    for module_name, module in network.named_modules():
        module.register_forward_hook(
            lambda _module, _inputs, output, key=module_name: (
                sizes.update({key: output.shape}) if isinstance(output, torch.Tensor) else None
            )
        )
    network.eval()(torch.empty(1, 5, 75, 75, device="meta"))
    cost = count(spec, 75)
    modules = {layer.name: network.get_submodule(layer.name) for layer in cost.layers}
    assert len(modules) == len(cost.layers)
    for layer in cost.layers:
        inside = [modules[name] for name in modules if name.startswith(f"{layer.name}.")]
        own = set(modules[layer.name].parameters()).difference(
            *(module.parameters() for module in inside)
        )
        assert layer.params == sum(p.numel() for p in own), layer.name
        square = (layer.side, layer.side)
        allowed = {(1, layer.channels, *square), (1, *square, layer.channels)}
        allowed |= {(1, layer.channels)} if layer.side == 1 else set()
        assert tuple(sizes[layer.name]) in allowed, layer.name
    assert cost.params == sum(p.numel() for p in network.parameters())
    assert cost.macs == torch_macs(network, 75)
    blocks = [f"stages.{s}.{b}" for s, stage in enumerate(spec.stages) for b in range(len(stage))]
    for name in ["stem", *blocks]:
        last = [x for x in cost.layers if f"{x.name}.".startswith(f"{name}.")][-1]
        assert (1, last.channels, last.side, last.side) == tuple(sizes[name]), name


@pytest.mark.parametrize(
    ("name", "width", "size", "params", "macs"),
    [
        # Papers' figures at the right. Those without one were counted in other people's networks.
        ("mobilenet_v1", 1.0, 224, 4_231_976, 568_740_352),  # 569 M
        ("mobilenet_v1", 0.75, 224, 2_585_560, 325_400_448),  # 325 M
        ("mobilenet_v1", 0.5, 224, 1_331_592, 149_497_088),  # 149 M
        ("mobilenet_v1", 0.25, 224, 470_072, 41_030_272),  # 41 M
        ("mobilenet_v2", 1.4, 224, 6_108_776, 582_195_824),  # 582 M
        ("mobilenet_v2", 1.0, 224, 3_504_872, 300_774_272),  # 300 M
        ("mobilenet_v2", 0.75, 224, 2_636_424, 209_069_792),  # 209 M
        ("mobilenet_v2", 0.5, 224, 1_968_680, 97_131_840),  # 97 M
        ("mobilenet_v2", 0.35, 224, 1_677_128, 59_285_808),  # 59 M
        ("mobilenet_v3_large", 1.0, 224, 5_483_032, 216_589_760),  # 217 M
        ("mobilenet_v3_large", 0.75, 224, 3_993_528, 154_560_624),  # 155 M
        ("mobilenet_v3_small", 1.0, 224, 2_542_856, 56_510_400),  # 56 M
        ("mobilenet_v3_small", 0.75, 224, 2_041_872, 43_399_344),  # 44 M
        ("mobilenet_v3_small", 0.5, 224, 1_593_224, 24_188_688),
        ("mobilenet_v3_large_minimalistic", 1.0, 224, 3_924_288, 209_136_704),  # 209 M
        ("mobilenet_v3_small_minimalistic", 1.0, 224, 2_044_736, 52_288_448),
        ("mobilenet_v4_conv_small", 1.0, 224, 3_774_024, 186_005_568),  # 0.2 G
        ("mobilenet_v4_conv_medium", 1.0, 256, 9_715_512, 1_080_244_224),  # 1.0 * 2**30
        ("mobilenet_v4_conv_large", 1.0, 384, 32_590_864, 6_376_220_672),  # 5.9 * 2**30
        ("mobilenet_v4_hybrid_medium", 1.0, 256, 11_074_648, 1_271_183_360),  # 1.2 * 2**30
        ("mobilenet_v4_hybrid_large", 1.0, 384, 37_764_624, 7_711_877_120),  # 7.2 * 2**30
        ("efficientnet_b0", 1.0, 224, 5_288_548, 385_814_752),  # 0.39 G
        ("efficientnet_b2", 1.0, 260, 9_109_994, 993_561_872),  # 1.0 G
        ("efficientnet_b2", 1.0, 288, 9_109_994, 1_087_529_456),
        ("efficientnet_lite0", 1.0, 224, 4_652_008, 385_187_552),
        ("efficientnet_lite1", 1.0, 240, 5_416_680, 600_185_232),
        ("efficientnet_lite2", 1.0, 260, 6_092_072, 859_736_272),
        ("efficientnet_lite3", 1.0, 280, 8_197_096, 1_383_321_872),
        ("efficientnet_lite4", 1.0, 300, 13_006_568, 2_553_034_336),
        ("efficientnet_v2_s", 1.0, 384, 21_458_488, 8_365_617_152),  # 8.4 G
        ("convnext_tiny", 1.0, 224, 28_589_128, 4_455_531_264),  # 4.5 G
        ("convnext_base", 1.0, 384, 88_591_464, 45_122_117_632),
        ("convnext_v2_tiny", 1.0, 224, 28_635_496, 4_455_531_264),  # 4.47 G
        ("resnet50", 1.0, 224, 25_557_032, 4_089_184_256),  # 4.089 G
    ],
)
def test_exact_figures(name: str, width: float, size: int, params: int, macs: int) -> None:
    cost = count(variant(name).spec(width), size)
    assert (cost.params, cost.macs) == (params, macs)


@pytest.mark.parametrize(
    ("name", "params", "billions"),
    [
        ("efficientnet_v2_b0", 7_139_704, "0.718"),
        ("efficientnet_v2_b1", 8_141_052, "1.197"),
        ("efficientnet_v2_b2", 10_096_086, "1.698"),
        ("efficientnet_v2_b3", 14_358_406, "3.011"),
        ("efficientnet_v2_xl", 208_119_808, "93.353"),
        ("convnext_atto", 3_695_520, "0.55"),  # the four smallest: V2's MACs, which are the same
        ("convnext_femto", 5_217_784, "0.78"),
        ("convnext_pico", 9_045_672, "1.37"),
        ("convnext_nano", 15_593_560, "2.45"),
        ("convnext_xlarge", 350_196_968, "60.9"),
        ("convnext_v2_atto", 3_708_400, "0.55"),
        ("convnext_v2_femto", 5_233_240, "0.78"),
        ("convnext_v2_pico", 9_066_280, "1.37"),
        ("convnext_v2_nano", 15_623_800, "2.45"),
        ("convnext_v2_base", 88_717_800, "15.4"),
        ("convnext_v2_large", 197_956_840, "34.4"),
        ("convnext_v2_huge", 660_289_640, "115"),
    ],
)
def test_published_figures(name: str, params: int, billions: str) -> None:
    """MACs within one unit of the last digit that was published. All others: see below."""
    cost = count(variant(name).spec(), VARIANTS[name].input_size)
    assert cost.params == params
    digits = len(billions.partition(".")[2])
    assert cost.macs / 1e9 == pytest.approx(float(billions), abs=10.0**-digits)


TORCHVISION = [
    *("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    *(f"efficientnet_b{i}" for i in range(8)),
    *(f"efficientnet_v2_{size}" for size in "sml"),
    *(f"convnext_{size}" for size in ("tiny", "small", "base", "large")),
    *("resnet18", "resnet34", "resnet50", "vgg16"),
]


@pytest.mark.parametrize("name", TORCHVISION)
def test_figures_that_torchvision_publishes_with_its_weights(name: str) -> None:
    """It calls billions of multiply-accumulates "GFLOPS"."""
    weights = import_torchvision().models.get_model_weights(name).IMAGENET1K_V1
    (size,) = weights.transforms().crop_size
    cost = count(variant(name).spec(), size)
    assert cost.params == weights.meta["num_params"]
    assert cost.macs / 1e9 == pytest.approx(weights.meta["_ops"], abs=0.0005)


def layers(name: str, size: int, inside: str) -> list[Layer]:
    return [x for x in count(variant(name).spec(), size).layers if x.name.startswith(inside)]


def test_mobilenet_v1s_share_of_each_kind_of_layer() -> None:
    """The paper, table 2; its 1.19 % of the first convolution is a misprint of 1.91 %."""
    cost = count(variant("mobilenet_v1").spec(), 224)
    shares = {
        kind: sum(x.macs for x in cost.layers if kind in x.name) / cost.macs
        for kind in ("project", "depthwise", "stem", "classifier")
    }
    assert {kind: round(100 * share, 2) for kind, share in shares.items()} == {
        "project": 94.86,
        "depthwise": 3.06,
        "stem": 1.91,
        "classifier": 0.18,
    }


def test_mobilenet_v3s_last_stage() -> None:
    """The hidden layer comes after the pooling: before it, it would cost 49 times as much."""
    conv, hidden, classifier = layers("mobilenet_v3_large", 224, "head")
    assert (conv.macs, hidden.macs, classifier.macs) == (7_526_400, 1_228_800, 1_280_000)


@pytest.mark.parametrize(
    ("name", "weights", "products"),
    [
        ("mobilenet_v4_hybrid_medium", [105_920, 163_840], [8_388_608, 2_097_152]),
        ("mobilenet_v4_hybrid_large", [170_112, 589_824], [63_700_992, 21_233_664]),
    ],
)
def test_attention_at_stride_16_and_32(name: str, weights: list[int], products: list[int]) -> None:
    """One set of keys and values for all heads, on a map of half the side at stride 16."""
    spec = variant(name).spec()
    cost = count(spec, VARIANTS[name].input_size)
    found = []
    for s, stage in enumerate(spec.stages):
        for b, block in enumerate(stage):
            if isinstance(block, Attention):
                inside = [x for x in cost.layers if f"{x.name}.".startswith(f"stages.{s}.{b}.")]
                rest = ("norm", "layer_scale")  # the figures leave them out
                params = sum(x.params for x in inside if not x.name.endswith(rest))
                (product,) = (x.macs for x in inside if x.name == f"stages.{s}.{b}")
                found.append((params, product))
    first, second = zip(weights, products, strict=True)
    assert found == [first] * 4 + [second] * 4


@pytest.mark.parametrize(("name", "size"), [("mobilenet_v1", 0), ("convnext_atto", 31)])
def test_an_image_that_is_too_small(name: str, size: int) -> None:
    with pytest.raises(UsageError, match=f"size {size} is too small.* takes is {size + 1}"):
        count(variant(name).spec(), size)
    count(variant(name).spec(), size + 1)
