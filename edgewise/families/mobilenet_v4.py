"""MobileNetV4: Qin et al., arXiv 2404.10518, tables 11 to 15 in the appendix.

One block with two optional depthwise convolutions, of sides K1 (before the expansion) and K2
(after it). The hybrid networks add mobile multi-query attention and layer scale (authors' code).
"""

from functools import partial

from edgewise.spec import Attention, Conv, Head, MBConv
from edgewise.table import Channels, Row, Table, Variant

LAYER_SCALE = 1e-5


def uib(k1: int, k2: int, e: float, c: int, s: int = 1, n: int = 1, scale: float = 0.0) -> Row:
    """Universal inverted bottleneck: expand by e, out to c; n times, the first with stride s."""
    return Row(MBConv(out=c, start=k1, kernel=k2, stride=s, layer_scale=scale), n, expand=e)


def fused(c: int) -> Row:
    """Fused inverted bottleneck: 3x3 expansion by 4 with stride 2, then 1x1."""
    return Row(MBConv(out=c, kernel=0, expand_kernel=3, stride=2), expand=4)


def conv(k: int, c: int, s: int = 1) -> Row:
    """Convolution, batch norm, ReLU."""
    return Row(Conv(kernel=k, out=c, stride=s))


def mqa(heads: int, dim: int, kv_stride: int = 1) -> Row:
    """Mobile multi-query attention; keys and values are strided where the map is 1/16."""
    return Row(Attention(out=0, heads=heads, dim=dim, kv_stride=kv_stride, layer_scale=LAYER_SCALE))


huib = partial(uib, scale=LAYER_SCALE)  # as the hybrid networks have it


def _table(name: str, stem: int, rows: tuple[Row, ...], act: str = "relu") -> Table:
    return Table(
        name=name,
        stem=Channels(stem, "up"),
        rows=rows,
        head_conv=Channels(960),
        head_hidden=(Channels(1280, "fixed"),),
        head=Head(hidden_norm=True),
        act=act,
    )


CONV_SMALL = _table(
    "mobilenet_v4_conv_small",
    32,
    (
        conv(3, 32, s=2),
        conv(1, 32),
        conv(3, 96, s=2),
        conv(1, 64),
        #  K1 K2 e  c
        uib(5, 5, 3, 96, s=2),
        uib(0, 3, 2, 96, n=4),
        uib(3, 0, 4, 96),
        uib(3, 3, 6, 128, s=2),
        uib(5, 5, 4, 128),
        uib(0, 5, 4, 128),
        uib(0, 5, 3, 128),
        uib(0, 3, 4, 128, n=2),
    ),
)

CONV_MEDIUM = _table(
    "mobilenet_v4_conv_medium",
    32,
    (
        fused(48),
        #  K1 K2 e  c
        uib(3, 5, 4, 80, s=2),
        uib(3, 3, 2, 80),
        uib(3, 5, 6, 160, s=2),
        uib(3, 3, 4, 160, n=2),
        uib(3, 5, 4, 160),
        uib(3, 3, 4, 160),
        uib(3, 0, 4, 160),
        uib(0, 0, 2, 160),
        uib(3, 0, 4, 160),
        uib(5, 5, 6, 256, s=2),
        uib(5, 5, 4, 256),
        uib(3, 5, 4, 256, n=2),
        uib(0, 0, 4, 256),
        uib(3, 0, 4, 256),
        uib(3, 5, 2, 256),
        uib(5, 5, 4, 256),
        uib(0, 0, 4, 256, n=2),
        uib(5, 0, 2, 256),
    ),
)

CONV_LARGE = _table(
    "mobilenet_v4_conv_large",
    24,
    (
        fused(48),
        #  K1 K2 e  c
        uib(3, 5, 4, 96, s=2),
        uib(3, 3, 4, 96),
        uib(3, 5, 4, 192, s=2),
        uib(3, 3, 4, 192, n=3),
        uib(3, 5, 4, 192),
        uib(5, 3, 4, 192, n=5),
        uib(3, 0, 4, 192),
        uib(5, 5, 4, 512, s=2),
        uib(5, 5, 4, 512, n=3),
        uib(5, 0, 4, 512),
        uib(5, 3, 4, 512),
        uib(5, 0, 4, 512, n=2),
        uib(5, 3, 4, 512),
        uib(5, 5, 4, 512),
        uib(5, 0, 4, 512, n=3),
    ),
)

HYBRID_MEDIUM = _table(
    "mobilenet_v4_hybrid_medium",
    32,
    (
        fused(48),
        #   K1 K2 e  c
        huib(3, 5, 4, 80, s=2),
        huib(3, 3, 2, 80),
        huib(3, 5, 6, 160, s=2),
        huib(0, 0, 2, 160),
        huib(3, 3, 4, 160),
        huib(3, 5, 4, 160),
        mqa(4, 64, kv_stride=2),
        huib(3, 3, 4, 160),
        mqa(4, 64, kv_stride=2),
        huib(3, 0, 4, 160),
        mqa(4, 64, kv_stride=2),
        huib(3, 3, 4, 160),
        mqa(4, 64, kv_stride=2),
        huib(3, 0, 4, 160),
        huib(5, 5, 6, 256, s=2),
        huib(5, 5, 4, 256),
        huib(3, 5, 4, 256, n=2),
        huib(0, 0, 2, 256),
        huib(3, 5, 2, 256),
        huib(0, 0, 2, 256),
        huib(0, 0, 4, 256),
        mqa(4, 64),
        huib(3, 0, 4, 256),
        mqa(4, 64),
        huib(5, 5, 4, 256),
        mqa(4, 64),
        huib(5, 0, 4, 256),
        mqa(4, 64),
        huib(5, 0, 4, 256),
    ),
)

HYBRID_LARGE = _table(
    "mobilenet_v4_hybrid_large",
    24,
    (
        fused(48),
        #   K1 K2 e  c
        huib(3, 5, 4, 96, s=2),
        huib(3, 3, 4, 96),
        huib(3, 5, 4, 192, s=2),
        huib(3, 3, 4, 192, n=3),
        huib(3, 5, 4, 192),
        huib(5, 3, 4, 192, n=2),
        *(mqa(8, 48, kv_stride=2), huib(5, 3, 4, 192)) * 3,
        mqa(8, 48, kv_stride=2),
        huib(3, 0, 4, 192),
        huib(5, 5, 4, 512, s=2),
        huib(5, 5, 4, 512, n=3),
        huib(5, 0, 4, 512),
        huib(5, 3, 4, 512),
        huib(5, 0, 4, 512, n=2),
        huib(5, 3, 4, 512),
        huib(5, 5, 4, 512),
        *(mqa(8, 64), huib(5, 0, 4, 512)) * 4,
    ),
    act="gelu",
)

VARIANTS = tuple(
    Variant(table.name, table, size, top1, "paper", timm=table.name.replace("_v4", "v4"))
    for table, size, top1 in (
        (CONV_SMALL, 224, 73.8),
        (CONV_MEDIUM, 256, 79.9),
        (CONV_LARGE, 384, 82.9),
        (HYBRID_MEDIUM, 256, 80.7),
        (HYBRID_LARGE, 384, 83.4),
    )
)
