"""Rows whose times are given by a formula, so that every answer can be worked out by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from edgewise.families import variant
from edgewise.search.latency_table_parts import Part, RowAlone, Whole, rows_of
from edgewise.spec import Conv, Head, MBConv, Spec

SIZE = 32
PER_WORK = 1e-5  # milliseconds
OVERHEAD = 0.002  # of each row
SHARE = 0.8  # of its rows' times is a whole network's


def row_ms(part: RowAlone) -> float:
    """A sum of products of the row's widths: strides are left out."""
    row, chans = part.row, part.in_chans
    if isinstance(row, Conv):
        work = row.kernel**2 * chans * row.out
    elif isinstance(row, MBConv):
        wide = row.expand or chans
        work = (chans * wide if row.expand else 0) + wide * (row.kernel**2 + row.out)
        work += 2 * wide * row.squeeze
    else:
        assert isinstance(row, Head)
        work = chans * row.conv + row.conv * part.classes
    return OVERHEAD + PER_WORK * work * part.side**2


def network_ms(spec: Spec) -> float:
    return SHARE * sum(row_ms(row) for row in rows_of(spec, SIZE).values())


class Formula:
    """The times, and what was asked for."""

    def __init__(self) -> None:
        self.asked: list[Part] = []

    def of(self, parts: Iterable[Part]) -> dict[Part, float]:
        new = list(dict.fromkeys(parts))
        self.asked += new
        return {part: self.ms(part) for part in new}

    def ms(self, part: Part) -> float:
        if isinstance(part, Whole):
            return network_ms(part.spec)
        assert isinstance(part, RowAlone)
        return row_ms(part)


def small_spec() -> Spec:
    """MobileNetV3's first five stages, one or two blocks each: squeeze-excite and a residual."""
    spec = variant("mobilenet_v3_small").spec(1.0, classes=7)
    return replace(spec, stages=tuple(stage[:2] for stage in spec.stages[:4]))
