"""MobileNetV1: Howard et al., arXiv 1704.04861, table 1.

The paper prints "s2" for the last depthwise convolution; with it the network has 534M MACs and not
the published 569M, so it is read as a slip, as in the authors' code. The activation is the code's
ReLU6. Channels are cut to whole numbers, not rounded to multiples of 8.
"""

from __future__ import annotations

from edgewise.families.variant import Variant
from edgewise.table import Channels, Row, Table


def _separable(out: int, stride: int = 1, repeats: int = 1) -> Row:
    """Depthwise separable convolution: depthwise 3x3, then pointwise, both with activation."""
    return Row(3, 1, out, stride, repeats, linear=False, skip=False)


TABLE = Table(
    name="mobilenet_v1",
    stem=Channels(32),
    rows=(
        _separable(64),
        _separable(128, stride=2),
        _separable(128),
        _separable(256, stride=2),
        _separable(256),
        _separable(512, stride=2),
        _separable(512, repeats=5),
        _separable(1024, stride=2),
        _separable(1024),
    ),
    head_conv=None,
    divisor=1,
)

VARIANTS = (Variant("mobilenet_v1", TABLE, 224, 70.6, "paper", dropout=0.001),)
