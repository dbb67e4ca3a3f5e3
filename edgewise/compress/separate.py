"""Any network's dense convolutions as sums of depthwise separable ones, from its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from edgewise.compress.separate_inputs import (
    Model,
    Moments,
    copied,
    depthwise_like,
    input_moments,
)
from edgewise.compress.separate_kernel import Decomposition, decompose
from edgewise.compress.separate_ranks import DenseLayer, choose_ranks, saving_ranks
from edgewise.compress.separate_spec import rank_fields, with_ranks
from edgewise.errors import EdgewiseError, UsageError, shortened
from edgewise.layers import Conv2d, Separated
from edgewise.measure.profile import profile
from edgewise.measure.profile_result import Profile
from edgewise.network import Network

PART = 0.5  # of the MACs is left, if nothing else is asked for
FITTED = "separated kernels"  # what images are for
LEAST_CHANNELS = 8  # a depthwise convolution of an image's few channels fills no vector register


@dataclass(frozen=True)
class Report:
    """What became of a network.

    Attributes:
        layers: the convolutions that could be taken apart.
        ranks: theirs, in the same order; 0 for one that was left dense.
        macs: multiply-accumulates of the whole network for one image, before and after.
        params: its learned numbers, before and after.
        images: how many the layers were fitted on; 0 if their kernels alone were approximated.
    """

    layers: tuple[DenseLayer, ...]
    ranks: tuple[int, ...]
    macs: tuple[int, int]
    params: tuple[int, int]
    images: int

    def lines(self) -> list[tuple[str, ...]]:
        """A table's cells, its heading first: for `columns(lines, "<>>>>>")`."""
        table = [("LAYER", "KERNEL", "RANK", "ERROR", "MMACS", "THEN")]
        for layer, rank in zip(self.layers, self.ranks, strict=True):
            kernel = f"{layer.in_chans}-{layer.out} {'x'.join(map(str, layer.kernel))}"
            error = f"{layer.error_at(rank):.1%}" if rank else "-"
            before, after = (f"{layer.macs_at(r) / 1e6:,.2f}" for r in (0, rank))
            table.append((layer.name, kernel, str(rank) if rank else "-", error, before, after))
        before, after = (f"{macs / 1e6:,.2f}" for macs in self.macs)
        return [*table, ("the whole network", "", "", "", before, after)]


def separate(
    model: Model,
    images: Tensor,
    rank: int | None = None,
    macs: float | None = None,
    weights_only: bool = False,
) -> tuple[Model, Report]:
    """A copy of a network whose dense convolutions are sums of depthwise separable ones.

    Stride, padding, dilation and bias are kept. Left alone are convolutions of fewer than 8 input
    channels, those that the images don't reach, those whose class computes or parametrises its
    weight in its own way, those that have forward hooks, and, in a `Network`, the stem and
    ConvNeXt's 2x2 convolutions. Layers that a rank makes no cheaper stay dense.

    Args:
        model: any module that takes one batch of images. A `Network` gets the ranks in its `spec`,
            so that it can be saved as a model folder.
        images: (N, C, H, W) as the model takes them, on its device (a CPU or a CUDA GPU: the sums
            are in double precision): the layers are fitted to what they give on these. 64 of a
            network's training images were enough for digits.
        rank: depthwise kernels for each input channel, the same number in every layer.
        macs: instead of it, the part of the network's MACs that may be left, in (0, 1); layers
            get the ranks that lose least. Half if neither is given.
        weights_only: approximates the kernels instead; then the images only tell the size.

    Raises:
        UsageError: rank or macs is out of range or both are given; there is nothing to take apart.
        EdgewiseError: a weight or an activation is not a finite number; the network's own code
            uses more of a layer than its answers.
    """
    _check(images, rank, macs)
    model = getattr(model, "_orig_mod", model)  # of `torch.compile`
    profiled = profile(model, inputs=(images[:1],))
    convs = _reached(model, profiled)
    moments = {} if weights_only else input_moments(model, convs, images)
    parts = {name: _decompose(name, conv, moments.get(name)) for name, conv in convs.items()}
    layers = tuple(
        _layer(name, conv, _macs(profiled, name), parts[name]) for name, conv in convs.items()
    )
    if rank is not None:
        ranks = tuple(rank if rank <= len(layer.errors) else 0 for layer in layers)
    else:
        others = profiled.macs - sum(layer.macs for layer in layers)
        ranks = choose_ranks(layers, others, PART if macs is None else macs)
    if not any(ranks):
        raise UsageError(f"rank {rank} makes no layer cheaper. Take a smaller one.")
    separated = _rebuilt(model, dict(zip(convs, ranks, strict=True)), parts, moments)
    _check_runs(separated, images[:1])
    saved = sum(layer.macs - layer.macs_at(r) for layer, r in zip(layers, ranks, strict=True))
    return separated, Report(
        layers,
        ranks,
        (profiled.macs, profiled.macs - saved),
        (_params(model), _params(separated)),
        0 if weights_only else len(images),
    )


def _check(images: Tensor, rank: int | None, macs: float | None) -> None:
    if images.ndim != 4 or not len(images):
        raise UsageError(f"images must be (N, C, H, W), not {tuple(images.shape)}")
    if rank is not None and macs is not None:
        raise UsageError("rank and macs are two ways to say the same. Leave out one of them.")
    if rank is not None and rank < 1:
        raise UsageError(f"rank must be 1 or more, not {rank}")
    if macs is not None and not 0 < macs < 1:
        raise UsageError(f"macs is the part that may be left, above 0 and below 1, not {macs:g}")


def _reached(model: nn.Module, profiled: Profile) -> dict[str, nn.Conv2d]:
    """The convolutions that can be taken apart, by the names of their modules.

    Raises:
        UsageError: there are none.
    """
    modules = dict(model.named_modules())
    names = rank_fields(model.spec) if isinstance(model, Network) else modules
    convs = {
        name: module
        for name, module in modules.items()
        if isinstance(module, nn.Conv2d)
        and _is_plain(module)
        and module.groups == 1
        and module.in_channels >= LEAST_CHANNELS
        and saving_ranks(module.kernel_size, module.out_channels)
        and name in names
        and _macs(profiled, name)
    }
    if not convs:
        raise UsageError(
            "there is nothing to take apart: the network has no dense convolution larger than 1x1 "
            f"of {LEAST_CHANNELS} channels or more that has no hooks and no weight or code of its "
            "own"
        )
    return convs


def _is_plain(conv: nn.Conv2d) -> bool:
    """Whether what a call gives is its input convolved with `weight`, and nothing else is done."""
    kind = type(conv)
    return (
        kind.forward in (nn.Conv2d.forward, Conv2d.forward)
        and kind._conv_forward is nn.Conv2d._conv_forward
        and not is_parametrized(conv)
        and isinstance(conv.weight, nn.Parameter)  # else a hook works it out, in its time
        and not (conv._forward_hooks or conv._forward_pre_hooks or "forward" in vars(conv))
    )


def _macs(profiled: Profile, name: str) -> int:
    """Of all calls of a module; 0 if there is none."""
    return sum(layer.macs for layer in profiled.layers if layer.name == name)


def _decompose(name: str, conv: nn.Conv2d, moments: Moments | None) -> Decomposition:
    """Raises EdgewiseError where there is a number that is not finite."""
    covariance = moments.covariance() if moments else None
    for numbers in (conv.weight, covariance):
        if numbers is not None and not numbers.isfinite().all():
            what = "its weights" if numbers is conv.weight else "the numbers that it is given"
            raise EdgewiseError(f"{name} can't be taken apart: {what} are not all finite")
    return decompose(conv.weight, covariance, saving_ranks(conv.kernel_size, conv.out_channels))


def _layer(name: str, conv: nn.Conv2d, macs: int, parts: Decomposition) -> DenseLayer:
    height, width = conv.kernel_size
    return DenseLayer(
        name, (height, width), conv.in_channels, conv.out_channels, macs, parts.errors
    )


def _rebuilt(
    model: Model,
    ranks: Mapping[str, int],
    parts: Mapping[str, Decomposition],
    moments: Mapping[str, Moments],
) -> Model:
    """A copy of the model with the layers of some ranks in place."""
    separated = copied(model)
    modules = dict(separated.named_modules())
    new: dict[nn.Module, nn.Module] = {}
    for name, rank in ranks.items():
        conv = modules[name]
        if rank and isinstance(conv, nn.Conv2d):
            new[conv] = _separated(conv, rank, parts[name], moments.get(name))
    for name, module in list(separated.named_modules(remove_duplicate=False)):
        if module in new:  # under every name that it has
            separated.set_submodule(name, new[module])
    if isinstance(separated, Network):
        separated.spec = with_ranks(separated.spec, ranks)
    return separated


def _separated(
    conv: nn.Conv2d, rank: int, parts: Decomposition, moments: Moments | None
) -> Separated:
    """What stands for `conv`, with its mode, type and device."""
    depthwise, pointwise = parts.at(rank)
    mixing = Conv2d(len(depthwise), conv.out_channels, bias=True)
    if isinstance(conv, Conv2d):
        mixing.same = conv.same  # of 1x1 it changes nothing; `build` says it of all
    layer = Separated(depthwise_like(conv, rank), mixing, rank).to(conv.weight)
    bias = torch.zeros(conv.out_channels, dtype=torch.double, device=depthwise.device)
    if conv.bias is not None:
        bias += conv.bias.detach()
    if moments:  # the mean that the new kernels don't give
        wide = depthwise.reshape(rank, conv.in_channels, -1)  # (R, I, K)
        given = torch.einsum("rip,pi->ri", wide, moments.mean()).flatten()
        whole = torch.einsum("oip,pi->o", conv.weight.detach().double().flatten(2), moments.mean())
        bias += whole - pointwise[:, :, 0, 0] @ given
    with torch.no_grad():
        layer.depthwise.weight.copy_(depthwise)
        layer.pointwise.weight.copy_(pointwise)
        assert layer.pointwise.bias is not None  # it was asked for
        layer.pointwise.bias.copy_(bias)
    return layer.train(conv.training)


def _check_runs(separated: nn.Module, image: Tensor) -> None:
    """Raises EdgewiseError where the network's own code wants what a layer no longer has."""
    trial = copied(separated).eval()
    try:
        with torch.inference_mode():
            trial(image)
    except Exception as error:  # it is anybody's code
        of = getattr(error, "obj", None)  # of an AttributeError
        found = [n for n, module in trial.named_modules() if module is of]
        names = found or [n for n, m in trial.named_modules() if isinstance(m, Separated)]
        raise EdgewiseError(
            f"{', '.join(names)} can't be taken apart: the network's code uses more of it than to "
            f"call it ({shortened(error)})"
        ) from error


def _params(model: nn.Module) -> int:
    return sum(math.prod(parameter.shape) for parameter in model.parameters())
