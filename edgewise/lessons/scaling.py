"""Lessons about a whole network made smaller or larger: width, resolution, both with depth."""

from __future__ import annotations

import math
from fractions import Fraction

from edgewise.families import efficientnet, variant
from edgewise.lessons.clock import Clock
from edgewise.lessons.curves import curves
from edgewise.lessons.lesson import Lesson, Part, Step, Table
from edgewise.lessons.network import fresh
from edgewise.lessons.parts import costs, part
from edgewise.lessons.words import compare, ratio, two
from edgewise.measure.count import count
from edgewise.reporting.charts import Plot
from edgewise.spec import Spec
from edgewise.table import scale

WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.4)  # MobileNetV2's published ones
SIZES = 5  # evenly from 3/7 of the published size, as MobileNet's 96, 128, 160, 192 of 224
STEP = 32  # a network of stride 32 keeps whole pixels

# EfficientNet's coefficients for depth, width and resolution, found by a grid search on B0.
ALPHA, BETA, GAMMA = Fraction(6, 5), Fraction(11, 10), Fraction(23, 20)


def width(clock: Clock, model: str = "mobilenet_v2", size: int = 0) -> Lesson:
    """Fewer channels everywhere."""
    known = variant(model)
    size = size or known.input_size
    parts = tuple(_network(clock, f"width {w:g}", known.spec(w), size) for w in WIDTHS)
    whole = parts[WIDTHS.index(1.0)]
    least = parts[0]
    grown = math.log(whole.macs / least.macs) / math.log(1 / WIDTHS[0])
    return Lesson(
        name="width",
        title="The width multiplier",
        settings={"size": size},
        idea=(
            "One number multiplies the channels of every layer. Most MACs are in 1 x 1 "
            "convolutions, whose inputs and outputs both shrink: so the MACs go with the square of "
            "the width. Three things keep it from being exact: depthwise convolutions and the "
            "first layer go with the width itself, channels are rounded to multiples of 8, and "
            "some networks don't scale their head."
        ),
        paper="MobileNetV1, arXiv 1704.04861, section 3.3",
        steps=(
            Step("MACs, 1 x 1", "w·in · w·out · side²", "w²", "square"),
            Step("MACs, depthwise", "k² · w·in · side²", "w", "linear"),
            Step("MACs at 0.5 / at 1", "0.5²", "1/4", Fraction(1, 4)),
            Step(
                "the same, counted",
                "MACs / MACs",
                f"{parts[1].macs:,} / {whole.macs:,}",
                parts[1].macs / whole.macs,
            ),
        ),
        parts=parts,
        bars=costs("MACs and time", parts),
        plots=(_relative("Percent of width 1", "width", WIDTHS, parts, whole),),
        findings=(
            f"From width 1 to {WIDTHS[0]} the MACs of {model} fall by {_times(whole, least)} and "
            f"the parameters by {ratio(whole.params / least.params)}; the square of the width "
            f"would be {ratio(1 / WIDTHS[0] ** 2)}. It is as if they went with the power "
            f"{grown:.2f} of the width.",
            _time_follows(whole, least),
        ),
    )


def resolution(clock: Clock, model: str = "mobilenet_v2") -> Lesson:
    """The same network on smaller images."""
    known = variant(model)
    own = known.input_size
    low = own * 3 / 7
    sizes = [round((low + i * (own - low) / (SIZES - 1)) / STEP) * STEP for i in range(SIZES - 1)]
    sizes.append(own)
    spec = known.spec()
    parts = tuple(_network(clock, f"{size} px", spec, size) for size in sizes)
    whole, least = parts[-1], parts[0]
    return Lesson(
        name="resolution",
        title="The resolution of the image",
        settings={},
        idea=(
            "The same weights on a smaller image. Each convolution does its sums once for each "
            "pixel of its output, so the MACs go with the square of the image's side. The "
            "parameters stay, and so do the layers after the pooling."
        ),
        paper="MobileNetV1, arXiv 1704.04861, section 3.3",
        steps=tuple(
            Step(
                f"{size}² / {own}²",
                "(size / full)²",
                f"MACs {p.macs:,}",
                Fraction(size**2, own**2),
            )
            for size, p in zip(sizes, parts, strict=True)
        ),
        parts=parts,
        bars=costs("MACs and time", parts),
        plots=(_relative(f"Percent of {own} px", "image side, px", sizes, parts, whole),),
        findings=(
            f"From {own} to {sizes[0]} px the MACs of {model} fall by {_times(whole, least)}; the "
            f"square of the side is {ratio((own / sizes[0]) ** 2)}. The parameters stay: "
            f"{whole.params:,}.",
            _time_follows(whole, least),
        ),
    )


def compound_scaling(clock: Clock, size: int = 224) -> Lesson:
    """Depth, width and resolution together."""
    factor = ALPHA * BETA**2 * GAMMA**2
    side = round(size * float(GAMMA))
    root = math.sqrt(factor)
    table, one = efficientnet.TABLE, 1.0
    larger = round(size * root)
    shapes = {
        "B0": (one, one, size),
        f"deeper: {float(factor):.2f} times": (one, float(factor), size),
        f"wider: {root:.2f} times": (root, one, size),
        f"larger: {larger} px": (one, one, larger),
        f"all three: {float(ALPHA)}, {float(BETA)}, {side} px": (float(BETA), float(ALPHA), side),
    }
    parts = tuple(
        _network(clock, name, scale(table, w, d), pixels) for name, (w, d, pixels) in shapes.items()
    )
    base, deeper, wider, big, together = parts
    quick = min(parts[1:], key=lambda p: p.time.median_ms)
    return Lesson(
        name="compound-scaling",
        title="Compound scaling",
        settings={},
        idea=(
            "A network can be made deeper, wider, or given larger images. EfficientNet does all "
            "three at once, in a fixed proportion that was searched once on the smallest network, "
            "B0: for each step of phi the depth grows by alpha, the width by beta, the side of the "
            "image by gamma. MACs go with depth, with the square of width and of side. B2 "
            "is this rule at phi = 1, rounded."
        ),
        paper="EfficientNet, arXiv 1905.11946, section 3.3",
        mistake="2-efficientnet-b0-at-39-million",
        steps=(
            Step("depth", "alpha", str(ALPHA), float(ALPHA)),
            Step("width", "beta", str(BETA), float(BETA)),
            Step("side", "gamma", str(GAMMA), float(GAMMA)),
            Step("MACs at phi = 1", "alpha · beta² · gamma²", str(factor), float(factor)),
            Step(
                "the same, counted",
                "MACs / MACs of B0",
                f"{together.macs:,} / {base.macs:,}",
                together.macs / base.macs,
            ),
        ),
        parts=parts,
        bars=costs("Four ways to a larger network", parts),
        tables=(
            _published(),
            Table(
                "Against B0",
                ("network", "MACs", "parameters", "bytes moved", "time"),
                tuple(
                    (
                        p.name,
                        p.macs / base.macs,
                        p.params / base.params,
                        p.bytes / base.bytes,
                        p.time.median_ms / base.time.median_ms,
                    )
                    for p in parts
                ),
            ),
        ),
        findings=(
            f"The rule says {float(factor):.2f} times the MACs, the counted network has "
            f"{together.macs / base.macs:.2f}: repeats are rounded up, channels to multiples of 8, "
            "and stem and head have no depth.",
            f"By depth alone the MACs grow {deeper.macs / base.macs:.2f} times, by width alone "
            f"{wider.macs / base.macs:.2f}, by the image alone {big.macs / base.macs:.2f}; the "
            f"parameters {deeper.params / base.params:.2f}, {wider.params / base.params:.2f} and "
            f"{big.params / base.params:.2f} times.",
            f"Quickest for each MAC here is '{quick.name}': {quick.speed:.3g} GMAC/s, at "
            f"{two(quick.intensity)} MACs for each byte moved; all three together do "
            f"{together.speed:.3g} at {two(together.intensity)}. The rule was made for MACs and "
            "accuracy, not for this machine's milliseconds.",
        ),
    )


def _published() -> Table:
    """EfficientNet's own steps."""
    first = variant("efficientnet_b0")
    base = count(first.spec(), first.input_size).macs
    rows = []
    for i in range(8):
        known = variant(f"efficientnet_b{i}")
        macs = count(known.spec(), known.input_size).macs
        rows.append((known.name, known.depth, known.width, known.input_size, macs, macs / base))
    header = ("published", "depth", "width", "side", "MACs", "times B0")
    return Table("The published networks, counted", header, tuple(rows))


def _network(clock: Clock, name: str, spec: Spec, size: int) -> Part:
    shape = (1, spec.in_chans, size, size)
    return part(clock, name, lambda: fresh(spec, size), shape, copied=False)


def _times(more: Part, less: Part) -> str:
    return f"{ratio(more.macs / less.macs)} times"


def _time_follows(whole: Part, least: Part) -> str:
    """How much of the saving in MACs arrives as time, and why not all."""
    change = compare(least.speed, whole.speed, "work a second")
    return (
        f"Here {least.name} took "
        f"{compare(least.time.median_ms, whole.time.median_ms, 'time')} {whole.name}, for "
        f"{_times(whole, least)} fewer MACs: it does {change} the large one, {least.speed:.3g} "
        f"against {whole.speed:.3g} GMAC/s, with {two(least.intensity)} against "
        f"{two(whole.intensity)} MACs for each byte that its layers move."
    )


def _relative(
    title: str, x_name: str, xs: tuple[float, ...] | list[int], parts: tuple[Part, ...], to: Part
) -> Plot:
    return curves(
        title,
        x_name,
        xs,
        {
            "time": [100 * p.time.median_ms / to.time.median_ms for p in parts],
            "MACs": [100 * p.macs / to.macs for p in parts],
            "parameters": [100 * p.params / to.params for p in parts],
        },
    )
