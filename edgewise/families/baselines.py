"""What to compare with: ResNet (He et al., arXiv 1512.03385) and VGG-16 (1409.1556).

ResNet-50 has the stride on the 3x3 convolution of its bottleneck, as in all weights in use. VGG-16
has no batch norm.
"""

from edgewise.spec import Conv, Head, Pool, Residual
from edgewise.table import Channels, Row, Table, Variant

_TORCHVISION = "torchvision IMAGENET1K_V1"


def _resnet(name: str, depths: tuple[int, ...], top1: float, bottleneck: bool = False) -> Variant:
    """Table 1: four stages, 64 channels inside of the first block and twice as many a stage."""
    rows = (
        Row(
            Residual(
                out=64 * 2**i * (4 if bottleneck else 1),
                hidden=64 * 2**i if bottleneck else 0,
                stride=min(i + 1, 2),
            ),
            depth,
        )
        for i, depth in enumerate(depths)
    )
    table = Table(
        name=name,
        stem=Channels(64),
        first=Conv(out=0, kernel=7, stride=2),
        rows=(Row(Pool(out=0, kernel=3, stride=2)), *rows),
        act="relu",
        norm_eps=1e-5,
    )
    return Variant(name, table, 224, top1, _TORCHVISION, dropout=0.0)


def _conv(out: int, n: int) -> Row:
    return Row(Conv(out=out, norm="none"), n)


_POOL = Row(Pool(out=0, kernel=2, stride=2))

VGG16 = Table(
    name="vgg16",
    stem=Channels(64),
    first=Conv(out=0, norm="none", act="relu"),
    rows=(
        _conv(64, 1),
        *(_POOL, _conv(128, 2)),
        *(_POOL, _conv(256, 3)),
        *(_POOL, _conv(512, 3)),
        *(_POOL, _conv(512, 3)),
        _POOL,
    ),
    head=Head(grid=7),
    head_hidden=(Channels(4096), Channels(4096)),
    act="relu",
)

VARIANTS = (
    _resnet("resnet18", (2, 2, 2, 2), 69.758),
    _resnet("resnet34", (3, 4, 6, 3), 73.314),
    _resnet("resnet50", (3, 4, 6, 3), 76.130, bottleneck=True),
    Variant("vgg16", VGG16, 224, 71.592, _TORCHVISION, dropout=0.5),
)
