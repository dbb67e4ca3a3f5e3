"""Weights of the same network from another library: copied tensor by tensor, in order."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgewise.errors import UsageError
from edgewise.network import Network


def copy_by_order(source: Mapping[str, Tensor], network: Network) -> None:
    """Copies a state dict into `network`, the n-th tensor into the n-th.

    torchvision, timm and the EfficientNet ports register a network's parts in the order of the
    computation, as we do, so that the order of the tensors says which is which while their names
    differ. Every pair of shapes is checked before anything is copied. A 1x1 convolution
    (O, I, 1, 1) and a linear layer (O, I) are the same matrix and go either way. Batch-norm's
    `num_batches_tracked` is skipped: not all have it, and it plays no part in a result.

    Raises:
        UsageError: the tensors are not those of this network (names the first that differs).
    """
    theirs, ours = _numbers(source), _numbers(network.state_dict())
    for (their_name, value), (our_name, slot) in zip(theirs, ours, strict=False):
        if _matrix(value) != _matrix(slot):
            raise UsageError(
                f"the weights don't fit {network.spec.name}: '{their_name}' is "
                f"{tuple(value.shape)} where '{our_name}' is {tuple(slot.shape)}. "
                "Check the variant, the width and the number of classes."
            )
    if len(theirs) != len(ours):
        left = (theirs[len(ours) :] or ours[len(theirs) :])[0][0]
        raise UsageError(
            f"the weights don't fit {network.spec.name}: {len(theirs)} tensors for its "
            f"{len(ours)}; the first left over is '{left}'."
        )
    with torch.no_grad():
        for (_, value), (_, slot) in zip(theirs, ours, strict=True):
            slot.copy_(value.reshape(slot.shape))


def _numbers(state: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [(k, v) for k, v in state.items() if not k.endswith("num_batches_tracked")]


def _matrix(tensor: Tensor) -> tuple[int, ...]:
    """The shape, with that of a 1x1 convolution written as the matrix it is."""
    shape = tuple(tensor.shape)
    return shape[:2] if len(shape) == 4 and shape[2:] == (1, 1) else shape
