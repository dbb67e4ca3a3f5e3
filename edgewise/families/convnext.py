"""ConvNeXt: Liu et al., arXiv 2201.03545, section 3; ConvNeXt V2: Woo et al., arXiv 2301.00808.

A stem that cuts 4x4 patches, four stages of one block, layer norm and GELU only. V2 puts GRN in the
place of the layer scale. The sizes below tiny are timm's, taken over by V2's authors.
"""

from edgewise.spec import Conv, ConvNeXt, Head
from edgewise.table import Channels, Row, Table, Variant


def _variant(
    name: str, depths: tuple[int, ...], first: int, top1: float, whose: str, v2: bool = False
) -> Variant:
    """Four stages of `depths` blocks, whose channels double from `first`, at 224 px."""
    rows = (
        Row(
            ConvNeXt(
                out=first * 2**i, stride=min(i + 1, 2), grn=v2, layer_scale=0.0 if v2 else 1e-6
            ),
            depth,
            expand=4,
        )
        for i, depth in enumerate(depths)
    )
    table = Table(
        name=name,
        stem=Channels(first),
        first=Conv(out=0, kernel=4, stride=4, norm="layer"),
        rows=tuple(rows),
        head=Head(layer_norm=True),
        norm_eps=1e-6,
    )
    return Variant(name, table, 224, top1, whose, dropout=0.0)


_TIMM = "timm"
_FB = "facebookresearch/ConvNeXt README"
_FB22K = f"{_FB} (pretrained on ImageNet-22k)"
_FB2 = "facebookresearch/ConvNeXt-V2 README"

VARIANTS = (
    #        name             depths        channels top-1
    _variant("convnext_atto", (2, 2, 6, 2), 40, 75.7, _TIMM),
    _variant("convnext_femto", (2, 2, 6, 2), 48, 77.5, _TIMM),
    _variant("convnext_pico", (2, 2, 6, 2), 64, 79.5, _TIMM),
    _variant("convnext_nano", (2, 2, 8, 2), 80, 80.8, _TIMM),
    _variant("convnext_tiny", (3, 3, 9, 3), 96, 82.1, _FB),
    _variant("convnext_small", (3, 3, 27, 3), 96, 83.1, _FB),
    _variant("convnext_base", (3, 3, 27, 3), 128, 83.8, _FB),
    _variant("convnext_large", (3, 3, 27, 3), 192, 84.3, _FB),
    _variant("convnext_xlarge", (3, 3, 27, 3), 256, 87.0, _FB22K),
    _variant("convnext_v2_atto", (2, 2, 6, 2), 40, 76.7, _FB2, v2=True),
    _variant("convnext_v2_femto", (2, 2, 6, 2), 48, 78.5, _FB2, v2=True),
    _variant("convnext_v2_pico", (2, 2, 6, 2), 64, 80.3, _FB2, v2=True),
    _variant("convnext_v2_nano", (2, 2, 8, 2), 80, 81.9, _FB2, v2=True),
    _variant("convnext_v2_tiny", (3, 3, 9, 3), 96, 83.0, _FB2, v2=True),
    _variant("convnext_v2_base", (3, 3, 27, 3), 128, 84.9, _FB2, v2=True),
    _variant("convnext_v2_large", (3, 3, 27, 3), 192, 85.8, _FB2, v2=True),
    _variant("convnext_v2_huge", (3, 3, 27, 3), 352, 86.3, _FB2, v2=True),
)
