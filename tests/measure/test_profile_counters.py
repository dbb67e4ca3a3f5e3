"""What other counters count besides MACs, or miss, to the integer: `docs/counters.md`."""

from __future__ import annotations

import logging

import pytest
import torch
from oracles import import_torchvision
from torch import nn

import edgewise
from edgewise.measure.profile_result import Profile

# The published networks of torchvision, 224 px: the totals of fvcore, torchinfo, ptflops (aten).
TOTALS = {
    "mobilenet_v2": (314_193_216, 300_809_384, 300_775_272),
    "mobilenet_v3_large": (226_033_824, 216_621_520, 216_597_120),
    "efficientnet_b0": (401_659_392, 385_867_108, 385_825_092),
    "convnext_tiny": (4_470_437_376, 322_371_592, 4_468_966_888),
    "resnet50": (4_111_512_576, 4_089_238_376, 4_089_185_256),
}


def network(name: str) -> tuple[nn.Module, Profile]:
    module = import_torchvision().models.get_model(name).eval()
    return module, edgewise.profile(module, 224)


def operations(profile: Profile, *words: str) -> int:
    """Element-wise operations of the operators whose name or kind has one of the words."""
    layers = (x for x in profile.layers if any(w in (x.kind, x.op) for w in words))
    return sum(layer.elementwise for layer in layers)


@pytest.mark.parametrize("name", TOTALS)
def test_fvcore_adds_norms_and_adaptive_pooling(name: str) -> None:
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    module, profile = network(name)
    image = torch.zeros(1, 3, 224, 224)
    total = FlopCountAnalysis(module, image).unsupported_ops_warnings(False).total()
    assert total == TOTALS[name][0]
    assert total == profile.macs + operations(profile, "norm", "adaptive_avg_pool2d")


@pytest.mark.parametrize("name", TOTALS)
def test_torchinfo_adds_weights_and_forgets_pixels(name: str) -> None:
    """Norms and biases once an image; a linear layer once an image too, even on every pixel."""
    torchinfo = pytest.importorskip("torchinfo")
    module, profile = network(name)
    total = torchinfo.summary(module, (1, 3, 224, 224), verbose=0).total_mult_adds
    assert total == TOTALS[name][1]
    if name != "convnext_tiny":
        norms = sum(layer.params for layer in profile.layers if layer.kind == "norm")
        biases = sum(layer.params - layer.kernel for layer in profile.layers if layer.macs)
        assert total == profile.macs + norms + biases
    else:
        assert total < 0.1 * profile.macs


@pytest.mark.parametrize("name", TOTALS)
@pytest.mark.filterwarnings("ignore")
def test_ptflops_of_aten_adds_the_biases(name: str) -> None:
    pytest.importorskip("ptflops")
    from ptflops import get_model_complexity_info

    module, profile = network(name)
    total, _ = get_model_complexity_info(
        module, (3, 224, 224), as_strings=False, print_per_layer_stat=False, backend="aten"
    )
    assert total == TOTALS[name][2]
    assert total == profile.macs + sum(x.elementwise for x in profile.layers if x.macs)


def test_fvcore_misses_the_fused_attention() -> None:
    from fvcore.nn import FlopCountAnalysis

    attention = edgewise.create_model("mobilenet_v4_hybrid_medium").stages[3][4].eval()
    profile = edgewise.profile(attention, 16, in_chans=160)
    image = torch.zeros(1, 160, 16, 16)
    by_operator = FlopCountAnalysis(attention, image).unsupported_ops_warnings(False).by_operator()
    products = {kind.name: kind.macs for kind in profile.kinds}["attention"]
    assert products == 8_388_608
    assert by_operator["conv"] == profile.macs - products
    assert "matmul" not in by_operator
