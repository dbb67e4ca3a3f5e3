"""EfficientNet B0-B7: Tan and Le, arXiv 1905.11946, table 1 and the coefficients of the code.

EfficientNet-Lite0-4 (the same authors, in the TPU repository) is the same table for integer
hardware: no squeeze-excite, ReLU6, stem and head never scaled, first and last stage never repeated.
"""

from dataclasses import replace

from edgewise.spec import MBConv
from edgewise.table import Channels, Row, Table, Variant


def mbconv(e: float, k: int, c: int, n: int, s: int) -> Row:
    """MBConv: expand by e, out to c; n times, the first with stride s; squeeze 1/4 of the input."""
    return Row(MBConv(out=c, kernel=k, stride=s, squeeze_act="silu"), n, expand=e, squeeze=1 / 4)


TABLE = Table(
    name="efficientnet",
    stem=Channels(32),
    rows=(
        #      e  k  c    n  s
        mbconv(1, 3, 16, 1, 1),
        mbconv(6, 3, 24, 2, 2),
        mbconv(6, 5, 40, 2, 2),
        mbconv(6, 3, 80, 3, 2),
        mbconv(6, 5, 112, 3, 1),
        mbconv(6, 5, 192, 4, 2),
        mbconv(6, 3, 320, 1, 1),
    ),
    head_conv=Channels(1280),
    act="silu",
    deepens=True,
    drop_path=0.2,
)

_FIRST, *_MIDDLE, _LAST = (replace(row, squeeze=0.0) for row in TABLE.rows)

LITE = replace(
    TABLE,
    name="efficientnet_lite",
    stem=Channels(32, "fixed"),
    rows=(replace(_FIRST, deepens=False), *_MIDDLE, replace(_LAST, deepens=False)),
    head_conv=Channels(1280, "fixed"),
    act="relu6",
    padding="same",  # its published weights are TensorFlow's
)

_PAPER = "paper v5 (AutoAugment)"
_TPU = "tensorflow/tpu README"

VARIANTS = (
    #       name               table  size  top-1   whose  width depth dropout
    Variant("efficientnet_b0", TABLE, 224, 77.1, _PAPER, 1.0, 1.0, 0.2),
    Variant("efficientnet_b1", TABLE, 240, 79.1, _PAPER, 1.0, 1.1, 0.2),
    Variant("efficientnet_b2", TABLE, 260, 80.1, _PAPER, 1.1, 1.2, 0.3),
    Variant("efficientnet_b3", TABLE, 300, 81.6, _PAPER, 1.2, 1.4, 0.3),
    Variant("efficientnet_b4", TABLE, 380, 82.9, _PAPER, 1.4, 1.8, 0.4),
    Variant("efficientnet_b5", TABLE, 456, 83.6, _PAPER, 1.6, 2.2, 0.4),
    Variant("efficientnet_b6", TABLE, 528, 84.0, _PAPER, 1.8, 2.6, 0.5),
    Variant("efficientnet_b7", TABLE, 600, 84.3, _PAPER, 2.0, 3.1, 0.5),
    Variant("efficientnet_lite0", LITE, 224, 75.1, _TPU, 1.0, 1.0, 0.2),
    Variant("efficientnet_lite1", LITE, 240, 76.7, _TPU, 1.0, 1.1, 0.2),
    Variant("efficientnet_lite2", LITE, 260, 77.6, _TPU, 1.1, 1.2, 0.3),
    Variant("efficientnet_lite3", LITE, 280, 79.8, _TPU, 1.2, 1.4, 0.3),
    Variant("efficientnet_lite4", LITE, 300, 81.5, _TPU, 1.4, 1.8, 0.3),
)
