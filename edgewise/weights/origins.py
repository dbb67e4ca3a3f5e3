"""What the origin of weights says about their use: padding, epsilon and preprocessing.

None of it can be read from the tensors, and each is silently wrong if it is another's. Where a
source has several files for a network, these are the rules of its default one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgewise.errors import UsageError, unknown
from edgewise.families import variant
from edgewise.preprocess import Preprocess
from edgewise.weights.checkpoints import HALF, IMAGENET, Colours
from edgewise.weights.hub import HubFile
from edgewise.weights.pretrained import PRETRAINED

SOURCES = ("timm", "timm-tf", "torchvision", "keras", "lukemelas", "facebookresearch")
TENSORFLOW = ("timm-tf", "keras", "lukemelas")  # where the weights were trained

LITE: Colours = ((127.0,) * 3, (128.0,) * 3)
EFFICIENTNET_V2: Colours = ((128.0,) * 3, (128.0,) * 3)

# torchvision's sizes: of the crop, and of the shorter side before it; (224, 256) for all others.
TORCHVISION_SIZES: dict[str, tuple[int, int]] = {
    "mobilenet_v2": (224, 232),
    "mobilenet_v3_large": (224, 232),
    "efficientnet_b1": (240, 255),
    "efficientnet_b2": (288, 288),
    "efficientnet_b3": (300, 320),
    "efficientnet_b4": (380, 384),
    "efficientnet_b5": (456, 456),
    "efficientnet_b6": (528, 528),
    "efficientnet_b7": (600, 600),
    "efficientnet_v2_s": (384, 384),
    "efficientnet_v2_m": (480, 480),
    "efficientnet_v2_l": (480, 480),
    "convnext_tiny": (224, 236),
    "convnext_small": (224, 230),
    "convnext_base": (224, 232),
    "convnext_large": (224, 232),
    "resnet50": (224, 232),
}
# The end of a file's name, where torchvision has two files: the older, resized in another way.
TORCHVISION_OLDER = ("-b0353104", "-8738ca79", "-bac287d4", "-0676ba61")
TORCHVISION_1E3 = (
    *("mobilenet_v3", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7"),
    "efficientnet_v2",
)

# A tensor's name that only one source has, the surest first.
RESNET = "layer1.0.conv1.weight"
SIGNS = {
    "_conv_stem.weight": "lukemelas",
    "downsample_layers.0.0.weight": "facebookresearch",
    "conv_stem.weight": "timm",
    "stem.0.weight": "timm",
    "pre_logits.fc1.weight": "timm",
    "features.0.0.weight": "torchvision",
    "features.0.weight": "torchvision",
    RESNET: "torchvision",
}


@dataclass(frozen=True)
class Origin:
    """How weights of one origin must be used.

    Attributes:
        source: one of `SOURCES`.
        padding: "same" where TensorFlow trained them, else "symmetric".
        norm_eps: epsilon of batch norm, or of layer norm in ConvNeXt.
        preprocess: what they were evaluated with.
        checkpoint: timm's name of the one that the preprocessing is taken from; empty if of none.
    """

    source: str
    padding: str
    norm_eps: float
    preprocess: Preprocess
    checkpoint: str = ""


def origin(
    source: str, model: str, tag: str | None = None, file: str = "", width: float = 1.0
) -> Origin:
    """What `source`'s weights of `model`, our name, must be used with.

    Args:
        source: one of `SOURCES`.
        model: our name of the network.
        tag: of timm's: which of its checkpoints; its default one if None.
        file: the file's name without its suffix, which tells torchvision's older weights.
        width: the network's width multiplier; timm's narrow networks have checkpoints of their own.

    Raises:
        UsageError: no such source or model, or the source's network of that name is another one.
    """
    if source not in SOURCES:
        raise unknown("source", source, SOURCES)
    native = variant(model).input_size
    if source == "keras" and model.startswith(("resnet", "vgg")):
        raise UsageError(
            f"Keras' {model} is another network than {model} here: biases, strides or the order "
            "of the colours differ. Import torchvision's or timm's weights."
        )
    checkpoint = ""
    if source.startswith("timm"):
        preprocess, checkpoint = _timm(model, native, source == "timm-tf", tag, width)
    elif source == "torchvision":
        preprocess = _torchvision(model, file.endswith(TORCHVISION_OLDER))
    else:
        preprocess = _authors(source, model, native)
    if model.startswith("convnext"):
        return Origin(source, "symmetric", 1e-6, preprocess, checkpoint)
    if source in TENSORFLOW:
        return Origin(source, "same", 1e-3, preprocess, checkpoint)
    wide = source == "torchvision" and model.startswith(TORCHVISION_1E3)
    return Origin(source, "symmetric", 1e-3 if wide else 1e-5, preprocess, checkpoint)


def _timm(
    model: str, native: int, tensorflow: bool, tag: str | None, width: float
) -> tuple[Preprocess, str]:
    """As the table of checkpoints has it, and of which; timm's usual one where it has none."""
    for checkpoint in PRETRAINED.get(model, ()):
        of_source = (checkpoint.padding == "same") == tensorflow and checkpoint.width == width
        if isinstance(checkpoint.source, HubFile) and of_source and tag in (None, checkpoint.tag):
            return checkpoint.preprocess, checkpoint.source.name
    return Preprocess(native, 0.875, "bicubic", *IMAGENET), ""


def _torchvision(model: str, older: bool) -> Preprocess:
    size, shorter = TORCHVISION_SIZES.get(model, (224, 256))
    bicubic = model.startswith(("efficientnet_b", "efficientnet_v2_l"))
    if model == "efficientnet_b1":
        bicubic = older
    colours = HALF if model == "efficientnet_v2_l" else IMAGENET
    crop = size / (256 if older else shorter)
    return Preprocess(size, crop, "bicubic" if bicubic else "bilinear", *colours)


def _authors(source: str, model: str, native: int) -> Preprocess:
    """TensorFlow's and the authors' own weights: colours of the source's code, crop of the papers'.

    EfficientNet's code resizes to 32 pixels more than it keeps, the large ones of V2 to no more.
    """
    crop, interpolation, colours = 0.875, "bicubic", IMAGENET
    if model.startswith("mobilenet"):
        interpolation, colours = "bilinear", HALF
    elif model.startswith("efficientnet_lite"):
        colours = LITE
    elif model.startswith(("efficientnet_b", "efficientnet_v2_b")):
        crop = native / (native + 32)  # in whole, or the side that is resized to is a pixel short
    elif model.startswith("efficientnet_v2"):
        crop, colours = 1.0, EFFICIENTNET_V2
    return Preprocess(native, crop, interpolation, *colours)


def recognise(names: Iterable[str], safetensors: bool) -> str | None:
    """The source whose names these tensors have, None if they are nobody's.

    ResNet's names are the same in timm and torchvision, of which only timm publishes safetensors.
    """
    names = set(names)
    source = next((source for sign, source in SIGNS.items() if sign in names), None)
    return "timm" if source == "torchvision" and safetensors and RESNET in names else source


def roots(names: Iterable[str]) -> list[str]:
    """Where a source's names begin, once for each network: "" or a prefix such as "model."."""
    found = (n.removesuffix(s) for n in names for s in SIGNS if f".{n}".endswith(f".{s}"))
    return list(dict.fromkeys(found))
