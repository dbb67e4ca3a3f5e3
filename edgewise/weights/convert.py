"""Weights of the same network from another library: which of theirs is which of ours."""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edgewise.errors import UsageError
from edgewise.network import Network

if TYPE_CHECKING:
    from edgewise.weights.keras import Layer

Shapes = tuple[tuple[int, ...], ...]
ADVICE = "Check the variant, the width and the number of classes."


def copy_by_order(source: Mapping[str, Tensor], network: Network) -> None:
    """Copies a state dict into `network`, the n-th tensor into the n-th.

    torchvision, timm and the EfficientNet ports register a network's parts in the order of the
    computation, as we do, so that the order of the tensors says which is which while their names
    differ. Every pair of shapes is checked before anything is copied. Sides of length 1 don't
    count: a 1x1 convolution (O, I, 1, 1) and a linear layer (O, I) are the same matrix and go
    either way. So do a linear layer on a flattened map and a convolution as large as the map.
    Batch-norm's `num_batches_tracked` is skipped: not all have it, and it plays no part in a
    result.

    Raises:
        UsageError: the tensors are not those of this network (names the first that differs).
    """
    theirs, ours = _numbers(source), _numbers(network.state_dict())
    for (their_name, value), (our_name, slot) in zip(theirs, ours, strict=False):
        if not _same_matrix(value, slot):
            raise UsageError(
                f"the weights don't fit {network.spec.name}: '{their_name}' is "
                f"{tuple(value.shape)} where '{our_name}' is {tuple(slot.shape)}. {ADVICE}"
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


def count_classes(layers: tuple[Layer, ...], headless: Network) -> int | None:
    """Outputs of the classifier; 0 without one; None if the layers are not `headless` and that."""
    left = Counter(_shapes(layer.tensors) for layer in layers)
    left.subtract(_shapes(part.values()) for part in _parts(headless).values())
    if min(left.values()) < 0:
        return None
    classifiers = list(left.elements())
    if len(classifiers) == 1 and len(classifiers[0]) == 2:
        return (*classifiers[0][1], 1)[0]  # the bias; of one class, its shape counts as empty
    return None if classifiers else 0


def arrange(layers: tuple[Layer, ...], network: Network) -> dict[str, Tensor]:
    """The layers' tensors under the names that `network` has for them.

    Raises:
        UsageError: the layers are not those of this network; names the first that is missing or
            left over.
    """
    stock: dict[Shapes, deque[Layer]] = defaultdict(deque)
    for layer in layers:
        stock[_shapes(layer.tensors)].append(layer)
    state: dict[str, Tensor] = {}
    for name, part in _parts(network).items():
        left = stock[_shapes(part.values())]
        if not left:
            shape = tuple(next(iter(part.values())).shape)
            raise UsageError(
                f"the weights don't fit {network.spec.name}: no layer is left for its '{name}', "
                f"{shape}. {ADVICE}"
            )
        state.update(zip(part, left.popleft().tensors, strict=True))
    for shapes, remaining in stock.items():
        if remaining:
            raise UsageError(
                f"the weights don't fit {network.spec.name}: it has no place for the layer "
                f"'{remaining[0].name}', {shapes[0]}. {ADVICE}"
            )
    return state


def _parts(network: Network) -> dict[str, dict[str, Tensor]]:
    """Our state dict, module by module: a name, and the module's own tensors."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in network.state_dict().items():
        module, _, role = name.rpartition(".")
        if role != "num_batches_tracked":
            parts.setdefault(module, {})[name] = tensor
    return parts


def _shapes(tensors: Iterable[Tensor]) -> Shapes:
    return tuple(_long_sides(tensor.shape) for tensor in tensors)


def _numbers(state: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [(k, v) for k, v in state.items() if not k.endswith("num_batches_tracked")]


def _same_matrix(one: Tensor, other: Tensor) -> bool:
    """Whether both hold the same numbers in the same order, whichever way the shape is written."""
    a, b = sorted((_long_sides(one.shape), _long_sides(other.shape)), key=len)
    flattened = len(a) == 2 < len(b) and a[0] == b[0] and a[1] == math.prod(b[1:])
    return a == b or flattened


def _long_sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A 1x1 convolution (O, I, 1, 1) is a matrix, as is a linear layer (O, I)."""
    return tuple(side for side in shape if side != 1)
