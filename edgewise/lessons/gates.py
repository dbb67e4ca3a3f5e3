"""Lessons about what multiplies a map and counts hardly any MACs: squeeze-excite, h-swish, GRN."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from edgewise import reference
from edgewise.layers import GRN, Conv2d, SqueezeExcite
from edgewise.lessons.clock import Clock
from edgewise.lessons.curves import curves
from edgewise.lessons.lesson import Bars, Lesson, Step, Table
from edgewise.lessons.parts import FLOAT, costs, part, peak
from edgewise.lessons.words import bound, compare, ratio
from edgewise.reporting.numbers import filesize, milliseconds, percent
from edgewise.table import round_channels


def squeeze_excite(clock: Clock, in_chans: int = 96, size: int = 28) -> Lesson:
    """A gate for each channel, from the means of all."""
    squeezed = round_channels(in_chans / 4)
    image, vector = (1, in_chans, size, size), (1, in_chans, 1, 1)

    def mean(x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)

    def gate() -> nn.Module:
        reduce, expand = (
            Conv2d(*chans, bias=True) for chans in ((in_chans, squeezed), (squeezed, in_chans))
        )
        return nn.Sequential(reduce, nn.ReLU(), expand, nn.Hardsigmoid())

    parts = (
        part(clock, "squeeze: the means", lambda: mean, image),
        part(clock, "excite: the gates", gate, vector),
        part(clock, "multiply", lambda: lambda x, gates: x * gates, image, vector),
        part(
            clock,
            "whole",
            lambda: SqueezeExcite(in_chans, squeezed, gate="hard_sigmoid"),
            image,
            copied=False,
        ),
        part(
            clock,
            "depthwise 3 x 3",
            lambda: Conv2d(in_chans, in_chans, 3, groups=in_chans),
            image,
        ),
    )
    means, gates, multiply, whole, depthwise = parts
    matrices, biases = 2 * in_chans * squeezed, squeezed + in_chans
    moved = 3 * FLOAT * in_chans * size**2
    steps = sum(p.time.median_ms for p in (means, gates, multiply))
    return Lesson(
        name="squeeze-excite",
        title="Squeeze-excite",
        settings={},
        idea=(
            "Each channel is multiplied by a gate between 0 and 1. The gates depend on the whole "
            "image: the mean of each channel goes through two small layers, narrow in the middle. "
            "MobileNetV3 squeezes to a quarter of the expanded channels and gates with a hard "
            "sigmoid; that is what is shown here."
        ),
        paper="Squeeze-and-excitation, arXiv 1709.01507; MobileNetV3, 1905.02244, figure 4",
        mistake="6-squeeze-excite-without-its-activations",
        code=("squeeze_excite_loops",),
        steps=(
            Step("squeezed", "in / 4, to 8s", f"{in_chans} / 4", squeezed),
            Step("MACs", "2 · in · squeezed", f"2 · {in_chans} · {squeezed}", matrices),
            Step(
                "parameters",
                "MACs + squeezed + in",
                f"{matrices:,} + {squeezed} + {in_chans}",
                matrices + biases,
            ),
            Step(
                "bytes of the map moved",
                "3 · 4 · in · size²",
                f"3 · 4 · {in_chans} · {size}²",
                moved,
            ),
        ),
        parts=parts,
        bars=costs("MACs and time", parts),
        findings=(
            f"It has {ratio(depthwise.macs / whole.macs)} times fewer MACs than a depthwise 3 x 3 "
            f"convolution on the same map, and took "
            f"{compare(whole.time.median_ms, depthwise.time.median_ms, 'time')} that.",
            f"Its MACs are in the two small layers. But it reads the map for the means, reads it "
            f"again and writes it: {filesize(moved)}. Of the time of the three steps the means "
            f"took {percent(means.time.median_ms / steps)}, the gates "
            f"{percent(gates.time.median_ms / steps)} and the product "
            f"{percent(multiply.time.median_ms / steps)}.",
            bound(multiply, peak(clock)),
            "The product can't begin before the last pixel is summed, so no runtime can fuse it "
            "into the convolution before it; and in int8 each step is an operator with its own "
            "rounding. EfficientNet-Lite and MobileNetV4 leave it out.",
        ),
    )


def h_swish(clock: Clock, in_chans: int = 96, size: int = 56) -> Lesson:
    """Swish without an exponential."""
    shape = (1, in_chans, size, size)
    functions = {
        "ReLU": F.relu,
        "ReLU6": F.relu6,
        "h-swish": F.hardswish,
        "swish": F.silu,
        "GELU": F.gelu,
    }
    parts = tuple(
        part(clock, name, lambda f=f: f, shape)  # type: ignore[misc]
        for name, f in functions.items()
    )
    relu, _, hard, soft, _ = parts
    x = np.linspace(-8, 8, 1601)
    swish = x / (1 + np.exp(-x))
    near = slice(400, 1201, 10)  # -4 .. 4, where they differ
    gap = np.abs(reference.h_swish(x) - swish)
    points = np.array([-4.0, -3, -1.5, 0, 1, 3, 6])
    numbers = in_chans * size**2
    return Lesson(
        name="h-swish",
        title="h-swish, the hard swish",
        settings={},
        idea=(
            "Swish, x · sigmoid(x), makes networks a little more accurate than ReLU, but it needs "
            "an exponential for each number. h-swish has a straight line in the place of the "
            "sigmoid, x · ReLU6(x + 3) / 6: additions, comparisons and products, which small "
            "hardware has, and which keep their range in int8."
        ),
        paper="MobileNetV3, arXiv 1905.02244, section 5.2",
        mistake="5-h-swish-with-a-sigmoid",
        code=("h_swish_loops",),
        steps=(
            Step("numbers in the map", "in · size²", f"{in_chans} · {size}²", numbers),
            Step("MACs", "none", "element by element", 0),
            Step("bytes moved", "2 · 4 · numbers", f"2 · 4 · {numbers:,}", 2 * FLOAT * numbers),
            Step("furthest from swish", "max |h-swish - swish|", "on -8 .. 8", float(gap.max())),
        ),
        parts=parts,
        bars=_times("Time of one call", parts),
        tables=(
            Table(
                "By hand",
                ("x", "swish", "h-swish", "ReLU6"),
                tuple(
                    (f"{p:g}", *(f"{float(y):.4f}" for y in ys))
                    for p, *ys in zip(
                        points,
                        points / (1 + np.exp(-points)),
                        reference.h_swish(points) + 0.0,  # no -0
                        np.clip(points, 0, 6),
                        strict=True,
                    )
                ),
            ),
        ),
        plots=(
            curves(
                "swish and h-swish",
                "x",
                x[near],
                {"swish": swish[near], "h-swish": reference.h_swish(x[near])},
            ),
        ),
        findings=(
            f"It is never further than {math.ceil(1000 * gap.max()) / 1000} from swish, at x = "
            f"{abs(x[gap.argmax()]):.2g} and its negative.",
            f"On {numbers:,} numbers h-swish took "
            f"{compare(hard.time.median_ms, soft.time.median_ms, 'time')} swish, and "
            f"{compare(hard.time.median_ms, relu.time.median_ms, 'time')} ReLU: "
            f"{milliseconds(hard.time.median_ms)}, {milliseconds(soft.time.median_ms)} and "
            f"{milliseconds(relu.time.median_ms)}.",
            f"Only copying the {filesize(hard.bytes)} takes {milliseconds(hard.copy_ms or 0)}: "
            f"{percent(min(1.0, (hard.copy_ms or 0) / hard.time.median_ms))} of h-swish's time is "
            "traffic. Fused into the convolution before it, as runtimes do with ReLU6, an "
            "activation costs nearly nothing; as an operator of its own, no arithmetic that is "
            "saved buys back the traffic.",
        ),
    )


def grn(clock: Clock, in_chans: int = 40, size: int = 56, expand: int = 4) -> Lesson:
    """Channels that compete."""
    wide = in_chans * expand
    narrow, inside = (1, in_chans, size, size), (1, wide, size, size)
    parts = (
        part(
            clock, "depthwise 7 x 7", lambda: Conv2d(in_chans, in_chans, 7, groups=in_chans), narrow
        ),
        part(clock, "expand (1 x 1)", lambda: Conv2d(in_chans, wide), narrow),
        part(clock, "GELU", nn.GELU, inside),
        part(clock, "GRN", lambda: GRN(wide), inside),
        part(clock, "project (1 x 1)", lambda: Conv2d(wide, in_chans), inside),
    )
    total = sum(p.time.median_ms for p in parts)
    norm = parts[3]
    ones, zeros = np.ones(2), np.zeros(2)
    example = np.array([[[[3.0, 4.0]], [[0.0, 15.0]]]])
    rows = []
    for name, x in (("the map", example), ("ten times the map", 10 * example)):
        norms = np.sqrt((x**2).sum((2, 3)))[0]
        factors = ((reference.grn(x, ones, zeros) - x) / np.where(x == 0, 1, x))[0, :, 0, 1]
        rows.append((name, *norms.tolist(), float(norms.mean()), *factors.tolist()))
    return Lesson(
        name="grn",
        title="Global response normalisation",
        settings={},
        idea=(
            "Each channel is multiplied by its L2 norm over the map, divided by the mean of all "
            "channels' norms; then it is scaled, shifted and added to the input. Channels compete: "
            "one that is louder than the average grows, one that is quieter fades. Scale and "
            "shift begin at zero, so a fresh layer changes nothing. ConvNeXt V2 has it after the "
            "activation, where the block is widest."
        ),
        paper="ConvNeXt V2, arXiv 2301.00808, algorithm 1",
        mistake="13-grn-without-its-mean",
        code=("grn_loops",),
        steps=(
            Step("width inside", "expand · in", f"{expand} · {in_chans}", wide),
            Step("parameters", "2 · wide", f"2 · {wide}", 2 * wide),
            Step("MACs", "none", "element by element", 0),
            Step("numbers in the map", "wide · size²", f"{wide} · {size}²", wide * size**2),
        ),
        parts=parts,
        bars=costs("MACs and time of a ConvNeXt V2 block's parts", parts),
        tables=(
            Table(
                "By hand: two channels, (3, 4) and (0, 15), scale 1, shift 0",
                (
                    "input",
                    "first norm",
                    "second norm",
                    "their mean",
                    "first weight",
                    "second weight",
                ),
                tuple(rows),
            ),
        ),
        findings=(
            f"GRN has {2 * wide:,} parameters and no MACs at all, and took "
            f"{milliseconds(norm.time.median_ms)}, {percent(norm.time.median_ms / total)} of the "
            "time of the block's parts.",
            bound(norm, peak(clock)),
            "It has to see the whole map before it can change the first pixel. In eager PyTorch "
            "the norm reads the map, two products and the sum with the shift read and write it, "
            "and the sum with the input reads two and writes one: ten times "
            f"{filesize(FLOAT * wide * size**2)}.",
            "Ten times the contrast gives the same weights: the mean takes the size of the input "
            "away. Without it the answer would grow with the square of the contrast.",
        ),
    )


def _times(title: str, parts: tuple[object, ...]) -> Bars:
    bars = costs(title, parts)  # type: ignore[arg-type]
    return Bars(title, ("time",), tuple((name, values[1:]) for name, values in bars.rows))
