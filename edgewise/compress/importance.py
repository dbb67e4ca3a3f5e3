"""How much a network would miss each of its channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgewise.compress.groups import Group, Slice, channel_groups
from edgewise.compress.pruning import CRITERIA
from edgewise.errors import UsageError, unknown
from edgewise.layers import ConvNorm
from edgewise.network import Network

Batch = tuple[Tensor, Tensor]  # float (N, C, H, W) inputs, int64 (N,) labels


def importance(
    network: Network, criterion: str, batches: Iterable[Batch] = (), seed: int = 0
) -> dict[str, Tensor]:
    """A score (size,) for each channel of each group, by the group's name.

    Scores of one group compare with each other, not with another group's.

    - "l1", "l2": the norm of the channel's weights (arXiv 1608.08710), relative to the mean of the
      group's channels in each tensor, summed over the tensors. Batch norm is multiplied into the
      kernels first: without it their size says nothing.
    - "taylor": by how much the loss would change without the channel, to first order: the square
      of the sum of weight times gradient (arXiv 1906.10771, equation 8), averaged over batches.
    - "random": a control, which the others should beat.

    Args:
        network: left in evaluation mode.
        criterion: one of `CRITERIA`.
        batches: for "taylor": normalised images with their labels.
        seed: for "random".

    Raises:
        UsageError: no such criterion, or no batches where they are needed.
    """
    network.eval()
    groups = channel_groups(network.spec)
    if criterion == "random":
        generator = torch.Generator().manual_seed(seed)
        return {group.name: torch.rand(group.size, generator=generator) for group in groups}
    if criterion == "taylor":
        return _taylor(network, groups, batches)
    if criterion not in CRITERIA:
        raise unknown("criterion", criterion, CRITERIA)
    return _norms(network, groups, {"l1": 1, "l2": 2}[criterion])


def _norms(network: Network, groups: Sequence[Group], order: int) -> dict[str, Tensor]:
    kernels = {name: p.detach() for name, p in network.named_parameters() if p.ndim > 1}
    for name, module in network.named_modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            norm, kernel = module.norm, kernels[f"{name}.conv.weight"]
            assert norm.running_var is not None
            factor = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
            kernels[f"{name}.conv.weight"] = kernel * factor.view(-1, 1, 1, 1)
    scores = {}
    for group in groups:
        total = torch.zeros(group.size)
        for part in group.slices:
            if part.tensor in kernels:
                norms = _by_channel(kernels[part.tensor], part).norm(p=order, dim=1)
                total += norms / norms.mean().clamp_min(torch.finfo(norms.dtype).tiny)
        scores[group.name] = total
    return scores


def _taylor(
    network: Network, groups: Sequence[Group], batches: Iterable[Batch]
) -> dict[str, Tensor]:
    parameters = dict(network.named_parameters())
    scores = {group.name: torch.zeros(group.size) for group in groups}
    seen = 0
    for inputs, labels in batches:
        loss = F.cross_entropy(network(inputs), labels)
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        products = {
            name: (parameter * gradient).detach()
            for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True)
        }
        for group in groups:
            parts = [part for part in group.slices if part.tensor in products]
            change = sum(_by_channel(products[part.tensor], part).sum(1) for part in parts)
            scores[group.name] += change**2
        seen += 1
    if not seen:
        raise UsageError("the criterion taylor needs images; give some, or take l2.")
    return {name: score / seen for name, score in scores.items()}


def _by_channel(tensor: Tensor, part: Slice) -> Tensor:
    """(channels, everything else that is theirs)."""
    return tensor.movedim(part.dim, 0).reshape(tensor.shape[part.dim] // part.repeat, -1)
