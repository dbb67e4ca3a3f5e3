"""One call for a network: by name, from a spec or from a model folder; fresh or pretrained."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from edgewise.errors import UsageError
from edgewise.families import variant
from edgewise.network import Network, build
from edgewise.spec import Spec
from edgewise.weights.folder import load_model
from edgewise.weights.pretrained import load_pretrained


def create_model(
    source: str | Path | Spec,
    num_classes: int | None = None,
    in_chans: int | None = None,
    width: float = 1.0,
    pretrained: bool = False,
) -> Network:
    """A network in training mode, on the CPU.

    Args:
        source: a model's name (`edgewise.list_models()`), a `Spec`, or the path of a model folder,
            whose weights are loaded. A string that names a folder which exists is a path.
        num_classes: outputs; the source's own number (1000 for a name) if None, 0 for pooled
            features. Where weights are loaded, another number gets a fresh classifier.
        in_chans: channels of the input; the source's own number (3 for a name) if None. Where
            weights are loaded, the first convolution is adapted, see `adapt_stem`.
        width: multiplies channels; only for a name, and not with `pretrained`, since weights fit
            one width.
        pretrained: loads published ImageNet weights; only for the names in
            `edgewise.weights.pretrained.PRETRAINED`.

    Raises:
        UsageError: an unknown name, a broken folder, or arguments that don't go together.
    """
    by_name = isinstance(source, str) and not Path(source).is_dir()
    if width != 1 and not by_name:
        raise UsageError("width is for a model's name: a spec or a folder already has its widths.")
    if width != 1 and pretrained:
        raise UsageError("pretrained weights fit width 1 only. Leave out width, or pretrained.")
    if pretrained and not by_name:
        raise UsageError("pretrained is for a model's name: a folder's own weights are loaded.")

    if isinstance(source, Spec):
        network = None
        spec = source
    elif by_name and not pretrained:
        network = None
        spec = variant(str(source)).spec(width)
    else:
        model = load_pretrained(str(source)) if pretrained else load_model(Path(source))
        network = model.network.train()
        spec = network.spec

    classes = spec.classes if num_classes is None else num_classes
    channels = spec.in_chans if in_chans is None else in_chans
    if network is None:
        return build(replace(spec, classes=classes, in_chans=channels))
    if classes != spec.classes:
        network = adapt_head(network, classes)
    if channels != spec.in_chans:
        network = adapt_stem(network, channels)
    return network


def adapt_head(network: Network, classes: int) -> Network:
    """A copy of `network` with a fresh classifier for `classes` classes; all else is kept.

    Raises:
        UsageError: `classes` is out of range.
    """
    adapted = build(replace(network.spec, classes=classes))
    _copy_all_but(network, adapted, "head.classifier.")
    return adapted


def adapt_stem(network: Network, in_chans: int) -> Network:
    """A copy of `network` whose first convolution takes `in_chans` channels; all else is kept.

    One channel: the kernels are summed over the old channels, so that a grey image gives what its
    copy in every channel gave. Otherwise the old channels are repeated in turn and scaled, so that
    the sum over the input is of the old size (timm's rule).

    Raises:
        UsageError: `in_chans` is out of range.
    """
    adapted = build(replace(network.spec, in_chans=in_chans))
    _copy_all_but(network, adapted, "stem.conv.")
    with torch.no_grad():
        adapted.stem.conv.weight.copy_(_adapt_kernels(network.stem.conv.weight, in_chans))
    return adapted


def _adapt_kernels(kernels: Tensor, in_chans: int) -> Tensor:
    """(O, I, k, k) -> (O, in_chans, k, k)."""
    if in_chans == 1:
        return kernels.sum(1, keepdim=True)
    old = kernels.shape[1]
    repeated = kernels.repeat(1, math.ceil(in_chans / old), 1, 1)[:, :in_chans]
    return repeated * (old / in_chans)


def _copy_all_but(source: Network, target: Network, prefix: str) -> None:
    state = {k: v for k, v in source.state_dict().items() if not k.startswith(prefix)}
    target.load_state_dict(state, strict=False)
    target.train(source.training)
