"""Specs: channels by the published numbers, and errors that name the row."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from edgewise.errors import UsageError
from edgewise.families import VARIANTS, variant
from edgewise.network import build
from edgewise.spec import AnyBlock, ConvNeXt, MBConv, Spec
from edgewise.table import Row, round_channels

# Weights and batch-norm scales and shifts, as published or counted in the authors' code.
PARAMETERS = {
    ("mobilenet_v1", 1.0): 4_231_976,
    ("mobilenet_v1", 0.75): 2_585_560,
    ("mobilenet_v1", 0.5): 1_331_592,
    ("mobilenet_v1", 0.25): 470_072,
    ("mobilenet_v2", 1.4): 6_108_776,
    ("mobilenet_v2", 1.0): 3_504_872,
    ("mobilenet_v2", 0.75): 2_636_424,
    ("mobilenet_v2", 0.5): 1_968_680,
    ("mobilenet_v2", 0.35): 1_677_128,
    ("mobilenet_v3_large", 1.0): 5_483_032,
    ("mobilenet_v3_large", 0.75): 3_993_528,
    ("mobilenet_v3_small", 1.0): 2_542_856,
    ("mobilenet_v3_small", 0.75): 2_041_872,
    ("mobilenet_v3_small", 0.5): 1_593_224,
    ("mobilenet_v3_large_minimalistic", 1.0): 3_924_288,
    ("mobilenet_v3_small_minimalistic", 1.0): 2_044_736,
    ("mobilenet_v4_conv_small", 1.0): 3_774_024,
    ("mobilenet_v4_conv_medium", 1.0): 9_715_512,
    ("mobilenet_v4_conv_large", 1.0): 32_590_864,
    ("mobilenet_v4_hybrid_medium", 1.0): 11_074_648,
    ("mobilenet_v4_hybrid_large", 1.0): 37_764_624,
    ("efficientnet_b0", 1.0): 5_288_548,
    ("efficientnet_b1", 1.0): 7_794_184,
    ("efficientnet_b2", 1.0): 9_109_994,
    ("efficientnet_b3", 1.0): 12_233_232,
    ("efficientnet_b4", 1.0): 19_341_616,
    ("efficientnet_b5", 1.0): 30_389_784,
    ("efficientnet_b6", 1.0): 43_040_704,
    ("efficientnet_b7", 1.0): 66_347_960,
    ("efficientnet_lite0", 1.0): 4_652_008,
    ("efficientnet_lite1", 1.0): 5_416_680,
    ("efficientnet_lite2", 1.0): 6_092_072,
    ("efficientnet_lite3", 1.0): 8_197_096,
    ("efficientnet_lite4", 1.0): 13_006_568,
    ("efficientnet_v2_b0", 1.0): 7_139_704,
    ("efficientnet_v2_b1", 1.0): 8_141_052,
    ("efficientnet_v2_b2", 1.0): 10_096_086,
    ("efficientnet_v2_b3", 1.0): 14_358_406,
    ("efficientnet_v2_s", 1.0): 21_458_488,
    ("efficientnet_v2_m", 1.0): 54_139_356,
    ("efficientnet_v2_l", 1.0): 118_515_272,
    ("efficientnet_v2_xl", 1.0): 208_119_808,
    ("convnext_atto", 1.0): 3_695_520,
    ("convnext_femto", 1.0): 5_217_784,
    ("convnext_pico", 1.0): 9_045_672,
    ("convnext_nano", 1.0): 15_593_560,
    ("convnext_tiny", 1.0): 28_589_128,
    ("convnext_small", 1.0): 50_223_688,
    ("convnext_base", 1.0): 88_591_464,
    ("convnext_large", 1.0): 197_767_336,
    ("convnext_xlarge", 1.0): 350_196_968,
    ("convnext_v2_atto", 1.0): 3_708_400,
    ("convnext_v2_femto", 1.0): 5_233_240,
    ("convnext_v2_pico", 1.0): 9_066_280,
    ("convnext_v2_nano", 1.0): 15_623_800,
    ("convnext_v2_tiny", 1.0): 28_635_496,
    ("convnext_v2_base", 1.0): 88_717_800,
    ("convnext_v2_large", 1.0): 197_956_840,
    ("convnext_v2_huge", 1.0): 660_289_640,
    ("resnet18", 1.0): 11_689_512,
    ("resnet34", 1.0): 21_797_672,
    ("resnet50", 1.0): 25_557_032,
    ("vgg16", 1.0): 138_357_544,
}


@pytest.mark.parametrize(("name", "width"), PARAMETERS)
def test_parameters_are_the_published_number(name: str, width: float) -> None:
    with torch.device("meta"):
        network = build(variant(name).spec(width=width))
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name, width]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_a_published_number(name: str) -> None:
    assert (name, 1.0) in PARAMETERS


def test_rounding_follows_mobilenet_v2() -> None:
    # The 90% rule is why alpha 0.35's stem has 16 channels and not 8 (facts, section 0).
    assert [round_channels(c) for c in (3, 11.2, 24 * 0.35, 320 * 0.35, 32)] == [8, 16, 8, 112, 32]
    assert round_channels(32 * 0.35, divisor=1) == 11


def test_squeeze_widths_are_the_papers() -> None:
    def squeezes(name: str) -> list[int]:
        return [b.squeeze for stage in variant(name).spec().stages for b in stage if b.squeeze]

    assert squeezes("mobilenet_v3_large") == [24, 32, 32, 120, 168, 168, 240, 240]
    assert squeezes("mobilenet_v3_small") == [8, 24, 64, 64, 32, 40, 72, 144, 144]
    b0 = [8, 4, 6, 6, 10, 10, 20, 20, 20, 28, 28, 28, 48, 48, 48, 48]
    assert squeezes("efficientnet_b0") == b0
    assert squeezes("efficientnet_lite0") == []


def test_channels_of_b3_are_the_published_ones() -> None:
    spec = variant("efficientnet_b3").spec()
    assert (spec.stem.out, spec.head.conv) == (40, 1536)
    assert [len(stage) for stage in spec.stages] == [2, 3, 3, 5 + 5, 6 + 2]
    assert [f.channels for f in spec.features()] == [24, 32, 48, 136, 384]


def _set(*path: Any) -> Any:
    """A change to the JSON of a spec: the last item becomes the value at the keys before it."""

    def change(spec: Any) -> None:
        *keys, last, value = path
        for key in keys:
            spec = spec[key]
        spec[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _set("stages", 2, 0, "kernel", "banana"),
            r"stages\[2\]\[0\].kernel: must be a valid integer",
        ),
        (_set("stages", 2, 0, "kernel", 4), r"stages\[2\]\[0\].kernel: must be one of 0, 1, 3"),
        (_set("stages", 1, 1, "out", -8), r"stages\[1\]\[1\].out: must be greater"),
        (_set("stages", 1, 1, "out", True), r"stages\[1\]\[1\].out: must be a valid integer"),
        (_set("stages", 1, 1, "out", 8), r"stages\[1\]\[1\]: skip needs"),
        (
            _set("stages", 3, 0, "stride", 3),
            r"stages\[3\]\[0\].stride: must be one of 1, 2, 4",
        ),
        (_set("stages", 0, 0, "stride", 2), r"stages\[0\]\[0\]: stride must be 1: only the first"),
        (_set("stages", 3, 0, "kind", "Magic"), r"stages\[3\]\[0\]: .*'Magic' .*'kind' .*'Conv'"),
        (_set("stages", 3, 0, "kernel", 0), r"stages\[3\]\[0\]: a stride needs a kernel"),
        (_set("stages", 3, 0, "out", 0), r"stages\[3\]\[0\]: out must be at least 1"),
        *((_set("head", "hidden", x), r"head.hidden.*: must be") for x in ([0], ["x"], 7)),
        (_set("stages", 3, 1, "stride", 2), r"stages\[3\]\[1\]: stride must be"),
        (_set("stages", 3, 1, "act", "swoosh"), r"stages\[3\]\[1\].act: must be one of .*'swoosh'"),
        (_set("stem", "rank", 1), "stem: rank must be 0"),
        (
            _set("stages", 3, 1, "expand_rank", 1),
            r"stages\[3\]\[1\]: expand_rank must be at most 0",
        ),
        (_set("stages", 3, 1, "expand_rank", -1), r"stages\[3\]\[1\].expand_rank: must be greater"),
        (_set("stages", 3, 1, []), r"stages\[3\]\[1\]: must be an object"),
        (_set("stages", 3, []), "stages: only the first may be empty"),
        (_set("stages", []), "stages: there must be one"),
        (_set("stages", "none"), "stages: must be a valid array"),
        (_set("stem", "out", 10**9), "stem.out: must be less"),
        (_set("head", "dropout", 1.5), "head.dropout: must be"),
        (_set("padding", "valid"), "padding: must be one of"),
        (_set("norm_eps", float("nan")), "norm_eps: must be less"),
        (_set("flavour", "vanilla"), "spec: flavour: no such field"),
        (lambda spec: spec.pop("classes"), "spec: classes: is missing"),
        (lambda spec: spec["stages"][4][0].pop("out"), r"stages\[4\]\[0\].out: is missing"),
    ],
)
def test_nonsense_names_the_row(change: Any, message: str) -> None:
    value = json.loads(json.dumps(variant("mobilenet_v2").spec().to_json()))
    change(value)
    with pytest.raises(UsageError, match=message):
        Spec.from_json(value)


@pytest.mark.parametrize(
    ("name", "field", "most"),
    [
        ("resnet18", "first_rank", 9),
        ("resnet18", "rank", 9),
        ("resnet50", "rank", 0),  # its only 3x3 convolution is the first
        ("vgg16", "rank", 9),
        ("efficientnet_v2_s", "expand_rank", 9),
        ("mobilenet_v2", "expand_rank", 0),  # 1x1
    ],
)
def test_a_rank_is_at_most_the_area_of_a_dense_kernel(name: str, field: str, most: int) -> None:
    value = variant(name).spec().to_json()
    block = value["stages"][-2][-1]
    if name == "efficientnet_v2_s":
        block["expand_kernel"] = 3
    block[field] = most
    Spec.from_json(value)
    block[field] = most + 1
    with pytest.raises(UsageError, match=f": {field} must be at most {most}"):
        Spec.from_json(value)


@pytest.mark.parametrize(
    ("block", "field"),
    [
        (MBConv(out=24, expand=64), "expand"),
        (MBConv(out=24, squeeze=8), "squeeze"),
        (ConvNeXt(out=24, expand=64), "expand"),
    ],
)
def test_a_row_refuses_channels_that_its_ratio_would_replace(block: AnyBlock, field: str) -> None:
    says = rf"{field}=\d+ of a row's .*Row\(block, {field}=\.\.\.\)"
    with pytest.raises(UsageError, match=says):
        Row(block)


def test_unknown_model_names_the_nearest_three() -> None:
    with pytest.raises(UsageError, match="Nearest: mobilenet_v3_large, mobilenet_v3_l"):
        variant("mobilenetv3_larg")


@pytest.mark.parametrize("width", [0, -1, float("nan"), float("inf")])
def test_width_must_be_above_0(width: float) -> None:
    with pytest.raises(UsageError, match="width"):
        variant("mobilenet_v2").spec(width=width)
