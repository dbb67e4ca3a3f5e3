"""MobileNetV1: Howard et al., arXiv 1704.04861, table 1.

The paper prints "s2" for the last depthwise convolution; with it the network has 534M MACs and not
the published 569M, so it is read as a slip, as in the authors' code. The activation is the code's
ReLU6. Channels are cut to whole numbers, not rounded to multiples of 8.
"""

from edgewise.spec import MBConv
from edgewise.table import Channels, Row, Table, Variant


def separable(c: int, s: int = 1, n: int = 1) -> Row:
    """Depthwise separable convolution: depthwise 3x3, then pointwise, both with activation."""
    return Row(MBConv(out=c, stride=s, linear=False, skip=False), n)


TABLE = Table(
    name="mobilenet_v1",
    stem=Channels(32),
    rows=(
        separable(64),
        separable(128, s=2),
        separable(128),
        separable(256, s=2),
        separable(256),
        separable(512, s=2),
        separable(512, n=5),
        separable(1024, s=2),
        separable(1024),
    ),
    divisor=1,
    dropout=0.001,
)

VARIANTS = (Variant("mobilenet_v1", TABLE, 224, 70.6, "paper", timm="mobilenetv1_100"),)
