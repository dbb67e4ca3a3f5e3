"""EfficientNetV2: Tan and Le, arXiv 2104.00298, table 4, and the code for B0-B3, L and XL.

Early stages have the fused block: one k x k convolution for expansion and depthwise. Where it
doesn't expand it is that one convolution. Channels are rounded without the rule of the other
families that keeps 90% of them.
"""

from dataclasses import replace

from edgewise.spec import Conv, MBConv
from edgewise.table import Channels, Row, Table, Variant


def f(e: int, c: int, n: int, s: int) -> Row:
    """Fused-MBConv: 3x3 expansion by e, 1x1 to c; n times, the first with stride s."""
    if e == 1:
        return Row(Conv(out=c, stride=s, skip=True), n)
    return Row(MBConv(out=c, kernel=0, expand_kernel=3, stride=s), n, expand=e)


def m(e: int, c: int, n: int, s: int) -> Row:
    """MBConv: 1x1 expansion by e, depthwise 3x3, squeeze 1/4 of the input, 1x1 to c."""
    return Row(MBConv(out=c, stride=s, squeeze_act="silu"), n, expand=e, squeeze=1 / 4)


BASE = Table(
    name="efficientnet_v2",
    stem=Channels(32),
    rows=(
        f(1, 16, 1, 1),
        f(4, 32, 2, 2),
        f(4, 48, 2, 2),
        m(4, 96, 3, 2),
        m(6, 112, 5, 1),
        m(6, 192, 8, 2),
    ),
    head_conv=Channels(1280),
    act="silu",
    deepens=True,
    least=0.0,
    drop_path=0.2,
)
S = replace(
    BASE,
    stem=Channels(24),
    rows=(
        # e  c   n  s
        f(1, 24, 2, 1),
        f(4, 48, 4, 2),
        f(4, 64, 4, 2),
        m(4, 128, 6, 2),
        m(6, 160, 9, 1),
        m(6, 256, 15, 2),
    ),
)
M = replace(
    BASE,
    stem=Channels(24),
    rows=(
        f(1, 24, 3, 1),
        f(4, 48, 5, 2),
        f(4, 80, 5, 2),
        m(4, 160, 7, 2),
        m(6, 176, 14, 1),
        m(6, 304, 18, 2),
        m(6, 512, 5, 1),
    ),
)
L = replace(
    BASE,
    rows=(
        f(1, 32, 4, 1),
        f(4, 64, 7, 2),
        f(4, 96, 7, 2),
        m(4, 192, 10, 2),
        m(6, 224, 19, 1),
        m(6, 384, 25, 2),
        m(6, 640, 7, 1),
    ),
)
XL = replace(
    BASE,
    rows=(
        f(1, 32, 4, 1),
        f(4, 64, 8, 2),
        f(4, 96, 8, 2),
        m(4, 192, 16, 2),
        m(6, 256, 24, 1),
        m(6, 512, 32, 2),
        m(6, 640, 8, 1),
    ),
)

_AUTOML = "google/automl README"

VARIANTS = (
    #       name                 table size top-1  whose    width depth dropout
    Variant("efficientnet_v2_b0", BASE, 224, 78.7, _AUTOML, 1.0, 1.0, 0.2),
    Variant("efficientnet_v2_b1", BASE, 240, 79.8, _AUTOML, 1.0, 1.1, 0.2),
    Variant("efficientnet_v2_b2", BASE, 260, 80.5, _AUTOML, 1.1, 1.2, 0.3),
    Variant("efficientnet_v2_b3", BASE, 300, 82.1, _AUTOML, 1.2, 1.4, 0.3),
    Variant("efficientnet_v2_s", S, 384, 83.9, _AUTOML, 1.0, 1.0, 0.2),
    Variant("efficientnet_v2_m", M, 480, 85.2, _AUTOML, 1.0, 1.0, 0.3),
    Variant("efficientnet_v2_l", L, 480, 85.7, _AUTOML, 1.0, 1.0, 0.4),
    Variant(
        "efficientnet_v2_xl", XL, 512, 87.3, "paper (pretrained on ImageNet-21k)", 1.0, 1.0, 0.4
    ),
)
