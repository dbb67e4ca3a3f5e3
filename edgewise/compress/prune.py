"""Structured pruning: a smaller network of the channels that matter most, with their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from edgewise.compress.groups import channel_groups, resized
from edgewise.compress.importance import Batch, importance
from edgewise.compress.latency import relative_latency
from edgewise.compress.pruning import Pruning
from edgewise.compress.widths import Sizes, sizes_for, sizes_without
from edgewise.errors import UsageError
from edgewise.layers import GRN
from edgewise.measure.count import count
from edgewise.model import Model
from edgewise.network import Network, build
from edgewise.spec import Spec, dense_kernels
from edgewise.weights.tensors import tensors_of

SUFFIX = "_pruned"  # of the network's name: it is no longer the published one


def prune(model: Model, how: Pruning, batches: Sequence[Batch]) -> Model:
    """The model without its least important channels, in evaluation mode; `model` is unchanged.

    Its batch norms get the statistics of the batches: those that they had are of other sums. If
    nothing goes, everything stays as it is.

    Args:
        model: of any network, also a compiled, a partly frozen or a half-precision one. The result
            has its precision and device; it is not compiled, and nothing of it is frozen.
        how: what is to go.
        batches: of training images, normalised as the model's are, with their labels.

    Raises:
        UsageError: a group of channels would be emptied (the message names it), there are no
            batches, the network's convolutions were taken apart, or its modules were changed, so
            that it doesn't fit its spec.
    """
    spec, size = model.network.spec, model.preprocess.size
    check_prunable(spec)
    if not batches:
        raise UsageError("pruning needs some training images, for the statistics of batch norm.")
    whole = build(spec)
    whole.load_state_dict(tensors_of(model.network))
    batches = [(inputs.to("cpu", torch.float32), labels.cpu()) for inputs, labels in batches]
    if how.target == "channels":
        sizes = sizes_without(spec, how.part, how.multiple)
    elif how.target == "macs":
        sizes = sizes_for(spec, how.part, how.multiple, lambda other: count(other, size).macs)
    else:
        relative = relative_latency(whole, size)
        sizes = sizes_for(spec, how.part, how.multiple, relative)
    if resized(spec, sizes) == spec:
        return model
    scores = importance(whole, how.criterion, batches, how.seed)
    kept = {
        group.name: scores[group.name].topk(sizes[group.places]).indices
        for group in channel_groups(spec)
    }
    network = with_channels(whole, kept)
    recalibrate(network, (inputs for inputs, _ in batches))
    network.to(next(model.network.parameters()))  # its precision and device
    name = spec.name.removesuffix(SUFFIX) + SUFFIX
    network.spec = replace(network.spec, name=name)
    return Model(network, model.preprocess, model.labels)


def check_prunable(spec: Spec) -> None:
    """Whether channels can be taken out of a network.

    Raises:
        UsageError: its convolutions were taken apart.
    """
    rows = [spec.stem, *(row for stage in spec.stages for row in stage)]
    if any(getattr(row, field) for row in rows for field in dense_kernels(row)):
        raise UsageError(
            "channels can't be taken out of convolutions that were taken apart: prune first, then "
            "separate."
        )


def with_channels(network: Network, kept: Mapping[str, Tensor]) -> Network:
    """A network of some of the channels, with their weights, in evaluation mode.

    Where the others were zero, its answers are the same to rounding, unless a layer norm counted
    them: over fewer channels its mean is another. So is GRN's, whose factor is scaled to make up
    for it.

    Args:
        network: of any kind; it is not changed.
        kept: the indices of the channels that stay, by the group's name, in any order; groups that
            are not named stay whole. Groups of the same places keep as many.

    Raises:
        UsageError: a group would be left with none, or with another number than one of the same
            places.
    """
    state = network.state_dict()
    sizes: Sizes = {}
    for group in channel_groups(network.spec):
        indices = kept.get(group.name, torch.arange(group.size)).sort().values
        size = sizes.setdefault(group.places, len(indices))
        if not size:
            raise UsageError(f"nothing would be left of {group.name}. Keep one channel at least.")
        if size != len(indices):
            raise UsageError(
                f"{group.name} keeps {len(indices)} channels, and must keep {size}: it shares a "
                "number of the spec with another group."
            )
        for part in group.slices:
            entries = indices[:, None] * part.repeat + torch.arange(part.repeat)
            state[part.tensor] = state[part.tensor].index_select(part.dim, entries.flatten())
    for name, module in network.named_modules():
        if isinstance(module, GRN):  # it divides by the mean of all channels' norms
            new = state[f"{name}.weight"]
            state[f"{name}.weight"] = new * (len(module.weight) / len(new))
    smaller = build(resized(network.spec, sizes))
    smaller.load_state_dict(state)
    return smaller.eval()


@torch.no_grad()
def recalibrate(network: Network, batches: Iterable[Tensor]) -> None:
    """Gives every batch norm the statistics of these inputs (N, C, H, W).

    All batches count alike, and nothing else changes. The network is left in evaluation mode; it
    is in it all along, without dropout.
    """
    norms = [module for module in network.eval().modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
        norm.train()
    if norms:
        for inputs in batches:
            network(inputs)
    for norm in norms:
        norm.momentum = network.spec.norm_momentum
        norm.eval()
