"""Every network of the zoo against PyTorch's counter, fvcore, `count` and published figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import edgewise
from edgewise.families import VARIANTS, list_models, variant
from edgewise.measure.count import count
from edgewise.measure.profile_result import Profile
from edgewise.network import Network, build


@contextmanager
def no_batch_norms() -> Iterator[None]:
    """PyTorch's counter knows products only, and its norms on the meta device are slow Python."""
    with mock.patch.object(nn.functional, "batch_norm", lambda x, *_: x):
        yield


def on_meta(name: str) -> Network:
    with torch.device("meta"):
        return build(variant(name).spec()).eval()


@pytest.mark.parametrize("name", list_models())
def test_every_network_equals_pytorchs_counter(name: str) -> None:
    """At an odd size, in a batch of two; with the same parameters and MACs as `count`."""
    size = VARIANTS[name].input_size // 2 + 1
    profile = edgewise.profile(name, size, batch=2)
    network = on_meta(name)
    with FlopCounterMode(display=False) as counter, no_batch_norms():
        network(torch.empty(2, 3, size, size, device="meta"))
    assert 2 * profile.macs == counter.get_total_flops()
    assert profile.params == sum(p.numel() for p in network.parameters())
    assert profile.unread_params == 0
    assert not profile.unknown
    cost = count(variant(name).spec(), size)
    assert (profile.params, profile.macs) == (cost.params, 2 * cost.macs)


@pytest.mark.parametrize("name", ["mobilenet_v4_hybrid_medium", "convnext_v2_atto", "resnet50"])
def test_every_layer_equals_that_of_count(name: str) -> None:
    """Each name of `count` holds the operators of one module, attention's products a block's."""
    profile = edgewise.profile(name, 224)
    for layer in count(variant(name).spec(), 224).layers:
        inside = [x for x in profile.layers if f"{x.name}.".startswith(f"{layer.name}.")]
        if layer.name.count(".") == 2 and layer.macs and not layer.params:
            inside = [x for x in inside if x.kind == "attention"]
        if any("norm" in x.name for x in inside) or layer.params or layer.macs:
            assert sum(x.macs for x in inside) == layer.macs, layer.name
            assert sum(x.params for x in inside) == layer.params, layer.name


# --- fvcore, which runs the network and reads its trace


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """As it is defined: fvcore counts products of matrices, but not PyTorch's fused operator."""
    scores = torch.matmul(query, key.transpose(-2, -1)) / math.sqrt(query.shape[-1])
    return torch.matmul(scores.softmax(-1), value)


@contextmanager
def defined_attention() -> Iterator[None]:
    with mock.patch.object(nn.functional, "scaled_dot_product_attention", attention):
        yield


@pytest.fixture(scope="module", autouse=True)
def fvcore_is_quiet() -> None:
    import logging

    logging.getLogger("fvcore").setLevel(logging.ERROR)


def by_fvcore(name: str, size: int) -> tuple[Counter[str], Counter[str]]:
    """MACs and activations by operator, of one trace. Untouched weights take no memory."""
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis, jit_analysis

    network, image = on_meta(name).to_empty(device="cpu"), torch.zeros(1, 3, size, size)
    trace = jit_analysis._get_scoped_trace_graph
    once = cache(lambda: trace(network, (image,), FlopCountAnalysis(network, image)._aliases))
    with (
        torch.no_grad(),
        defined_attention(),
        mock.patch.object(jit_analysis, trace.__name__, lambda *_: once()),
    ):
        macs = FlopCountAnalysis(network, image).unsupported_ops_warnings(False).by_operator()
        written = ActivationCountAnalysis(network, image).unsupported_ops_warnings(False)
        return macs, written.by_operator()


def check_against_fvcore(name: str, size: int) -> Profile:
    profile = edgewise.profile(name, size)
    macs, written = by_fvcore(name, size)
    assert profile.macs == macs["conv"] + macs["linear"] + macs["matmul"]
    # It counts norms as we do: 2 a number with known statistics and weights, 5 for layer norm.
    (norms,) = [kind for kind in profile.kinds if kind.name == "norm"] or [None]
    assert (norms.elementwise if norms else 0) == macs["batch_norm"] + macs["layer_norm"]
    assert profile.activations == written["conv"] + written["linear"] + written["matmul"]
    return profile


LARGE = [n for n in list_models() if count(variant(n).spec(), 224).params > 30e6]


@pytest.mark.parametrize("name", [n for n in list_models() if n not in LARGE])
def test_every_network_equals_fvcore(name: str) -> None:
    check_against_fvcore(name, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_every_large_network_equals_fvcore(name: str) -> None:
    check_against_fvcore(name, 64)


@pytest.mark.parametrize(
    ("name", "size", "activations"),
    [
        # Millions in timm's benchmark files, which have fvcore's count (attention unfused).
        ("mobilenet_v3_large", 224, 4.40),
        ("mobilenet_v2", 224, 6.68),
        ("efficientnet_b0", 224, 6.75),
        ("resnet50", 224, 11.11),
        ("convnext_tiny", 224, 13.44),
    ],
)
def test_published_activations(name: str, size: int, activations: float) -> None:
    assert edgewise.profile(name, size).activations / 1e6 == pytest.approx(activations, abs=0.01)


def test_kinds_of_mobilenet_v1() -> None:
    """The paper, table 2: 94.86 % of the MACs are pointwise, 3.06 % depthwise."""
    profile = edgewise.profile("mobilenet_v1", 224)
    shares = {kind.name: round(100 * kind.macs / profile.macs, 2) for kind in profile.kinds}
    assert (shares["pointwise"], shares["depthwise"], shares["linear"]) == (94.86, 3.06, 0.18)
    assert sum(kind.macs for kind in profile.kinds) == profile.macs


def test_stages_are_those_of_the_network() -> None:
    profile = edgewise.profile("mobilenet_v3_large", 224)
    assert [s.name for s in profile.stages] == ["stem", *(f"stages.{i}" for i in range(5)), "head"]
    for total in ("params", "macs", "elementwise", "activations"):
        assert sum(getattr(s, total) for s in profile.stages) == getattr(profile, total)
    assert profile.stages == profile.tree(1)


def test_the_tree_has_parts_after_their_whole() -> None:
    profile = edgewise.profile("mobilenet_v2", 224)
    names = [group.name for group in profile.tree(2)]
    assert names[names.index("stages.1") :][:4] == [
        "stages.1",
        "stages.1.0",
        "stages.1.1",
        "stages.2",
    ]
    leaves = [
        g for g in profile.tree(9) if not any(f"{g.name}." in n.name for n in profile.tree(9))
    ]
    assert sum(leaf.macs for leaf in leaves) == profile.macs


@pytest.mark.parametrize(
    ("source", "same"), [("mobilenetv2_140", 1.4), ("mobilenetv2_050.lamb_in1k", 0.5)]
)
def test_timms_names_are_understood(source: str, same: float) -> None:
    spec = variant("mobilenet_v2").spec(same)
    assert edgewise.profile(source).macs == edgewise.profile(spec, 224).macs


def test_tensorflows_names_cost_what_their_networks_do() -> None:
    """With their padding, which is an operator of its own."""
    name = "tf_mobilenetv3_small_minimal_100"
    network = edgewise.create_model(name)
    assert network.spec.padding == "same"
    assert edgewise.profile(name) == edgewise.profile(network, 224)
    assert edgewise.profile(name) != edgewise.profile("mobilenet_v3_small_minimalistic")


def test_a_network_and_its_spec_cost_the_same() -> None:
    network = edgewise.create_model("convnext_v2_atto", num_classes=7, in_chans=2)
    profile = edgewise.profile(network, 64)
    assert profile == edgewise.profile(network.spec, 64)
    assert profile.inputs == ((1, 2, 64, 64),)
