"""Published ImageNet checkpoints, and how each must be used.

A checkpoint is more than its tensors. The same shapes run with another padding, another batch-norm
epsilon or another normalisation, and are silently wrong; so each entry says what it was trained
with. A few install as packages; the others are files on the model hub. No code of theirs is ever
run: tensors are read from safetensors, or with `weights_only=True`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgewise.errors import UsageError, unknown
from edgewise.families import VARIANTS, variant
from edgewise.preprocess import Preprocess
from edgewise.weights.checkpoints import LINES, Line
from edgewise.weights.hub import HubFile
from edgewise.weights.packages import Package

if TYPE_CHECKING:
    from edgewise.model import Model
    from edgewise.spec import Spec


@dataclass(frozen=True)
class Checkpoint:
    """One published file of ImageNet-1k weights.

    Attributes:
        model: our name of the network.
        width: its width multiplier.
        tag: what tells it from the model's other checkpoints of that width.
        licence: of the weights, as an SPDX identifier.
        preprocess: what the weights were evaluated with.
        padding: what the weights were trained with.
        norm_eps: what the weights were trained with.
        top1: published ImageNet top-1 accuracy, in percent; None if nobody published it.
        top1_source: whose figure that is.
        source: where the file is.
        classifier: False for weights that learned without labels. Their network gives pooled
            features, and is a start for training.
    """

    model: str
    width: float
    tag: str
    licence: str
    preprocess: Preprocess
    padding: str
    norm_eps: float
    top1: float | None
    top1_source: str
    source: Package | HubFile
    classifier: bool

    @property
    def commercial(self) -> bool:
        """Whether the licence allows commercial use."""
        return "-NC" not in self.licence


def _checkpoint(model: str, line: Line) -> Checkpoint:
    network, _, tag = line.timm.partition(".")
    tensorflow = network.startswith("tf_")
    layer_norm = network.startswith("convnext")
    return Checkpoint(
        model=model,
        width=line.width,
        tag=tag,
        licence=line.licence,
        preprocess=Preprocess(line.size, line.crop, line.interpolation, *line.colours),
        padding="same" if tensorflow else "symmetric",
        norm_eps=1e-3 if tensorflow else 1e-6 if layer_norm else 1e-5,
        top1=line.top1,
        top1_source=line.top1_source,
        source=line.package or HubFile(f"timm/{line.timm}"),
        classifier=line.classifier,
    )


# By our name of the model.
PRETRAINED: dict[str, tuple[Checkpoint, ...]] = {
    model: tuple(_checkpoint(model, line) for line in lines) for model, lines in LINES.items()
}


def preferred(name: str, width: float = 1.0) -> Checkpoint | None:
    """The checkpoint that `pretrained=True` stands for; None if there is none for commercial use.

    It is the same one whatever is installed, so that a result can be repeated elsewhere.
    """
    of_width = (c for c in PRETRAINED.get(name, ()) if c.width == width)
    return next((checkpoint for checkpoint in of_width if checkpoint.commercial), None)


def choose(name: str, tag: str | None = None, width: float = 1.0) -> Checkpoint:
    """The checkpoint of that tag, or without a tag the preferred one.

    Raises:
        UsageError: no such model; or no published weights of that width, no such tag, or none
            that allows commercial use, which only a tag can ask for.
    """
    variant(name)
    of_width = [c for c in PRETRAINED.get(name, ()) if c.width == width]
    if not of_width:
        widths = sorted({checkpoint.width for checkpoint in PRETRAINED.get(name, ())})
        exist = f"They exist for width {', '.join(f'{w:g}' for w in widths)}. " if widths else ""
        raise UsageError(
            f"there are no pretrained weights for {name} of width {width:g}. {exist}"
            "You can always start without pretrained weights."
        )
    if tag is None:
        if checkpoint := preferred(name, width):
            return checkpoint
        tags = " or ".join(f"'{c.tag}' ({c.licence})" for c in of_width)
        names = (c.source.name for c in of_width if isinstance(c.source, HubFile))
        raise UsageError(
            f"the published weights of {name} forbid commercial use, so they are never chosen for "
            f"you. If that suits you, ask for them by their tag: {tags}; or by a model name "
            f"that has it, {' or '.join(names)}."
        )
    for checkpoint in of_width:
        if checkpoint.tag == tag:
            return checkpoint
    raise unknown(f"{name} weights", tag, (f"{c.tag} ({c.licence})" for c in of_width))


def load_pretrained(name: str, tag: str | None = None, width: float = 1.0) -> Model:
    """Published ImageNet-1k weights in their network, in evaluation mode, with all it takes to use.

    Weights on the hub are downloaded once; after that no network is needed.

    Args:
        name: our name of the model.
        tag: which of its checkpoints; the preferred one if None.
        width: the network's width multiplier.

    Raises:
        UsageError: as `choose`; or a package is not installed (the message says how), or a file
            doesn't hold these weights.
        EdgewiseError: the hub can't be reached or sends a wrong file, or the cache can't be
            written.
    """
    checkpoint = choose(name, tag, width)
    source = checkpoint.source
    if isinstance(source, Package):
        if not source.ready:
            raise _not_installed(checkpoint, source)
        return _convert(checkpoint, source.path())
    if model := _cached(checkpoint, source.folder):
        return model
    with source.lock():
        return _cached(checkpoint, source.folder) or _fetch(checkpoint, source)


def _fetch(checkpoint: Checkpoint, source: HubFile) -> Model:
    """Downloads, converts and caches."""
    import shutil

    from edgewise.weights.folder import save_model

    model = _convert(checkpoint, source.path())
    shutil.rmtree(source.folder, ignore_errors=True)  # what `_cached` refused
    save_model(model, source.folder)
    return model


def _cached(checkpoint: Checkpoint, folder: Path) -> Model | None:
    """The model in our cache; None if there is none that is whole and as this version wants it."""
    from edgewise.weights.folder import load_model

    try:
        model = load_model(folder)
    except (UsageError, OSError):  # OSError: the cache can't be read, which `HubFile.lock` tells
        return None
    fits = model.network.spec == _spec(checkpoint) and model.preprocess == checkpoint.preprocess
    return model if fits else None


def _convert(checkpoint: Checkpoint, path: Path) -> Model:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from edgewise.model import Model
    from edgewise.network import build
    from edgewise.weights.convert import copy_by_order
    from edgewise.weights.order import in_registered_order

    network = build(_spec(checkpoint))
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
            if not checkpoint.classifier:  # nor is there a norm before one, which starts as it is
                norm = network.head.norm.state_dict(prefix="head.norm.")
                tensors = norm | tensors
            tensors = in_registered_order(tensors)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        copy_by_order(tensors, network)
    except (SafetensorError, UsageError) as error:
        raise UsageError(f"{path} is not the file of these weights: {error}") from error
    labels = imagenet_labels() if checkpoint.classifier else ()
    return Model(network.eval(), checkpoint.preprocess, labels)


def _spec(checkpoint: Checkpoint) -> Spec:
    spec = variant(checkpoint.model).spec(checkpoint.width)
    classes = spec.classes if checkpoint.classifier else 0
    return replace(spec, classes=classes, padding=checkpoint.padding, norm_eps=checkpoint.norm_eps)


def _not_installed(checkpoint: Checkpoint, source: Package) -> UsageError:
    tags = [
        f"'{c.tag}'"
        for c in PRETRAINED[checkpoint.model]
        if isinstance(c.source, HubFile) and c.width == checkpoint.width
    ]
    return UsageError(
        f"the weights of {checkpoint.model} are in the package '{source.package}'. Install it "
        f"with: {source.install}. Or ask for others, which are downloaded: {' or '.join(tags)}."
    )


class Alias(NamedTuple):
    """What another library's name means here.

    Attributes:
        name: our name of the model.
        width: its width multiplier.
        padding: what the name asks for; None if it doesn't say. With "same" goes a batch-norm
            epsilon of 1e-3.
        tag: the checkpoint that `pretrained=True` stands for under this name; None leaves it to
            `choose`.
    """

    name: str
    width: float = 1.0
    padding: str | None = None
    tag: str | None = None

    def spec(self, width: float = 1.0, depth: float = 1.0) -> Spec:
        """The network that it names; `width` and `depth` multiply its own.

        Raises:
            UsageError: a number is out of range.
        """
        spec = variant(self.name).spec(self.width * width, depth=depth)
        return replace(spec, padding=self.padding or spec.padding)


def _aliases() -> dict[str, Alias]:
    """timm's names of networks. torchvision's are ours."""
    found = {known.timm: Alias(known.name) for known in VARIANTS.values() if known.timm}
    for checkpoints in PRETRAINED.values():
        for checkpoint in reversed(checkpoints):  # so that the first one's tag stays
            if isinstance(checkpoint.source, HubFile):
                padding = checkpoint.padding if checkpoint.padding == "same" else None
                tag = checkpoint.tag if checkpoint.commercial else None
                network = checkpoint.source.name.partition(".")[0]
                found[network] = Alias(checkpoint.model, checkpoint.width, padding, tag)
    return found


ALIASES: dict[str, Alias] = _aliases()


def resolve(name: str) -> Alias:
    """What a name means: ours, or timm's with or without a tag, as "mobilenetv2_050.lamb_in1k".

    Raises:
        UsageError: it is nobody's name; the message holds the nearest three.
    """
    if name in VARIANTS:
        return Alias(name)
    network, _, tag = name.partition(".")
    if network not in ALIASES:
        raise unknown("model", name, {**VARIANTS, **ALIASES})
    alias = ALIASES[network]
    return alias._replace(tag=choose(alias.name, tag, alias.width).tag) if tag else alias


@cache
def imagenet_labels() -> tuple[str, ...]:
    """The 1000 classes of ImageNet-1k in the usual order, a short name each (torchvision's)."""
    file = resources.files("edgewise.weights") / "imagenet_labels.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())


def made_up_labels(classes: int) -> tuple[str, ...]:
    """The labels of weights that come without any: ImageNet's for 1000 classes, else numbers."""
    return imagenet_labels() if classes == 1000 else tuple(f"class {i}" for i in range(classes))
