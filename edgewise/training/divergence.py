"""When training diverges: where it began, for the message. Nothing here runs while all is well."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from edgewise.errors import EdgewiseError


class Diverged(EdgewiseError):
    """A loss, a gradient or a weight is not finite; the message names the place and the mend."""

    def __init__(self, what: str, where: str, tried: float | None = None) -> None:
        """Says what and where.

        Args:
            what: is not finite, and when.
            where: it began.
            tried: the peak learning rate of the last retry, if there were any.
        """
        lower = (
            "a lower --lr, or with retries=3, which halves it by itself"
            if tried is None
            else f"an --lr below {tried:g}, the last that was tried"
        )
        super().__init__(
            f"training has diverged: {what} ({where}). Train again with {lower}; what was saved "
            "before is kept."
        )
        self.what, self.where = what, where


def first_not_finite(
    network: nn.Module, inputs: Tensor, compute: Callable[[], object]
) -> str | None:
    """The first place where a value is not finite: the weights, the input, or a layer's output.

    Args:
        network: what learns; its weights are those of the step that failed.
        inputs: of that step.
        compute: runs the network on them once more.

    Returns:
        Words that name the place; None if all is finite.
    """
    if name := _first(network.named_parameters()):  # this batch has spoilt the statistics already
        return f"the weight '{name}' was not finite before this batch"
    if not bool(inputs.isfinite().all()):
        return "the pixels are not finite once they are normalised"
    found: list[str] = []

    def look(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, given: object, output: object) -> None:
            if isinstance(output, Tensor) and not found and not bool(output.isfinite().all()):
                found.append(f"'{name}' ({type(module).__name__})")

        return hook

    # Inner modules answer before those that hold them, so the first is the innermost.
    hooks = [
        module.register_forward_hook(look(name or "network"))
        for name, module in network.named_modules()
    ]
    try:
        with torch.no_grad():
            compute()
    finally:
        for handle in hooks:
            handle.remove()
    return f"first not finite: the output of layer {found[0]}" if found else None


def gradient_not_finite(network: nn.Module) -> str:
    """The parameter nearest to the loss whose gradient is not finite; or that with the largest."""
    gradients = [(name, p.grad) for name, p in network.named_parameters() if p.grad is not None]
    if name := _first(reversed(gradients)):
        return f"first not finite, from the loss on: the gradient of '{name}'"
    name, _ = max(gradients, key=lambda pair: float(pair[1].abs().max()))
    return f"the largest is that of '{name}'"


def value_not_finite(network: nn.Module) -> str | None:
    """The first weight or batch-norm statistic that is not finite, if any."""
    return _first((*network.named_parameters(), *network.named_buffers()))


def _first(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    return next((name for name, tensor in tensors if not bool(tensor.isfinite().all())), None)
