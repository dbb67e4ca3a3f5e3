"""MobileNetV3: Howard et al., arXiv 1905.02244, tables 1 (large) and 2 (small).

Expansions are written as in the tables, `exp size / input channels`. The squeeze is a quarter of
the expanded width, rounded to 8, and its gate is the hard sigmoid. The layer after the pooling does
not follow the width multiplier (as in the authors' code; torchvision scales it). Table 2 prints a
squeeze-excite on the last 1x1 convolution that no code has, the authors' included.
"""

from __future__ import annotations

from edgewise.families.variant import Variant
from edgewise.table import Channels, Row, Table

RE, HS = "relu", "hard_swish"
SE = 1 / 4

LARGE = Table(
    name="mobilenet_v3_large",
    stem=Channels(16, "up"),
    rows=(
        #   k  exp / in   out
        Row(3, 16 / 16, 16, act=RE),
        Row(3, 64 / 16, 24, act=RE, stride=2),
        Row(3, 72 / 24, 24, act=RE),
        Row(5, 72 / 24, 40, act=RE, squeeze=SE, stride=2),
        Row(5, 120 / 40, 40, act=RE, squeeze=SE),
        Row(5, 120 / 40, 40, act=RE, squeeze=SE),
        Row(3, 240 / 40, 80, act=HS, stride=2),
        Row(3, 200 / 80, 80, act=HS),
        Row(3, 184 / 80, 80, act=HS),
        Row(3, 184 / 80, 80, act=HS),
        Row(3, 480 / 80, 112, act=HS, squeeze=SE),
        Row(3, 672 / 112, 112, act=HS, squeeze=SE),
        Row(5, 672 / 112, 160, act=HS, squeeze=SE, stride=2),
        Row(5, 960 / 160, 160, act=HS, squeeze=SE),
        Row(5, 960 / 160, 160, act=HS, squeeze=SE),
    ),
    head_conv=Channels(960),
    head_hidden=Channels(1280, "fixed"),
    act=HS,
    squeeze_from="expanded",
    gate="hard_sigmoid",
)

SMALL = Table(
    name="mobilenet_v3_small",
    stem=Channels(16, "up"),
    rows=(
        #   k  exp / in   out
        Row(3, 16 / 16, 16, act=RE, squeeze=SE, stride=2),
        Row(3, 72 / 16, 24, act=RE, stride=2),
        Row(3, 88 / 24, 24, act=RE),
        Row(5, 96 / 24, 40, act=HS, squeeze=SE, stride=2),
        Row(5, 240 / 40, 40, act=HS, squeeze=SE),
        Row(5, 240 / 40, 40, act=HS, squeeze=SE),
        Row(5, 120 / 40, 48, act=HS, squeeze=SE),
        Row(5, 144 / 48, 48, act=HS, squeeze=SE),
        Row(5, 288 / 48, 96, act=HS, squeeze=SE, stride=2),
        Row(5, 576 / 96, 96, act=HS, squeeze=SE),
        Row(5, 576 / 96, 96, act=HS, squeeze=SE),
    ),
    head_conv=Channels(576),
    head_hidden=Channels(1024, "fixed"),
    act=HS,
    squeeze_from="expanded",
    gate="hard_sigmoid",
)

VARIANTS = (
    Variant("mobilenet_v3_large", LARGE, 224, 75.2, "paper"),
    Variant("mobilenet_v3_small", SMALL, 224, 67.4, "paper"),
)
