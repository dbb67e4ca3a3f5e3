"""The optimisers of the papers, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from edgewise.network import Network
from edgewise.training.recipe import Recipe


def make_optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's, over all parameters of the network, with its peak learning rate.

    Each group of parameters has a "scale", the factor of its learning rate; see `set_rate`.
    """
    groups = _parameter_groups(network, recipe.weight_decay, recipe.layer_decay or 1.0)
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, 0.999)
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=betas, fused=True)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(
            groups, lr=recipe.lr, alpha=RmsPropTf.DECAY, momentum=recipe.momentum
        )
    return RmsPropTf(groups, lr=recipe.lr, momentum=recipe.momentum)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of the head; every other group's is its own part of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def _parameter_groups(
    network: Network, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """By depth, and by whether they decay: kernels and matrices do, norms and biases don't.

    All of the latter are vectors. The head's rate is the whole one, the last block's `layer_decay`
    of it, and so on down to the stem (ELECTRA, arXiv 2003.10555, appendix A; for ConvNeXt's
    fine-tuning arXiv 2201.03545, appendix A.2, which puts some blocks together).
    """
    blocks = [block for stage in network.stages for block in cast(nn.Sequential, stage)]
    groups: list[dict[str, Any]] = []
    for depth, part in enumerate([network.stem, *blocks, network.head]):
        scale = layer_decay ** (len(blocks) + 1 - depth)
        for vectors in (False, True):
            chosen = [p for p in part.parameters() if (p.ndim <= 1) == vectors]
            decay = 0.0 if vectors else weight_decay
            groups.append({"params": chosen, "weight_decay": decay, "scale": scale})
    if layer_decay == 1:  # few large groups are updated faster than many small ones
        groups = [
            {**group, "params": [p for other in groups[i::2] for p in other["params"]]}
            for i, group in enumerate(groups[:2])
        ]
    return [group for group in groups if group["params"]]


class RmsPropTf(torch.optim.Optimizer):
    """RMSProp as TensorFlow 1 has it, with which MobileNets and EfficientNets were trained.

        square <- 0.9 square + 0.1 gradient^2             (from 1, where PyTorch begins at 0)
        speed  <- momentum speed + lr gradient / sqrt(square + eps)
        weight <- weight - speed

    The epsilon of the papers' code, 1e-3, is inside of the root: with PyTorch's RMSProp, which adds
    it outside, the same numbers train another network. Weight decay is added to the gradient.
    """

    DECAY, EPS = 0.9, 1e-3

    def __init__(self, params: Any, lr: float, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step with the gradients that are there."""
        for group in self.param_groups:
            pairs = [(p, p.grad) for p in group["params"] if p.grad is not None]
            if not pairs:
                continue
            weights = [weight for weight, _ in pairs]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["square"] = torch.ones_like(weight)
                    self.state[weight]["speed"] = torch.zeros_like(weight)
            squares = [self.state[weight]["square"] for weight in weights]
            speeds = [self.state[weight]["speed"] for weight in weights]
            gradients = torch._foreach_add(
                [gradient for _, gradient in pairs], weights, alpha=group["weight_decay"]
            )
            torch._foreach_mul_(squares, self.DECAY)
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - self.DECAY)
            roots = torch._foreach_add(squares, self.EPS)
            torch._foreach_sqrt_(roots)
            torch._foreach_mul_(speeds, group["momentum"])
            torch._foreach_addcdiv_(speeds, gradients, roots, group["lr"])
            torch._foreach_sub_(weights, speeds)
