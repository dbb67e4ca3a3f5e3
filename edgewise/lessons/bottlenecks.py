"""Lessons about blocks that are narrow outside and wide inside: MobileNetV2's and V4's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import nn

from edgewise.blocks import UIB, InvertedResidual
from edgewise.families import variant
from edgewise.layers import Conv2d
from edgewise.lessons.clock import Clock
from edgewise.lessons.lesson import Lesson, Part, Step
from edgewise.lessons.parts import FLOAT, costs, part, peak
from edgewise.lessons.words import LAST, bound, compare, layout, ratio, two
from edgewise.reporting.numbers import filesize, milliseconds, percent
from edgewise.spec import MBConv

EXAMPLE = "mobilenet_v4_conv_medium"
FORMS = {  # of a UIB, by whether it has a start and a middle kernel
    (False, False): "feed-forward",
    (True, False): "ConvNeXt-like",
    (False, True): "inverted bottleneck",
    (True, True): "extra depthwise",
}


def inverted_residual(
    clock: Clock,
    in_chans: int = 24,
    out: int = 24,
    kernel: int = 3,
    size: int = 56,
    stride: int = 1,
    expand: int = 6,
) -> Lesson:
    """Wide inside, narrow outside."""
    wide, side, k2 = in_chans * expand, -(-size // stride), kernel**2
    weights = (in_chans * wide, k2 * wide, wide * out)
    macs = (weights[0] * size**2, weights[1] * side**2, weights[2] * side**2)
    image, inside, after = (1, in_chans, size, size), (1, wide, size, size), (1, wide, side, side)
    parts = (
        part(clock, "expand (1 x 1)", lambda: Conv2d(in_chans, wide), image),
        part(clock, "depthwise", lambda: Conv2d(wide, wide, kernel, stride, groups=wide), inside),
        part(clock, "project (1 x 1)", lambda: Conv2d(wide, out), after),
        part(
            clock,
            "whole block",
            lambda: InvertedResidual(in_chans, out, kernel, stride, wide),
            image,
            copied=False,
        ),
        part(clock, "standard, as wide", lambda: Conv2d(wide, wide, kernel, stride), inside),
        part(
            clock,
            LAST,
            lambda: Conv2d(wide, wide, kernel, stride, groups=wide),
            inside,
            copied=False,
            channels_last=True,
        ),
    )
    outside, within = (FLOAT * n * size**2 for n in (in_chans, wide))
    skip = stride == 1 and in_chans == out
    return Lesson(
        name="inverted-residual",
        title="Inverted residual with a linear bottleneck",
        settings={},
        idea=(
            "A residual block whose ends are narrow and whose inside is wide, the other way round "
            "than ResNet's. A 1 x 1 convolution expands, a depthwise one looks at the pixels, a "
            "1 x 1 one projects back, without an activation, which would cut away half of the "
            "little room at the narrow end. "
            + (
                "The input is added to the result."
                if skip
                else "Nothing is added here: that takes stride 1 and as many channels out as in."
            )
        ),
        paper="MobileNetV2, arXiv 1801.04381, section 3.3",
        mistake="9-an-inverted-residual-that-is-not-one",
        code=("pointwise_conv_loops", "depthwise_conv_loops"),
        steps=(
            Step("width inside", "expand · in", f"{expand} · {in_chans}", wide),
            Step("weights, expand", "in · wide", f"{in_chans} · {wide}", weights[0]),
            Step("weights, depthwise", "k² · wide", f"{k2} · {wide}", weights[1]),
            Step("weights, project", "wide · out", f"{wide} · {out}", weights[2]),
            Step("MACs, expand", "weights · size²", f"{weights[0]:,} · {size}²", macs[0]),
            Step("MACs, depthwise", "weights · side²", f"{weights[1]:,} · {side}²", macs[1]),
            Step("MACs, project", "weights · side²", f"{weights[2]:,} · {side}²", macs[2]),
            Step("MACs, block", "the sum", " + ".join(f"{n:,}" for n in macs), sum(macs)),
            Step(
                "MACs, standard",
                "k² · wide² · side²",
                f"{k2} · {wide}² · {side}²",
                k2 * wide**2 * side**2,
            ),
        ),
        parts=parts,
        bars=costs("MACs and time", parts),
        findings=_inverted(parts, peak(clock), outside, within),
    )


def _inverted(parts: Sequence[Part], best: float, outside: int, within: int) -> tuple[str, ...]:
    """The findings; bytes of a map outside of the block and inside."""
    grown, middle, shrunk, block, standard, last = parts
    alone = sum(p.time.median_ms for p in (grown, middle, shrunk))
    rest = block.time.median_ms - alone
    return (
        f"The block looks at the pixels of {middle.output[0]} channels with "
        f"{ratio(standard.macs / block.macs)} times fewer MACs than a standard convolution of "
        "that width, and here took "
        f"{compare(block.time.median_ms, standard.time.median_ms, 'time')} that.",
        f"The depthwise convolution does {percent(middle.macs / block.macs)} of the block's "
        f"MACs and took {percent(middle.time.median_ms / alone)} of the time of the three "
        "convolutions.",
        bound(middle, best),
        layout(middle, last),
        bound(grown, best),
        f"Outside of the block a map takes {filesize(outside)}, inside {filesize(within)}. "
        "Only the narrow one has to be kept for the residual.",
        f"The three convolutions took {milliseconds(alone)} one by one and the block "
        f"{milliseconds(block.time.median_ms)}: "
        + (
            f"{milliseconds(rest)} went to batch norms, activations and the sum, which count "
            "no MACs. Folded into the convolutions, as an export does, the norms are free."
            if rest > 0
            else "its norms and activations are lost in this machine's noise."
        ),
    )


def uib(
    clock: Clock, in_chans: int = 96, kernel: int = 3, size: int = 14, expand: int = 4
) -> Lesson:
    """Four blocks in one."""
    wide, k2, pixels = in_chans * expand, kernel**2, size**2
    forms = {name: (kernel * start, kernel * middle) for (start, middle), name in FORMS.items()}
    shape = (1, in_chans, size, size)

    def block(start: int, middle: int) -> nn.Module:
        return UIB(in_chans, in_chans, start, middle, expand=expand)

    parts = tuple(
        part(clock, name, lambda form=form: block(*form), shape, copied=False)  # type: ignore[misc]
        for name, form in forms.items()
    )
    least, most = parts[0], parts[-1]
    pointwise, start, middle = 2 * in_chans * wide, k2 * in_chans, k2 * wide
    totals = {
        name: pointwise + bool(a) * start + bool(b) * middle for name, (a, b) in forms.items()
    }
    slow = max(parts, key=lambda p: p.time.median_ms)
    early, late = parts[1], parts[2]
    return Lesson(
        name="uib",
        title="Universal inverted bottleneck",
        settings={},
        idea=(
            "One path with two optional depthwise convolutions: expand and project are always "
            "there, a depthwise convolution may come before the expansion (start), after it "
            "(middle), both, or none. The four cases are a feed-forward layer, a ConvNeXt-like "
            "block, MobileNetV2's inverted bottleneck, and the extra-depthwise block, which sees "
            f"{2 * kernel - 1} x {2 * kernel - 1} pixels with two kernels of {kernel} x {kernel}."
        ),
        paper="MobileNetV4, arXiv 2404.10518, section 3.1",
        mistake="11-uib-as-three-branches",
        code=("depthwise_conv_loops", "pointwise_conv_loops"),
        steps=(
            Step("width inside", "expand · in", f"{expand} · {in_chans}", wide),
            Step("weights, both 1 x 1", "2 · in · wide", f"2 · {in_chans} · {wide}", pointwise),
            Step("weights, start", "k² · in", f"{k2} · {in_chans}", start),
            Step("weights, middle", "k² · wide", f"{k2} · {wide}", middle),
            *(
                Step(f"MACs, {name}", "weights · size²", f"{n:,} · {size}²", n * pixels)
                for name, n in totals.items()
            ),
        ),
        parts=parts,
        bars=costs("MACs and time", parts),
        findings=(
            f"From none to two depthwise convolutions the MACs grow by "
            f"{percent(most.macs / least.macs - 1)}. The last took "
            f"{compare(most.time.median_ms, least.time.median_ms, 'time')} the first.",
            f"A start kernel works on {in_chans} channels and a middle one on {wide}: as MACs "
            f"{start * pixels:,} against {middle * pixels:,}, and the ConvNeXt-like block took "
            f"{compare(early.time.median_ms, late.time.median_ms, 'time')} the inverted "
            "bottleneck.",
            f"The slowest here is {slow.name} with {milliseconds(slow.time.median_ms)}, at "
            f"{two(slow.intensity)} MACs for each byte moved; the feed-forward form does "
            f"{two(least.intensity)} and ran at {least.speed:.3g} GMAC/s against {slow.speed:.3g}.",
            f"Which form a block has was found by search under a latency budget: {EXAMPLE} has "
            f"{_chosen()}.",
        ),
    )


def _chosen() -> str:
    """How many blocks of the example have each form."""
    blocks = [block for stage in variant(EXAMPLE).spec().stages for block in stage]
    forms = Counter(
        FORMS[bool(block.start), bool(block.kernel)]
        for block in blocks
        if isinstance(block, MBConv) and block.expand_kernel == 1
    )
    return ", ".join(f"{times} x {form}" for form, times in forms.most_common())
