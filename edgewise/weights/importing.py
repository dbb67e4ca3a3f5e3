"""Weights in somebody else's file -> our model: found out whose they are, checked, copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from edgewise.errors import UsageError, unknown
from edgewise.families import variant
from edgewise.model import Model
from edgewise.network import Network, build
from edgewise.preprocess import Preprocess
from edgewise.spec import Spec
from edgewise.weights.convert import arrange, copy_by_order, count_classes
from edgewise.weights.create import adapt
from edgewise.weights.foreign import open_weights
from edgewise.weights.keras import KerasFile
from edgewise.weights.origins import SOURCES, Origin, origin
from edgewise.weights.pretrained import ALIASES, made_up_labels, resolve


@dataclass(frozen=True)
class Imported:
    """A model, and what was found out about the file that it comes from.

    Attributes:
        model: with the network in evaluation mode, on the CPU.
        origin: whose weights they are and what follows from it; the model has it already.
        tensors: how many were copied.
        notes: what else a person should know, a sentence each.
    """

    model: Model
    origin: Origin
    tensors: int
    notes: tuple[str, ...]


def import_weights(
    path: str | Path,
    model: str,
    source: str | None = None,
    width: float = 1.0,
    labels: Sequence[str] | None = None,
) -> Model:
    """Weights of timm, torchvision or Keras in a local file -> a model that `save_model` takes.

    Args:
        path: a `.safetensors`, `.pth`, `.pt`, `.bin`, `.h5`, `.weights.h5` or `.keras` file.
        model: our name of the network, or timm's (with its width, its padding and its tag).
        source: whose weights they are, one of `edgewise.weights.origins.SOURCES`; found out from
            the names of the tensors if None. timm's copies of TensorFlow's weights have no such
            sign: `source="timm-tf"`, a model name or a file name that begins with "tf_" says so.
        width: multiplier of the network's channels.
        labels: a name for each class; ImageNet's for 1000 classes, else numbers, if None. A network
            of one output, for a sigmoid, becomes one of two classes: the second is what it finds.

    Raises:
        UsageError: the file can't be read or is not of this network; nothing of it was run.
    """
    return read_weights(Path(path), model, source, width, labels).model


def read_weights(
    path: Path,
    model: str,
    source: str | None = None,
    width: float = 1.0,
    labels: Sequence[str] | None = None,
) -> Imported:
    """`import_weights`, with what was found out on the way.

    Raises:
        UsageError: as there.
    """
    if source is not None and source not in SOURCES:
        raise unknown("source", source, SOURCES)
    alias = resolve(model)
    file = open_weights(path)
    found = source or file.source
    if source is not None and (source == "keras") != isinstance(file.tensors, KerasFile):
        raise UsageError(f"{path} {'is not' if source == 'keras' else 'is'} a Keras file.")
    if found == "timm" and source is None and (model[:3] == "tf_" or path.name[:3] == "tf_"):
        found = "timm-tf"
    if found is None:
        first = ", ".join(f"'{key}'" for key in list(file.tensors)[:3])  # type: ignore[arg-type]
        raise UsageError(
            f"{path}: its tensors ({first} ...) have names of none of {', '.join(SOURCES)}. "
            "If they are of one of these, say which with --source, of a file of torch.save: "
            "safetensors has lost their order."
        )
    tag = _tag(model) or _tag(path.stem, alias.name)
    width *= alias.width
    rules = origin(found, alias.name, tag, path.stem, width)
    try:
        network = _fill(file.tensors, alias.name, width, rules)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    preprocess, notes = _preprocess(rules.preprocess, file.tensors)
    if found.startswith("timm") and tag is None and (unknown_tag := _tag_of_file(path, alias.name)):
        notes.append(
            f"'{unknown_tag}' is no checkpoint that is known here. The input is "
            f"{f'that of {rules.checkpoint}' if rules.checkpoint else 'the usual one'}; yours may "
            "have another size or other colours: compare preprocess.json with timm's page on it."
        )
    copied = sum("num_batches_tracked" not in key for key in network.state_dict())
    if network.spec.classes == 1:
        network = _with_two_classes(network)
        notes.append(
            "Its one output was made two, whose probabilities are 1 - sigmoid and sigmoid: the "
            "second label is what a high output stands for."
        )
    if labels is None:
        labels = made_up_labels(network.spec.classes)
    return Imported(
        Model(network.eval(), preprocess, tuple(labels)),
        replace(rules, preprocess=preprocess),
        copied,
        (*file.notes, *notes),
    )


def _tag(name: str, model: str | None = None) -> str | None:
    """The tag in timm's name of a checkpoint, "mobilenetv2_100.ra_in1k", if it is one (of `model`).

    Files on the hub have such names too.
    """
    try:
        alias = resolve(name)
    except UsageError:
        return None
    return alias.tag if "." in name and model in (None, alias.name) else None


def _tag_of_file(path: Path, model: str) -> str:
    """What stands in a file's name where timm's checkpoints of `model` have their tag, if any."""
    network, _, tag = path.stem.partition(".")
    return tag if network in ALIASES and ALIASES[network].name == model else ""


def _fill(
    tensors: Mapping[str, Tensor] | KerasFile, name: str, width: float, rules: Origin
) -> Network:
    """The network that the tensors fit, with them in it."""
    spec = replace(
        variant(name).spec(width, classes=0, in_chans=_in_chans(tensors)),
        padding=rules.padding,
        norm_eps=rules.norm_eps,
    )
    network = build(replace(spec, classes=_classes(tensors, spec)))
    if isinstance(tensors, KerasFile):
        tensors = arrange(tensors.layers, network)
    norm = network.head.norm.state_dict(prefix="head.norm.")
    if norm and len(tensors) + len(norm) == len(network.state_dict()):
        tensors = {**tensors, **norm}  # which starts as it is
    copy_by_order(tensors, network)
    for key, value in network.state_dict().items():
        if not value.isfinite().all():
            raise UsageError(
                f"what became '{key}' has values that are not finite (NaN or infinite): the "
                "network had diverged when it was saved. Take an earlier checkpoint."
            )
    return network


def _in_chans(tensors: Mapping[str, Tensor] | KerasFile) -> int:
    """Channels of the input: of the first convolution's kernels."""
    if isinstance(tensors, KerasFile):
        values = [tensor for layer in tensors.layers for tensor in layer.tensors]
    else:
        values = list(tensors.values())
    return next((tensor.shape[1] for tensor in values if tensor.ndim == 4), 3)


def _classes(tensors: Mapping[str, Tensor] | KerasFile, spec: Spec) -> int:
    """Outputs of the classifier: what is left beside a network without one.

    Weights that learned without labels may lack the norm before it as well.
    """
    with torch.device("meta"):
        headless = build(spec)
    if isinstance(tensors, KerasFile):
        classes = count_classes(tensors.layers, headless)
        return 1000 if classes is None else classes
    ours, theirs = (
        [value for key, value in state.items() if not key.endswith("num_batches_tracked")]
        for state in (headless.state_dict(), tensors)
    )
    if len(ours) - len(theirs) in (0, len(headless.head.norm.state_dict())):
        return 0
    biases = [value for value in tensors.values() if value.ndim == 1]
    return len(biases[-1]) if biases else 1000


def _with_two_classes(network: Network) -> Network:
    """Of one logit z the logits (0, z): the softmax of these is (1 - sigmoid(z), sigmoid(z))."""
    two = adapt(network, replace(network.spec, classes=2))
    classifier = two.head.classifier.state_dict()
    for name, row in network.head.classifier.state_dict().items():
        classifier[name].copy_(torch.cat([torch.zeros_like(row), row]))
    return two


def _preprocess(
    usual: Preprocess, tensors: Mapping[str, Tensor] | KerasFile
) -> tuple[Preprocess, list[str]]:
    """What a Keras file itself says of its input comes before what is usual."""
    if not isinstance(tensors, KerasFile):
        return usual, []
    notes = []
    if tensors.input_size and tensors.input_size != usual.size:
        usual = replace(usual, size=tensors.input_size)
        notes.append(f"The file's input is {usual.size} pixels wide.")
    if tensors.statistics:
        mean, variance = (value.double() * 255 for value in tensors.statistics)
        deviation = (variance * 255).sqrt()
        # Keras' EfficientNets have the deviation where the variance should be, and a layer that
        # makes up for it (tensorflow issue 49930).
        imagenet = torch.tensor(usual.std, dtype=torch.float64)
        if not torch.allclose(variance, imagenet, atol=1e-2):
            first, second, third = (round(float(value), 4) for value in mean)
            one, two, three = (round(float(value), 4) for value in deviation)
            usual = replace(usual, mean=(first, second, third), std=(one, two, three))
            notes.append("Its mean and deviation are those of the file's Normalization layer.")
    return usual, notes
