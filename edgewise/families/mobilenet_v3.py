"""MobileNetV3: Howard et al., arXiv 1905.02244, tables 1 (large) and 2 (small).

Expansions are written as in the tables, `exp size / input channels`. The squeeze is a quarter of
the expanded width, rounded to 8, and its gate is the hard sigmoid. The layer after the pooling does
not follow the width multiplier (as in the authors' code; torchvision scales it). Table 2 prints a
squeeze-excite on the last 1x1 convolution that no code has, the authors' included.

The minimalistic form (the authors' code, for hardware that has only plain operators) has no
squeeze-excite, ReLU everywhere and 3x3 kernels.
"""

from dataclasses import replace
from typing import Any

from edgewise.spec import MBConv
from edgewise.table import Channels, Row, Table, Variant

RE, HS = "relu", "hard_swish"
SE = 1 / 4


def bneck(k: int, exp: float, out: int, se: float, act: str, s: int) -> Row:
    """One line of the paper's tables, its expansion as a ratio."""
    block = MBConv(out=out, kernel=k, stride=s, act=act, gate="hard_sigmoid")
    return Row(block, expand=exp, squeeze=se)


LARGE = Table(
    name="mobilenet_v3_large",
    stem=Channels(16, "up"),
    rows=(
        #     k  exp / in   out  SE  NL  s
        bneck(3, 16 / 16, 16, 0, RE, 1),
        bneck(3, 64 / 16, 24, 0, RE, 2),
        bneck(3, 72 / 24, 24, 0, RE, 1),
        bneck(5, 72 / 24, 40, SE, RE, 2),
        bneck(5, 120 / 40, 40, SE, RE, 1),
        bneck(5, 120 / 40, 40, SE, RE, 1),
        bneck(3, 240 / 40, 80, 0, HS, 2),
        bneck(3, 200 / 80, 80, 0, HS, 1),
        bneck(3, 184 / 80, 80, 0, HS, 1),
        bneck(3, 184 / 80, 80, 0, HS, 1),
        bneck(3, 480 / 80, 112, SE, HS, 1),
        bneck(3, 672 / 112, 112, SE, HS, 1),
        bneck(5, 672 / 112, 160, SE, HS, 2),
        bneck(5, 960 / 160, 160, SE, HS, 1),
        bneck(5, 960 / 160, 160, SE, HS, 1),
    ),
    head_conv=Channels(960),
    head_hidden=(Channels(1280, "fixed"),),
    act=HS,
    squeeze_from="expanded",
)

SMALL = replace(
    LARGE,
    name="mobilenet_v3_small",
    rows=(
        #     k  exp / in   out  SE  NL  s
        bneck(3, 16 / 16, 16, SE, RE, 2),
        bneck(3, 72 / 16, 24, 0, RE, 2),
        bneck(3, 88 / 24, 24, 0, RE, 1),
        bneck(5, 96 / 24, 40, SE, HS, 2),
        bneck(5, 240 / 40, 40, SE, HS, 1),
        bneck(5, 240 / 40, 40, SE, HS, 1),
        bneck(5, 120 / 40, 48, SE, HS, 1),
        bneck(5, 144 / 48, 48, SE, HS, 1),
        bneck(5, 288 / 48, 96, SE, HS, 2),
        bneck(5, 576 / 96, 96, SE, HS, 1),
        bneck(5, 576 / 96, 96, SE, HS, 1),
    ),
    head_conv=Channels(576),
    head_hidden=(Channels(1024, "fixed"),),
)


def _minimalistic(table: Table) -> Table:
    plain: dict[str, Any] = {"kernel": 3, "act": RE}
    rows = (replace(row, block=replace(row.block, **plain), squeeze=0.0) for row in table.rows)
    return replace(table, name=f"{table.name}_minimalistic", rows=tuple(rows), act=RE)


_SLIM = "tensorflow/models README"

VARIANTS = tuple(
    Variant(table.name, table, 224, top1, whose, timm=timm)
    for table, top1, whose, timm in (
        (LARGE, 75.2, "paper", "mobilenetv3_large_100"),
        (SMALL, 67.4, "paper", "mobilenetv3_small_100"),
        (_minimalistic(LARGE), 72.3, _SLIM, "tf_mobilenetv3_large_minimal_100"),
        (_minimalistic(SMALL), 61.9, _SLIM, "tf_mobilenetv3_small_minimal_100"),
    )
)
