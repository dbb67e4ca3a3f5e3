"""MobileNetV2: Sandler et al., arXiv 1801.04381, table 2."""

from __future__ import annotations

from edgewise.families.variant import Variant
from edgewise.table import Channels, Row, Table

TABLE = Table(
    name="mobilenet_v2",
    stem=Channels(32),
    rows=(
        #   k  t  c
        Row(3, 1, 16),
        Row(3, 6, 24, stride=2, repeats=2),
        Row(3, 6, 32, stride=2, repeats=3),
        Row(3, 6, 64, stride=2, repeats=4),
        Row(3, 6, 96, repeats=3),
        Row(3, 6, 160, stride=2, repeats=3),
        Row(3, 6, 320),
    ),
    head_conv=Channels(1280, "up"),  # the width multiplier leaves it alone below 1
)

VARIANTS = (Variant("mobilenet_v2", TABLE, 224, 72.0, "paper"),)
