"""A network's tensors by the names of its spec, and whether the spec still tells of the rest."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgewise.errors import UsageError
from edgewise.layers import DropPath
from edgewise.network import Network, build

# Kinds of modules that give the same answers in evaluation mode.
AS = {nn.Dropout: nn.Identity, DropPath: nn.Identity, nn.SyncBatchNorm: nn.BatchNorm2d}
# Settings of training, or of where the numbers are written.
FREE = ("training", "p", "probability", "momentum", "inplace")
PLAIN = (bool, int, float, str, tuple, type(None))


def tensors_of(network: Network) -> dict[str, Tensor]:
    """The tensors in float32, by the names that `build(network.spec)` has for them.

    Those of a compiled network are those of what was compiled.

    Raises:
        UsageError: the tensors, built into that network, would give other answers or learn in
            another way; the message names the first tensor or module that it doesn't have.
    """
    found = {_name(name): tensor.detach() for name, tensor in network.state_dict().items()}
    tensors = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in found.items()
    }
    with torch.device("meta"):
        wanted = build(network.spec)
    difference = (
        first_difference(tensors, wanted.state_dict())
        or _shared(found)
        or _changed(_modules(network), _modules(wanted))
    )
    if difference:
        raise UsageError(
            f"the network doesn't fit its spec, from which it is built again: {difference}. Get "
            "another network from edgewise.create_model instead of changing the modules of this "
            "one."
        )
    return tensors


def first_difference(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """What tells the names, shapes and types of tensors from those that are wanted, in words."""
    for name, tensor in wanted.items():
        if name not in found:
            return f"it has no tensor '{name}'"
        if found[name].shape != tensor.shape or found[name].dtype != tensor.dtype:
            return f"'{name}' is {_describe(found[name])}, not {_describe(tensor)}"
    extra = sorted(found.keys() - wanted.keys())
    return f"it has a tensor '{extra[0]}' too many" if extra else None


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _shared(tensors: Mapping[str, Tensor]) -> str | None:
    """Two names of the same numbers: built again, each would have its own."""
    names: dict[int, str] = {}
    for name, tensor in tensors.items():
        if (first := names.setdefault(tensor.data_ptr(), name)) != name:
            return f"'{name}' and '{first}' are the same tensor"
    return None


def _changed(found: Mapping[str, nn.Module], wanted: Mapping[str, nn.Module]) -> str | None:
    """What no tensor shows: an activation, a skip, an epsilon, a padding."""
    for name, module in wanted.items():
        if name not in found:
            return f"it has no module '{name}'"
        other = found[name]
        kinds = [AS.get(type(part), type(part)) for part in (other, module)]
        if kinds[0] is not kinds[1]:
            return f"'{name}' is of {type(other).__name__}, not of {type(module).__name__}"
        parts = [len(part._modules) for part in (other, module)]
        if isinstance(module, nn.Sequential | nn.ModuleList) and parts[0] != parts[1]:
            return f"'{name}' has {parts[0]} modules, not {parts[1]}"
        for key, value in vars(module).items():
            if key.startswith("_") or key in FREE or not isinstance(value, PLAIN):
                continue
            if (has := getattr(other, key, None)) != value:
                return f"'{name}' has {key}={has!r}, not {value!r}"
    return None


def _modules(network: nn.Module) -> dict[str, nn.Module]:
    """By all their names; of a compiled one, what was compiled."""
    return {_name(name): part for name, part in network.named_modules(remove_duplicate=False)}


def _name(name: str) -> str:
    """Without what `torch.compile` puts before the names of the module that it was given."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
