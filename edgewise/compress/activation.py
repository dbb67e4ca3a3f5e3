"""A trained network with a cheaper activation where it has SiLU, GELU or h-swish."""

from __future__ import annotations

from dataclasses import replace

import torch

from edgewise.blocks import ConvNeXtBlock
from edgewise.compress.activation_spec import CHEAP, dearer_than, with_act
from edgewise.errors import UsageError, unknown
from edgewise.layers import GRN
from edgewise.model import Model
from edgewise.network import Network, build
from edgewise.spec import ConvNeXt, Spec
from edgewise.weights.tensors import tensors_of

# h-swish(1.85 x) / 1.85 is GELU to 0.03 where x is normal; h-swish itself is a narrow SiLU, and
# off by 0.15. Found by least squares over normal inputs of deviations 1 and 2.
GELU_SCALE = 1.85


def with_activation(model: Model, act: str) -> Model:
    """The model with `act` in the place of all dearer activations of maps, in evaluation mode.

    `model` is unchanged. Weights are carried over; where h-swish takes the place of a ConvNeXt
    block's GELU, they are scaled so that it comes closest. The answers are others, so it must learn
    again. MobileNetV3 (arXiv 1905.02244, section 5.2) found h-swish as accurate as swish, which is
    SiLU; EfficientNet-Lite has ReLU6 in its place.

    Args:
        model: of any network.
        act: "hard_swish", "relu6" or "relu".

    Raises:
        UsageError: `act` is another one, or the network has none that is dearer, or its modules
            were changed, so that it doesn't fit its spec.
    """
    if act not in CHEAP:
        raise unknown("activation", act, CHEAP)
    old = model.network.spec
    spec = with_act(old, act)
    if spec == old:
        dearer = ", ".join(dearer_than(act))
        raise UsageError(f"{old.name} has no activation that {act} could stand for: {dearer}.")
    network = build(replace(spec, name=f"{old.name}_{act}"))  # no longer the published one
    network.load_state_dict(tensors_of(model.network))
    if act == "hard_swish":
        _scale_for_gelu(network, old)
    network.to(next(model.network.parameters()))  # its precision and device
    return Model(network.eval(), model.preprocess, model.labels)


@torch.no_grad()
def _scale_for_gelu(network: Network, old: Spec) -> None:
    """Puts the scale before and behind h-swish into the layers around it."""
    for s, stage in enumerate(old.stages):
        for b, row in enumerate(stage):
            if isinstance(row, ConvNeXt) and row.act == "gelu":
                block = network.get_submodule(f"stages.{s}.{b}")
                assert isinstance(block, ConvNeXtBlock)
                block.expand.weight.mul_(GELU_SCALE)
                block.expand.bias.mul_(GELU_SCALE)
                block.project.weight.div_(GELU_SCALE)
                if isinstance(block.grn, GRN):  # its factor is a ratio of norms; its bias is not
                    block.grn.bias.mul_(GELU_SCALE)
