"""The same network in another library, with the same weights: what ours is to be faster than."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewise.errors import EdgewiseError
from edgewise.libraries import import_library

if TYPE_CHECKING:
    from torch import nn

    from edgewise.network import Network

PEERS = ("timm", "torchvision")
# How people run these libraries' networks; ours are run in every way that there is.
PEER_RUNTIMES = ("torch", "torch-compile", "onnxruntime")


def twin(library: str, model: str, network: Network) -> nn.Module:
    """`network` as `library` builds it, with its weights and epsilon, in eval mode.

    Args:
        library: one of `PEERS`.
        model: the name that `network` was made by.
        network: ours.

    Raises:
        UsageError: the library is not installed.
        EdgewiseError: it has no such network.
    """
    spec = network.spec
    if library == "timm":
        name = _timm_name(model, same_padding=spec.padding == "same")
        timm = import_library("timm")
        if not timm.is_model(name):
            raise EdgewiseError(f"timm has no {model} with {spec.padding} padding")
        peer: nn.Module = timm.create_model(name, num_classes=spec.classes, in_chans=spec.in_chans)
    else:
        models = import_library("torchvision").models
        if model not in models.list_models() or spec.padding == "same":
            raise EdgewiseError(f"torchvision has no {model} with {spec.padding} padding")
        peer = models.get_model(model, num_classes=spec.classes)
    _copy(network, peer)
    return peer.eval()


def _timm_name(model: str, same_padding: bool) -> str:
    """timm's networks with TensorFlow's padding begin with "tf_"."""
    from edgewise.families import VARIANTS
    from edgewise.weights.pretrained import ALIASES

    if model not in VARIANTS:  # then it is timm's own name, maybe with a tag
        return model.partition(".")[0]
    names = [alias for alias, means in ALIASES.items() if means[:2] == (model, 1.0)]
    return next((name for name in names if name.startswith("tf_") == same_padding), model)


def _copy(network: Network, peer: nn.Module) -> None:
    """Both have their tensors in the order of the computation: see `weights.convert`."""
    import torch
    from torch import nn

    ours, theirs = (
        [v for name, v in module.state_dict().items() if not name.endswith("num_batches_tracked")]
        for module in (network, peer)
    )
    if [value.numel() for value in ours] != [value.numel() for value in theirs]:
        raise EdgewiseError(f"it has other layers than our {network.spec.name}")
    with torch.no_grad():
        for value, slot in zip(ours, theirs, strict=True):
            slot.copy_(value.reshape(slot.shape))
    for module in peer.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.eps = network.spec.norm_eps
