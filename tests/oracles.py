"""Other people's networks, for comparing ours with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgewise.libraries import import_library
from edgewise.network import Network, build
from edgewise.spec import Spec
from edgewise.weights.convert import copy_by_order

Module = TypeVar("Module", bound=nn.Module)
DRAWN = 1_000_003  # a prime: no two rows of a matrix begin with the same number


def import_torchvision() -> ModuleType:
    return import_library("torchvision")


def import_timm() -> ModuleType:
    return import_library("timm")


@dataclass
class Differences:
    """Largest difference of anything to the oracle's, over the oracle's largest value."""

    logits: float
    train_logits: float
    gradients: float
    running_statistics: float

    def largest(self) -> float:
        return max(vars(self).values())


class _DrawsNothing(TorchFunctionMode):
    """Leaves out what fills a tensor: PyTorch does that in Python on the meta device."""

    FILLS = (
        *("normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_"),
        *("constant_", "fill_", "ones_", "zero_", "zeros_", "erfinv_", "mul_", "add_", "clamp_"),
    )

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self.FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def empty(make: Callable[[], Module]) -> Module:
    """A module whose parameters hold anything: to draw what is replaced at once takes longest."""
    with torch.device("meta"), _DrawsNothing():
        module = make()
    module.to_empty(device="cpu")
    for buffer in module.buffers():
        buffer.zero_()
    return module


@torch.no_grad()
def _draw(parameter: Tensor, std: float) -> None:
    """Normal numbers. Of a large parameter the first ones again and again: to draw hundreds of
    millions takes longer than the sums with them.
    """
    drawn = std * torch.randn(min(DRAWN, parameter.numel()))
    for part in parameter.view(-1).split(DRAWN):
        part.copy_(drawn[: len(part)])


def with_random_weights(make: Callable[[], nn.Module]) -> nn.Module:
    """An oracle whose kernels and matrices keep the size of what they are applied to.

    ConvNeXt's begin smaller, as in the authors' code: else rounding grows from block to block.
    """
    torch.manual_seed(0)
    oracle = empty(make)
    convnext = any(isinstance(module, nn.LayerNorm) for module in oracle.modules())
    for parameter in oracle.parameters():
        if parameter.ndim in (2, 4):
            _draw(parameter, 0.02 if convnext else parameter[0].numel() ** -0.5)
    randomise(oracle)
    return oracle


def randomise(oracle: nn.Module) -> None:
    """Random weights and batch statistics, as a trained network might have them.

    Layer scale is 1e-6 at first and GRN 0, which would hide a whole block from a comparison.
    """
    torch.manual_seed(0)
    for module in oracle.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # torchvision's V3 and B5-B7 have 0.01; a training matter
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 1.0, 2.0)  # no deep network overflows
    for name, parameter in oracle.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, 0, 0.1)
        elif parameter.ndim in (1, 3):  # norms, GRN and layer scale, in torchvision (C, 1, 1)
            scales = "norm" in name or "bn" in name
            nn.init.uniform_(parameter, *((0.5, 1.5) if scales else (0.1, 1.0)))


def twin(oracle: nn.Module, spec: Spec) -> Network:
    """Our network with the oracle's weights and epsilon, and nothing random in it."""
    epsilon = next((m.eps for m in oracle.modules() if hasattr(m, "eps")), 1e-3)
    head = replace(spec.head, dropout=0.0)
    ours = empty(lambda: build(replace(spec, norm_eps=epsilon, drop_path=0.0, head=head)))
    copy_by_order(oracle.state_dict(), ours)
    return ours


def compare(
    make: Callable[[], nn.Module],
    spec: Spec,
    size: int = 64,
    dtype: torch.dtype = torch.float32,
    gradients: bool = True,
) -> Differences:
    """Runs both on the same images: evaluation, training, gradients of all parameters."""
    oracle = with_random_weights(make)
    ours = twin(oracle, spec).to(dtype)
    oracle.to(dtype)
    images = torch.randn(3, spec.in_chans, size, size, dtype=dtype)
    with torch.inference_mode():
        logits = _difference([ours.eval()(images)], [oracle.eval()(images)])
    with torch.set_grad_enabled(gradients):
        y, z = ours.train()(images), oracle.train()(images)
    direction = torch.randn_like(z)
    if gradients:
        y.backward(direction)
        z.backward(direction)
    return Differences(
        logits=logits,
        train_logits=_difference([y], [z]),
        gradients=_difference(_gradients(ours), _gradients(oracle)),
        running_statistics=_difference(_statistics(ours), _statistics(oracle)),
    )


def _difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Over all tensors together: some gradients are zero but for rounding, and have no scale."""
    with torch.no_grad():
        scale = max((float(end.abs()) for t in theirs for end in t.aminmax()), default=1.0)
        assert 0 < scale < 1e30, "nothing, or more than a float holds, compares with nothing"
        return (
            max((_distance(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0) / scale
        )


def _distance(ours: Tensor, theirs: Tensor) -> float:
    theirs = theirs.reshape(ours.shape)
    return 0.0 if torch.equal(ours, theirs) else float((ours - theirs).abs().max())


def _gradients(module: nn.Module) -> list[Tensor]:
    return [p.grad for p in module.parameters() if p.grad is not None]


def _statistics(module: nn.Module) -> list[Tensor]:
    return [b for name, b in module.named_buffers() if "running" in name]
