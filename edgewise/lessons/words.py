"""Numbers as sentences, so that what a lesson says follows from what was counted and timed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgewise.lessons.lesson import Part
from edgewise.lessons.parts import FLOAT
from edgewise.reporting.numbers import filesize, percent
from edgewise.reporting.numbers import milliseconds as _ms

SAME = 1.1  # times closer than this are not told apart: two runs differ by as much

LAST = "depthwise, channels last"
FAR = 2.0  # times a limit that the limit doesn't explain
READ_AND_WRITTEN = 3  # times its map, at most, that a part moves in one pass: it may read two


def ratio(value: float) -> str:
    """7.89 -> "7.9"; 12.3 -> "12"."""
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def two(value: float) -> str:
    """Two digits, or the whole number: 1.12 -> "1.1"; 1234 -> "1,234"."""
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}"


def compare(one: float, other: float, noun: str) -> str:
    """What `one` takes of `noun` against `other`: "40% of the time of"."""
    larger = max(one, other) / min(one, other)
    if larger < SAME:
        return f"about as much {noun} as"
    if one < other:
        return f"{percent(one / other)} of the {noun} of"
    return f"{ratio(larger)} times the {noun} of"


def bound(part: Part, peak: float) -> str:
    """Which of its two limits holds for a part, and how far it is from that.

    `peak` is in GMAC/s. The limits are the sums at that speed and a copy of as many bytes.
    """
    sums, copy, took = part.macs / peak / 1e6, part.copy_ms or 0.0, part.time.median_ms
    what, limit = ("the sums", sums) if sums > copy else ("moving the data", copy)
    away = took / limit
    told = f"{ratio(away)} times that" if away >= SAME else "about that"
    if away < 1 / SAME:
        told = f"less than that{_why_less(part)}"
    if away >= FAR:
        told += "; the rest is neither, but how PyTorch goes about it"
    name, moving = part.name[0].upper() + part.name[1:], f"only copying its bytes takes {_ms(copy)}"
    if not part.macs:
        return f"{name} counts no MACs, but {moving}. It took {_ms(took)}, {told}."
    return (
        f"{name}: {two(part.intensity)} MACs for each byte it moves. At the speed of a matrix "
        f"product its sums take {_ms(sums)}, and {moving}: its limit is {what}. It took "
        f"{_ms(took)}, {told}."
    )


def _why_less(part: Part) -> str:
    """What is known of a part that took less than its limit."""
    map_ = FLOAT * math.prod(part.output)
    if part.macs or part.bytes <= READ_AND_WRITTEN * map_:
        return "; why isn't known"
    return (
        f": it goes over the same {filesize(map_)} again and again, which can stay in the cache, "
        "and the copy goes over all of the bytes once"
    )


def layout(first: Part, last: Part) -> str:
    """The same convolution on maps that are stored in the other order."""
    return (
        f"Stored channels last (all channels of a pixel side by side), the same {first.name} "
        f"convolution took {compare(last.time.median_ms, first.time.median_ms, 'time')} the one "
        f"that is stored channel by channel: {_ms(last.time.median_ms)}, with the same MACs and "
        "the same bytes."
    )


def speeds(parts: Sequence[Part], peak: float) -> str:
    """How fast each part did its MACs, beside what this core can do."""
    each = ", ".join(f"{part.name} at {part.speed:.3g}" for part in parts if part.macs)
    return (
        f"In GMAC/s, where one core reaches {peak:.3g} in a matrix product: {each}. MACs are not "
        "equally fast, so their ratio is not the ratio of the times."
    )
