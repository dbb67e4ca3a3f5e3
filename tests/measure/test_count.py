"""Counted costs against PyTorch's own counter, the papers' figures and the modules themselves."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgewise.errors import UsageError
from edgewise.families import VARIANTS, list_models, variant
from edgewise.measure.count import count
from edgewise.network import build
from edgewise.spec import Spec


def torch_macs(spec: Spec, size: int) -> int:
    """A FLOP of PyTorch's counter is half a multiply-accumulate; it counts what we count."""
    with torch.device("meta"):
        network = build(spec).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, spec.in_chans, size, size))
    flops: int = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


@pytest.mark.parametrize("name", list_models())
def test_every_variant_equals_pytorchs_counter(name: str) -> None:
    """At an odd size, where halving rounds up; the native sizes are in `test_published_figures`."""
    spec, size = variant(name).spec(), VARIANTS[name].input_size + 1
    assert count(spec, size).macs == torch_macs(spec, size)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v3_large", "efficientnet_lite2"])
def test_every_layer_equals_its_module(name: str) -> None:
    spec = variant(name).spec(width=0.75, classes=11, in_chans=5)
    with torch.device("meta"):
        network = build(spec)
        sizes: dict[str, torch.Size] = {}
        for module_name, module in network.named_modules():
            module.register_forward_hook(
                lambda _module, _inputs, output, key=module_name: (
                    sizes.update({key: output.shape}) if isinstance(output, torch.Tensor) else None
                )
            )
        network.eval()(torch.empty(1, 5, 75, 75))
    cost = count(spec, 75)
    for layer in cost.layers:
        module = network.get_submodule(layer.name)
        assert layer.params == sum(p.numel() for p in module.parameters()), layer.name
        one, channels, *sides = sizes[layer.name]
        assert (one, channels, sides or [1, 1]) == (1, layer.channels, [layer.side] * 2), layer.name
    assert cost.params == sum(p.numel() for p in network.parameters())
    assert cost.macs == torch_macs(spec, 75)


@pytest.mark.parametrize(
    ("name", "width", "params", "macs"),
    [
        ("mobilenet_v1", 1.0, 4_231_976, 568_740_352),  # the paper: 569 M
        ("mobilenet_v1", 0.25, 470_072, 41_030_272),  # 41 M
        ("mobilenet_v2", 1.0, 3_504_872, 300_774_272),  # 300 M
        ("mobilenet_v2", 1.4, 6_108_776, 582_195_824),  # 582 M
        ("mobilenet_v2", 0.35, 1_677_128, 59_285_808),  # 59 M
        ("mobilenet_v3_large", 1.0, 5_483_032, 216_589_760),  # 217 M
        ("mobilenet_v3_large", 0.75, 3_993_528, 154_560_624),  # 155 M
        ("mobilenet_v3_small", 1.0, 2_542_856, 56_510_400),  # 56 M
        ("efficientnet_b0", 1.0, 5_288_548, 385_814_752),  # 0.39 B
        ("efficientnet_lite0", 1.0, 4_652_008, 385_187_552),
        ("efficientnet_lite4", 1.0, 13_006_568, 2_553_034_336),
    ],
)
def test_published_figures(name: str, width: float, params: int, macs: int) -> None:
    cost = count(variant(name).spec(width), VARIANTS[name].input_size)
    assert (cost.params, cost.macs) == (params, macs)


def test_a_size_that_is_no_size() -> None:
    with pytest.raises(UsageError, match="input size"):
        count(variant("mobilenet_v1").spec(), 0)
