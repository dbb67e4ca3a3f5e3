"""A network as TorchScript, for converters that read nothing newer."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from edgewise.deploy.onnx import quiet

if TYPE_CHECKING:
    from torch import nn


def traced(network: nn.Module, shape: tuple[int, ...]) -> Any:
    """A `torch.jit.ScriptModule` of the network in eval mode, for inputs of exactly that shape.

    The network itself stays as it is.
    """
    import torch

    with quiet(), torch.no_grad():  # it warns of each number that it makes a constant
        module = copy.deepcopy(network).eval()
        trace: Any = torch.jit.trace  # untyped
        return trace(module, torch.zeros(shape), check_trace=False)
