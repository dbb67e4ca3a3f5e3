"""Lessons about one convolution and what stands for it."""

from __future__ import annotations

from fractions import Fraction

from torch import nn

from edgewise.layers import Conv2d
from edgewise.lessons.clock import Clock
from edgewise.lessons.lesson import Lesson, Step
from edgewise.lessons.parts import costs, part, peak
from edgewise.lessons.words import LAST, bound, compare, layout, ratio, speeds


def depthwise_separable(
    clock: Clock,
    in_chans: int = 32,
    out: int = 64,
    kernel: int = 3,
    size: int = 112,
    stride: int = 1,
    dilation: int = 1,
) -> Lesson:
    """A convolution in two steps: pixels, then channels."""
    side = -(-size // stride)
    pixels, k2 = side**2, kernel**2
    weights = {
        "standard": k2 * in_chans * out,
        "depthwise": k2 * in_chans,
        "pointwise": in_chans * out,
    }
    both = weights["depthwise"] + weights["pointwise"]
    share = Fraction(1, out) + Fraction(1, k2)
    steps = (
        Step("side of the output", "⌈size / stride⌉", f"⌈{size} / {stride}⌉", side),
        Step(
            "weights, standard", "k² · in · out", f"{k2} · {in_chans} · {out}", weights["standard"]
        ),
        Step("weights, depthwise", "k² · in", f"{k2} · {in_chans}", weights["depthwise"]),
        Step("weights, pointwise", "in · out", f"{in_chans} · {out}", weights["pointwise"]),
        Step(
            "weights, both", "k² · in + in · out",
            f"{weights['depthwise']:,} + {weights['pointwise']:,}", both,
        ),
        *(
            Step(f"MACs, {name}", "weights · side²", f"{n:,} · {side}²", n * pixels)
            for name, n in (*weights.items(), ("both", both))
        ),
        Step("separable / standard", "1 / out + 1 / k²", f"1/{out} + 1/{k2}", share),
    )  # fmt: skip

    def standard() -> nn.Module:
        return Conv2d(in_chans, out, kernel, stride, dilation)

    def depthwise() -> nn.Module:
        return Conv2d(in_chans, in_chans, kernel, stride, dilation, groups=in_chans)

    def pointwise() -> nn.Module:
        return Conv2d(in_chans, out)

    image, middle = (1, in_chans, size, size), (1, in_chans, side, side)
    first = part(clock, "standard", standard, image)
    spatial = part(clock, "depthwise", depthwise, image)
    mixing = part(clock, "pointwise", pointwise, middle)
    whole = part(
        clock, "separable", lambda: nn.Sequential(depthwise(), pointwise()), image, copied=False
    )
    last = part(clock, LAST, depthwise, image, copied=False, channels_last=True)
    parts = (first, spatial, mixing, whole, last)
    best = peak(clock)
    return Lesson(
        name="depthwise-separable",
        title="Depthwise separable convolution",
        settings={},
        idea=(
            "A standard convolution mixes pixels and channels in one sum. A depthwise separable "
            "one first mixes the pixels of each channel by itself (depthwise), then the channels "
            "of each pixel (pointwise, 1 x 1). Its result is not the same function: it can't "
            "look at other pixels in another channel's way. What it saves is the product of the "
            "two costs, which becomes their sum."
        ),
        paper="MobileNetV1, arXiv 1704.04861, section 3.1",
        mistake="4-the-saving-of-a-separable-convolution",
        code=("conv_loops", "depthwise_conv_loops", "pointwise_conv_loops"),
        steps=steps,
        parts=parts,
        bars=costs("MACs and time", parts),
        findings=(
            f"The separable convolution has {ratio(1 / float(share))} times fewer MACs than the "
            "standard one. Here it took "
            f"{compare(whole.time.median_ms, first.time.median_ms, 'time')} the standard one.",
            bound(first, best),
            bound(spatial, best),
            bound(mixing, best),
            layout(spatial, last),
            speeds((first, spatial, mixing), best),
        ),
    )
