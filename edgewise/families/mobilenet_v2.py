"""MobileNetV2: Sandler et al., arXiv 1801.04381, table 2."""

from edgewise.spec import MBConv
from edgewise.table import Channels, Row, Table, Variant


def bottleneck(t: float, c: int, n: int, s: int) -> Row:
    """Expand by t, depthwise 3x3, project to c; n times, the first with stride s."""
    return Row(MBConv(out=c, stride=s), n, expand=t)


TABLE = Table(
    name="mobilenet_v2",
    stem=Channels(32),
    rows=(
        #          t  c    n  s
        bottleneck(1, 16, 1, 1),
        bottleneck(6, 24, 2, 2),
        bottleneck(6, 32, 3, 2),
        bottleneck(6, 64, 4, 2),
        bottleneck(6, 96, 3, 1),
        bottleneck(6, 160, 3, 2),
        bottleneck(6, 320, 1, 1),
    ),
    head_conv=Channels(1280, "up"),  # the width multiplier leaves it alone below 1
)

VARIANTS = (Variant("mobilenet_v2", TABLE, 224, 72.0, "paper", timm="mobilenetv2_100"),)
