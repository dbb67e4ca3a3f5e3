"""One call for a network: by name, from a spec or from a model folder; fresh or pretrained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from edgewise.errors import UsageError, unknown
from edgewise.model import Model
from edgewise.network import Network, build
from edgewise.spec import Spec
from edgewise.strides import dilate, small_stem
from edgewise.weights.folder import load_model
from edgewise.weights.pretrained import load_pretrained, made_up_labels, resolve

STEMS = ("standard", "small")


def create_model(
    source: str | Path | Spec,
    num_classes: int | None = None,
    in_chans: int | None = None,
    width: float = 1.0,
    depth: float = 1.0,
    pretrained: bool | str = False,
    stem: str = "standard",
    output_stride: int = 32,
    drop_path: float | None = None,
) -> Network:
    """A network in training mode, on the CPU.

    Args:
        source: a model's name, ours (`edgewise.list_models()`) or timm's or torchvision's; a
            `Spec`; or the path of a model folder, whose weights are loaded. A string that names a
            folder which exists is a path.
        num_classes: outputs; the source's own number (1000 for a name) if None, 0 for pooled
            features. Where weights are loaded, another number gets a fresh classifier.
        in_chans: channels of the input; the source's own number (3 for a name) if None. Where
            weights are loaded, the first convolution is adapted, see `adapt_stem`.
        width: multiplies channels; only for a name.
        depth: multiplies numbers of blocks; only for an EfficientNet's name.
        pretrained: loads published ImageNet weights: True for the preferred ones, or their tag
            (`edgewise models show NAME` lists them). They exist at few widths other than 1.
        stem: "small" for images of 28 to 64 px, see `edgewise.strides.small_stem`.
        output_stride: 8 or 16 for larger last maps, see `edgewise.strides.dilate`. A source whose
            last map is as large already keeps it.
        drop_path: rate of stochastic depth in training; the source's own if None.

    Raises:
        UsageError: an unknown name, a broken folder, or arguments that don't go together.
    """
    by_name = isinstance(source, str) and not Path(source).is_dir()
    if (width != 1 or depth != 1) and not by_name:
        raise UsageError("width and depth are for a model's name: a spec or a folder has its own.")
    if depth != 1 and pretrained:
        raise UsageError("pretrained weights have the published depth. Leave out one of the two.")
    if pretrained and not by_name:
        raise UsageError("pretrained is for a model's name: a folder's own weights are loaded.")
    if stem not in STEMS:
        raise unknown("stem", stem, STEMS)

    trained: Network | None = None
    if isinstance(source, Spec):
        spec = source
    elif by_name:
        alias = resolve(str(source))
        spec = alias.spec(width, depth)
        if pretrained:
            tag = pretrained if isinstance(pretrained, str) else alias.tag
            trained = load_pretrained(alias.name, tag, alias.width * width).network
    else:
        trained = load_model(Path(source)).network
    if trained:
        spec = trained.spec

    changed = dilate(small_stem(spec) if stem == "small" else spec, output_stride)
    changed = replace(
        changed,
        classes=spec.classes if num_classes is None else num_classes,
        in_chans=spec.in_chans if in_chans is None else in_chans,
        drop_path=spec.drop_path if drop_path is None else drop_path,
    )
    if trained is None or changed == spec:
        return (trained or build(changed)).train()
    return adapt(trained, changed).train()


def adapt(trained: Network, spec: Spec) -> Network:
    """A network of `spec` with the weights of `trained`, in its mode.

    The two may differ in classes (the classifier is then fresh), in channels of the input (see
    `adapt_stem`), and in what has no weights.

    Raises:
        UsageError: `spec` can't be built.
    """
    network = build(spec)
    state = trained.state_dict()
    if spec.classes != trained.spec.classes:
        state = {name: v for name, v in state.items() if not name.startswith("head.classifier.")}
    if spec.in_chans != trained.spec.in_chans:
        state["stem.conv.weight"] = _adapt_kernels(state["stem.conv.weight"], spec.in_chans)
    network.load_state_dict(state, strict=False)
    return network.train(trained.training)


def keep_known(network: Network, model: Model, labels: Sequence[str]) -> None:
    """Gives `network`, which was made of `model`, a classifier for `labels`, in place.

    A label that the model knows keeps its row, in whichever order they are; the others get fresh
    ones. Where the model's labels were made up by an import and it knows none of these, as many
    are taken to be in the same order, as they are for published weights.
    """
    known = model.labels
    if tuple(labels) == known:
        return
    rows = {row: known.index(label) for row, label in enumerate(labels) if label in known}
    if not rows and known == made_up_labels(len(labels)):
        return
    tensors = build(network.spec).head.classifier.state_dict()
    for name, trained in model.network.head.classifier.state_dict().items():
        tensors[name][list(rows)] = trained[list(rows.values())]
    network.head.classifier.load_state_dict(tensors)


def adapt_stem(network: Network, in_chans: int) -> Network:
    """A copy of `network` whose first convolution takes `in_chans` channels; all else is kept.

    One channel: the kernels are summed over the old channels, so that a grey image gives what its
    copy in every channel gave. Otherwise the old channels are repeated in turn and scaled, so that
    the sum over the input is of the old size (timm's rule).

    Raises:
        UsageError: `in_chans` is out of range.
    """
    return adapt(network, replace(network.spec, in_chans=in_chans))


def _adapt_kernels(kernels: Tensor, in_chans: int) -> Tensor:
    """(O, I, k, k) -> (O, in_chans, k, k)."""
    if in_chans == 1:
        return kernels.sum(1, keepdim=True)
    old = kernels.shape[1]
    repeated = kernels.repeat(1, math.ceil(in_chans / old), 1, 1)[:, :in_chans]
    return repeated * (old / in_chans)
