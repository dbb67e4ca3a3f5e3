"""Cheaper activations against timm's networks with theirs exchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from all_kinds import SIZE, images
from oracles import import_timm, randomise, twin
from torch import Tensor, nn

import edgewise
from edgewise.compress.activation import GELU_SCALE, with_activation
from edgewise.compress.activation_spec import with_act
from edgewise.errors import UsageError
from edgewise.model import Model
from edgewise.network import Network
from edgewise.preprocess import Preprocess
from edgewise.spec import Spec
from edgewise.weights.folder import load_model, save_model

RULE = Preprocess(64, 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3)


class NearGelu(nn.Module):
    """What a layer before, h-swish and the layer behind it make together."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.hardswish(GELU_SCALE * x) / GELU_SCALE


def exchange(network: nn.Module, old: str, new: Callable[[], nn.Module]) -> None:
    """In all modules but those of squeeze-excite; `old` is a class, of PyTorch's or timm's own."""
    for name, module in network.named_modules():
        if not name.endswith(".se"):
            for part, child in module.named_children():
                if type(child).__name__ == old:
                    setattr(module, part, new())


def trained(name: str) -> tuple[nn.Module, Model]:
    """timm's network with random weights and statistics, and ours with the same."""
    oracle = import_timm().create_model(name, num_classes=7).eval()
    randomise(oracle)
    with torch.device("meta"):  # its weights are not wanted
        spec = replace(edgewise.create_model(name).spec, classes=7)
    return oracle, Model(twin(oracle, spec).eval(), RULE, tuple("abcdefg"))


CASES = [
    ("efficientnet_b0", "hard_swish", "SiLU", nn.Hardswish),
    ("efficientnet_b0", "relu6", "SiLU", nn.ReLU6),
    ("mobilenetv3_small_100", "relu", "Hardswish", nn.ReLU),
    ("convnext_atto", "relu", "GELU", nn.ReLU),
    ("convnext_atto", "hard_swish", "GELU", NearGelu),
    ("convnextv2_atto", "hard_swish", "GELU", NearGelu),
]


@pytest.mark.parametrize(("name", "act", "old", "new"), CASES)
def test_it_is_timms_network_with_the_other_activation(
    name: str, act: str, old: str, new: Callable[[], nn.Module]
) -> None:
    oracle, model = trained(name)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = model.network(x)
        torch.testing.assert_close(before, oracle(x), rtol=1e-4, atol=1e-4)
        made = with_activation(model, act)
        exchange(oracle, old, new)
        expected = oracle(x)
        found = made.network(x)
        torch.testing.assert_close(model.network(x), before, rtol=0, atol=0)  # as it was
    scale = expected.abs().max()
    assert (found - expected).abs().max() < 1e-4 * scale
    assert (before - expected).abs().max() > 1e-2 * scale  # the exchange can be seen


def test_the_scale_comes_closest_to_gelu() -> None:
    """Of h-swish(s x) / s with x normal, with PyTorch's GELU."""
    x = torch.linspace(-8, 8, 2001)

    def error(scale: float) -> float:
        near = nn.functional.hardswish(scale * x) / scale
        weights = torch.exp(-(x**2) / 2) + torch.exp(-(x**2) / 8) / 2
        return float((weights * (near - nn.functional.gelu(x)) ** 2).sum() / weights.sum()) ** 0.5

    assert error(GELU_SCALE) < 0.035
    assert error(GELU_SCALE) < min(error(1.7), error(2.0))
    assert error(1.0) > 4 * error(GELU_SCALE)


@pytest.mark.parametrize("act", ["hard_swish", "relu6", "relu"])
def test_every_family_reloads(network: Network, act: str, tmp_path: Path) -> None:
    """From `spec.json` and its weights, with the same answers; or there is nothing to exchange."""
    rule = Preprocess(SIZE, 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3)
    model = Model(network, rule, tuple("abcdefg"))
    if with_act(network.spec, act) == network.spec:
        with pytest.raises(UsageError, match=f"no activation that {act} could stand for"):
            with_activation(model, act)
        return
    made = with_activation(model, act)
    save_model(made, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert again.network.spec == made.network.spec
    assert again.network.spec.name == f"{network.spec.name}_{act}"
    assert not set(acts(again.network.spec)) & {"silu", "gelu"}
    x = images(2, 5)
    with torch.inference_mode():
        torch.testing.assert_close(again.network(x), made.network(x), rtol=0, atol=0)


def acts(spec: Spec) -> Iterator[str]:
    rows = [spec.stem, *(row for stage in spec.stages for row in stage)]
    yield from (getattr(row, "act", "") for row in rows)


def test_precision_and_bad_names() -> None:
    _, model = trained("convnext_atto")
    half = Model(model.network.bfloat16(), model.preprocess, model.labels)
    made = with_activation(half, "hard_swish")
    assert {p.dtype for p in made.network.parameters()} == {torch.bfloat16}
    with pytest.raises(UsageError, match="unknown activation 'hardswish'"):
        with_activation(half, "hardswish")
