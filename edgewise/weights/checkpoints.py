"""The published ImageNet-1k checkpoints, a line each, with the settings of their evaluation.

A line belongs to the variant it stands under. The first one of a width is what `pretrained=True`
gives, unless its licence forbids commercial use. Sizes and crops are those of the published
accuracy, which for many is a larger image than in training. Left out: other numbers of classes,
variants that we don't have, and all but about four a variant (timm's default, the authors' own,
torchvision's, the best).
"""

from __future__ import annotations

from dataclasses import dataclass

from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD
from edgewise.weights import packages
from edgewise.weights.packages import Package

Colours = tuple[tuple[float, float, float], tuple[float, float, float]]

IMAGENET: Colours = (IMAGENET_MEAN, IMAGENET_STD)
HALF: Colours = ((127.5,) * 3, (127.5,) * 3)
UNIT: Colours = ((0.0,) * 3, (255.0,) * 3)

APACHE = "Apache-2.0"
BSD = "BSD-3-Clause"
NON_COMMERCIAL = "CC-BY-NC-4.0"

TIMM = "timm results"
# timm squeezes the whole image into the square for these, we crop it: expect a slight difference.
SQUASHED = "timm results, whole image squeezed"
RELEASE = "timm release notes"


@dataclass(frozen=True)
class Line:
    """One published file.

    Attributes:
        timm: timm's name of the network, a dot and the tag (ours for a package). "tf_" at its
            beginning means weights that came from TensorFlow, with its padding and its epsilon.
        top1: published ImageNet top-1 accuracy in percent; None if nobody published it.
        size: height and width of the input, in pixels.
        crop: the part of the resized image that the centre crop keeps.
        colours: mean and standard deviation, in units of pixel values 0..255.
        interpolation: of the resizing.
        licence: of the weights, as an SPDX identifier.
        width: the multiplier that makes our variant this network.
        top1_source: whose figure `top1` is.
        package: what holds the file; timm's repository of that name on the hub if None.
        classifier: False for weights that learned without labels, and so have none.
    """

    timm: str
    top1: float | None
    size: int = 224
    crop: float = 0.875
    colours: Colours = IMAGENET
    interpolation: str = "bicubic"
    licence: str = APACHE
    width: float = 1.0
    top1_source: str = TIMM
    package: Package | None = None
    classifier: bool = True


def _lite(timm: str, top1: float, size: int, package: Package) -> Line:
    """EfficientNet-Lite, converted from TensorFlow; preprocessing as in tensorflow/tpu.

    Its preprocessing.py keeps a central 0.875 at every size, and its efficientnet_lite_builder.py
    has mean 127 and standard deviation 128.
    """
    colours: Colours = ((127.0,) * 3, (128.0,) * 3)
    source = "tensorflow/tpu README"
    return Line(timm, top1, size, 0.875, colours, top1_source=source, package=package)


def _nc(timm: str, top1: float, size: int, crop: float) -> Line:
    return Line(timm, top1, size, crop, licence=NON_COMMERCIAL)


def _fcmae(timm: str) -> Line:
    """ConvNeXt V2 after masked autoencoding and before fine-tuning (arXiv 2301.00808)."""
    return Line(timm, None, licence=NON_COMMERCIAL, classifier=False)


def _tv(timm: str, top1: float, size: int = 224, crop: float = 0.875) -> Line:
    return Line(timm, top1, size, crop, interpolation="bilinear", licence=BSD)


LINES: dict[str, tuple[Line, ...]] = {
    "mobilenet_v1": (
        Line("mobilenetv1_100.ra4_e3600_r224_in1k", 76.086, 256, 0.95, HALF),
        Line("mobilenetv1_125.ra4_e3600_r224_in1k", 77.584, 256, 1.0, HALF, width=1.25),
    ),
    "mobilenet_v2": (
        Line(
            "mobilenetv2_100.tv_in1k",
            71.878,
            interpolation="bilinear",
            licence=BSD,
            top1_source="torchvision IMAGENET1K_V1",
            package=packages.MOBILENET_V2,
        ),
        Line("mobilenetv2_100.ra_in1k", 72.936),
        Line("mobilenetv2_050.lamb_in1k", 65.930, width=0.5),
        Line("mobilenetv2_140.ra_in1k", 76.528, width=1.4),
    ),
    "mobilenet_v3_large": (
        Line("mobilenetv3_large_100.ra_in1k", 75.786),
        Line(
            "mobilenetv3_large_100.ra4_e3600_r224_in1k", 77.16, 256, 1.0, HALF, top1_source=RELEASE
        ),
        Line("mobilenetv3_large_100.miil_in21k_ft_in1k", 77.910, 224, 0.875, UNIT, "bilinear"),
        Line("tf_mobilenetv3_large_100.in1k", 75.514, 224, 0.875, HALF, "bilinear"),
        Line("tf_mobilenetv3_large_075.in1k", 73.448, 224, 0.875, HALF, "bilinear", width=0.75),
    ),
    "mobilenet_v3_small": (
        Line("mobilenetv3_small_100.lamb_in1k", 67.638),
        Line("tf_mobilenetv3_small_100.in1k", 67.932, 224, 0.875, HALF, "bilinear"),
        Line("mobilenetv3_small_075.lamb_in1k", 65.266, width=0.75),
        Line("tf_mobilenetv3_small_075.in1k", 65.732, 224, 0.875, HALF, "bilinear", width=0.75),
        Line("mobilenetv3_small_050.lamb_in1k", 57.924, width=0.5),
    ),
    "mobilenet_v3_large_minimalistic": (
        Line("tf_mobilenetv3_large_minimal_100.in1k", 72.270, 224, 0.875, HALF, "bilinear"),
    ),
    "mobilenet_v3_small_minimalistic": (
        Line("tf_mobilenetv3_small_minimal_100.in1k", 62.894, 224, 0.875, HALF, "bilinear"),
    ),
    "mobilenet_v4_conv_small": (
        Line("mobilenetv4_conv_small.e2400_r224_in1k", 74.644, 256, 0.95),
        Line("mobilenetv4_conv_small.e1200_r224_in1k", 74.290, 256, 0.95),
        Line("mobilenetv4_conv_small.e3600_r256_in1k", None, 320, 1.0, HALF),
        Line(
            "mobilenetv4_conv_small_050.e3000_r224_in1k",
            65.81,
            256,
            0.95,
            HALF,
            width=0.5,
            top1_source=RELEASE,
        ),
    ),
    "mobilenet_v4_conv_medium": (
        Line("mobilenetv4_conv_medium.e500_r256_in1k", 80.880, 320, 1.0),
        Line("mobilenetv4_conv_medium.e500_r224_in1k", 79.838, 256, 1.0),
        Line("mobilenetv4_conv_medium.e250_r384_in12k_ft_in1k", None, 384, 0.95),
    ),
    "mobilenet_v4_conv_large": (
        Line("mobilenetv4_conv_large.e600_r384_in1k", 83.418, 448, 1.0),
        Line("mobilenetv4_conv_large.e500_r256_in1k", 82.674, 320, 1.0),
    ),
    "mobilenet_v4_hybrid_medium": (
        Line("mobilenetv4_hybrid_medium.e200_r256_in12k_ft_in1k", 82.990, 320, 1.0),
        Line("mobilenetv4_hybrid_medium.ix_e550_r384_in1k", 83.422, 448, 1.0),
        Line("mobilenetv4_hybrid_medium.ix_e550_r256_in1k", 82.496, 320, 1.0),
        Line("mobilenetv4_hybrid_medium.e500_r224_in1k", 81.284, 256, 1.0),
    ),
    "mobilenet_v4_hybrid_large": (
        Line("mobilenetv4_hybrid_large.ix_e600_r384_in1k", 84.364, 448, 1.0),
        Line("mobilenetv4_hybrid_large.e600_r384_in1k", 84.274, 448, 1.0),
    ),
    "efficientnet_b0": (
        Line("efficientnet_b0.ra_in1k", 77.696),
        Line("efficientnet_b0.ra4_e3600_r224_in1k", 79.370, 256, 1.0, HALF),
        Line("tf_efficientnet_b0.ns_jft_in1k", 78.684),
        Line("tf_efficientnet_b0.in1k", 76.536),
    ),
    "efficientnet_b1": (
        Line("efficientnet_b1.ra4_e3600_r240_in1k", 81.434, 288, 1.0, HALF),
        Line("efficientnet_b1.ft_in1k", 78.798, 256, 1.0),
        Line("tf_efficientnet_b1.ns_jft_in1k", 81.388, 240, 0.882),
        Line("tf_efficientnet_b1.in1k", 78.558, 240, 0.882),
    ),
    "efficientnet_b2": (
        Line("efficientnet_b2.ra_in1k", 80.610, 288, 1.0),
        Line("tf_efficientnet_b2.ns_jft_in1k", 82.412, 260, 0.89),
        Line("tf_efficientnet_b2.in1k", 79.614, 260, 0.89),
    ),
    "efficientnet_b3": (
        Line("efficientnet_b3.ra2_in1k", 82.298, 320, 1.0),
        Line("tf_efficientnet_b3.ns_jft_in1k", 84.064, 300, 0.904),
        Line("tf_efficientnet_b3.in1k", 80.880, 300, 0.904),
    ),
    "efficientnet_b4": (
        Line("efficientnet_b4.ra2_in1k", 83.474, 384, 1.0),
        Line("tf_efficientnet_b4.ns_jft_in1k", 85.176, 380, 0.922),
        Line("tf_efficientnet_b4.in1k", 82.608, 380, 0.922),
    ),
    "efficientnet_b5": (
        Line("tf_efficientnet_b5.ns_jft_in1k", 86.102, 456, 0.934),
        Line("tf_efficientnet_b5.ra_in1k", 83.828, 456, 0.934),
        Line("tf_efficientnet_b5.in1k", 83.166, 456, 0.934),
    ),
    "efficientnet_b6": (
        Line("tf_efficientnet_b6.ns_jft_in1k", 86.476, 528, 0.942),
        Line("tf_efficientnet_b6.aa_in1k", 84.118, 528, 0.942),
    ),
    "efficientnet_b7": (
        Line("tf_efficientnet_b7.ns_jft_in1k", 86.852, 600, 0.949),
        Line("tf_efficientnet_b7.ra_in1k", 84.930, 600, 0.949),
    ),
    "efficientnet_lite0": (
        _lite("tf_efficientnet_lite0.package", 75.1, 224, packages.LITE0),
        Line("efficientnet_lite0.ra_in1k", 75.490),
        Line("tf_efficientnet_lite0.in1k", 74.846, 224, 0.875, HALF),
    ),
    "efficientnet_lite1": (
        _lite("tf_efficientnet_lite1.package", 76.7, 240, packages.LITE1),
        Line("tf_efficientnet_lite1.in1k", 76.672, 240, 0.882, HALF),
    ),
    "efficientnet_lite2": (
        _lite("tf_efficientnet_lite2.package", 77.6, 260, packages.LITE2),
        Line("tf_efficientnet_lite2.in1k", 77.472, 260, 0.89, HALF),
    ),
    "efficientnet_lite3": (
        Line("tf_efficientnet_lite3.in1k", 79.832, 300, 0.904, HALF, "bilinear"),
    ),
    "efficientnet_lite4": (
        Line("tf_efficientnet_lite4.in1k", 81.546, 380, 0.92, HALF, "bilinear"),
    ),
    "efficientnet_v2_b0": (Line("tf_efficientnetv2_b0.in1k", 78.380),),
    "efficientnet_v2_b1": (Line("tf_efficientnetv2_b1.in1k", 79.518, 240, 0.882),),
    "efficientnet_v2_b2": (Line("tf_efficientnetv2_b2.in1k", 80.226, 260, 0.89),),
    "efficientnet_v2_b3": (Line("tf_efficientnetv2_b3.in1k", 81.960, 300, 0.904),),
    "efficientnet_v2_s": (
        Line("tf_efficientnetv2_s.in21k_ft_in1k", 84.316, 384, 1.0, HALF),
        Line("tf_efficientnetv2_s.in1k", 83.896, 384, 1.0, HALF),
    ),
    "efficientnet_v2_m": (
        Line("tf_efficientnetv2_m.in21k_ft_in1k", 86.014, 480, 1.0, HALF, top1_source=SQUASHED),
        Line("tf_efficientnetv2_m.in1k", 85.210, 480, 1.0, HALF, top1_source=SQUASHED),
    ),
    "efficientnet_v2_l": (
        Line("tf_efficientnetv2_l.in21k_ft_in1k", 86.802, 480, 1.0, HALF, top1_source=SQUASHED),
        Line("tf_efficientnetv2_l.in1k", 85.660, 480, 1.0, HALF, top1_source=SQUASHED),
    ),
    "efficientnet_v2_xl": (
        Line("tf_efficientnetv2_xl.in21k_ft_in1k", 86.748, 512, 1.0, HALF, top1_source=SQUASHED),
    ),
    "convnext_atto": (Line("convnext_atto.d2_in1k", 77.014, 288, 0.95),),
    "convnext_femto": (Line("convnext_femto.d1_in1k", 78.710, 288, 0.95),),
    "convnext_pico": (Line("convnext_pico.d1_in1k", 80.430, 288, 0.95),),
    "convnext_nano": (
        Line("convnext_nano.in12k_ft_in1k", 82.882, 288, 1.0),
        Line("convnext_nano.d1h_in1k", 81.474, 288, 1.0),
    ),
    "convnext_tiny": (
        Line("convnext_tiny.in12k_ft_in1k", 84.448, 288, 1.0),
        Line("convnext_tiny.fb_in1k", 82.694, 288, 1.0),
    ),
    "convnext_small": (
        Line("convnext_small.in12k_ft_in1k", 85.324, 288, 1.0),
        Line("convnext_small.fb_in22k_ft_in1k", 85.276, 288, 1.0),
        Line("convnext_small.fb_in1k", 83.704, 288, 1.0),
    ),
    "convnext_base": (
        Line("convnext_base.fb_in22k_ft_in1k", 86.298, 288, 1.0),
        Line("convnext_base.fb_in1k", 84.466, 288, 1.0),
    ),
    "convnext_large": (
        Line("convnext_large.fb_in22k_ft_in1k", 87.014, 288, 1.0),
        Line("convnext_large.fb_in1k", 84.862, 288, 1.0),
    ),
    "convnext_xlarge": (Line("convnext_xlarge.fb_in22k_ft_in1k", 87.374, 288, 1.0),),
    "convnext_v2_atto": (
        _nc("convnextv2_atto.fcmae_ft_in1k", 77.790, 288, 0.95),
        _fcmae("convnextv2_atto.fcmae"),
    ),
    "convnext_v2_femto": (
        _nc("convnextv2_femto.fcmae_ft_in1k", 79.332, 288, 0.95),
        _fcmae("convnextv2_femto.fcmae"),
    ),
    "convnext_v2_pico": (
        _nc("convnextv2_pico.fcmae_ft_in1k", 81.056, 288, 0.95),
        _fcmae("convnextv2_pico.fcmae"),
    ),
    "convnext_v2_nano": (
        _nc("convnextv2_nano.fcmae_ft_in22k_in1k", 82.666, 288, 1.0),
        _nc("convnextv2_nano.fcmae_ft_in1k", 82.496, 288, 1.0),
        _fcmae("convnextv2_nano.fcmae"),
    ),
    "convnext_v2_tiny": (
        _nc("convnextv2_tiny.fcmae_ft_in22k_in1k", 84.422, 288, 1.0),
        _nc("convnextv2_tiny.fcmae_ft_in1k", 83.476, 288, 1.0),
        _fcmae("convnextv2_tiny.fcmae"),
    ),
    "convnext_v2_base": (
        _nc("convnextv2_base.fcmae_ft_in22k_in1k", 86.998, 288, 1.0),
        _nc("convnextv2_base.fcmae_ft_in1k", 85.490, 288, 1.0),
        _fcmae("convnextv2_base.fcmae"),
    ),
    "convnext_v2_large": (
        _nc("convnextv2_large.fcmae_ft_in22k_in1k", 87.494, 288, 1.0),
        _nc("convnextv2_large.fcmae_ft_in1k", 86.126, 288, 1.0),
        _fcmae("convnextv2_large.fcmae"),
    ),
    "convnext_v2_huge": (
        _nc("convnextv2_huge.fcmae_ft_in1k", 86.618, 288, 1.0),
        _fcmae("convnextv2_huge.fcmae"),
    ),
    "resnet18": (
        Line("resnet18.a1_in1k", 73.164, 288, 1.0),
        _tv("resnet18.tv_in1k", 69.752),
    ),
    "resnet34": (
        Line("resnet34.a1_in1k", 77.938, 288, 1.0),
        _tv("resnet34.tv_in1k", 73.298),
    ),
    "resnet50": (
        Line("resnet50.a1_in1k", 81.240, 288, 1.0),
        _tv("resnet50.tv2_in1k", 80.844, 224, 0.965),
        _tv("resnet50.tv_in1k", 76.156),
    ),
    "vgg16": (_tv("vgg16.tv_in1k", 71.600),),
}
