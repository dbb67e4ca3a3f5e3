"""A network that learned to compute in int8: the graph has the rounding that it learned with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from int8_graphs import LABELS, SIZE, batches, pixels_of
from small import small_model
from torch import nn

from edgewise.deploy.onnx import graph_of
from edgewise.deploy.quantize import calibrate
from edgewise.deploy.quantize_keep import int8_graph
from edgewise.deploy.quantize_observe import run_maps
from edgewise.errors import UsageError
from edgewise.model import Model
from edgewise.training.rounding import (
    as_learned,
    learned_ranges,
    round_network,
    rounded_weight,
    unrounded,
)
from edgewise.weights.folder import learned_int8, load_model, save_model

EARLY = 4  # layers: behind more of them, a network with random weights makes much of one step
NETWORKS = ["efficientnet_lite0", "mobilenet_v3_small", "convnext_atto"]


def used_to_int8(name: str) -> Model:
    """A network whose layers have seen the ranges of some images."""
    model = small_model(name, LABELS, SIZE)
    torch.manual_seed(0)
    with torch.no_grad():  # the exporter makes one constant of all that are 0
        for key, parameter in model.network.named_parameters():
            if key.endswith("bias") and name == "convnext_atto":
                parameter.add_(0.01 * torch.randn_like(parameter))
    round_network(model.network)
    for module in model.network.modules():
        module.training = isinstance(module, nn.Conv2d | nn.Linear)  # these learn their ranges
    with torch.no_grad():
        model.network(model.preprocess.normalise(torch.from_numpy(pixels_of(model, 24))))
    network = model.network.eval()
    return Model(unrounded(network), model.preprocess, model.labels, learned_ranges(network))


def graph_in_float(model: Model) -> Any:
    """The ranges are not in it: without them it is the one that other tests trace."""
    return graph_of(replace(model, int8_ranges={}))


@pytest.mark.parametrize("name", NETWORKS)
def test_its_ranges_and_its_integers_are_those_that_it_learned_with(name: str) -> None:
    model = used_to_int8(name)
    calibrated = calibrate(graph_in_float(model), batches(pixels_of(model, 8)), model.int8_ranges)
    assert {layer.name for layer in calibrated.layers} == model.int8_ranges.keys()
    for layer in calibrated.layers:
        low, high = model.int8_ranges[layer.name]
        range = calibrated.ranges[layer.input]
        assert range.scale == pytest.approx((high - low) / 255)
        assert int(range.zero) == round(-low / range.scale)
        weight = model.network.get_submodule(layer.name).weight
        learned = rounded_weight(weight).detach().flatten(1).numpy()
        ours = calibrated.rounded[layer.name]
        assert not ours.shift.any()
        # Batch norm is folded into the graph's weights: each channel has another factor there.
        whole = ours.integers.astype(float)
        factors = (learned * whole).sum(1) / np.square(whole).sum(1)
        moved = np.abs(learned / factors[:, None] - whole)
        assert moved.max() < 1.1  # one of two that may not add up to 129
        assert (moved > 0.1).mean() < 2e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_a_runtime_computes_what_it_learned(name: str) -> None:
    """What the first layers read, in ONNX Runtime and in PyTorch, in steps of their bytes."""
    model = used_to_int8(name)
    seen, others = np.split(pixels_of(model, 12), [8])
    proto = graph_in_float(model)
    calibrated = calibrate(proto, batches(seen), model.int8_ranges)
    graph, kept = int8_graph(proto, seen, None, fuses=True, learned=model.int8_ranges)
    assert not kept.layers  # its answers in float are no measure
    network, reads = as_learned(model).network, {}
    for layer in calibrated.layers:
        network.get_submodule(layer.name).register_forward_pre_hook(
            lambda _, inputs, name=layer.name: reads.update({name: inputs[0].numpy()})
        )
    with torch.no_grad():
        network(model.preprocess.normalise(torch.from_numpy(others)))
    early = [layer for layer in calibrated.layers if layer.is_conv][:EARLY]
    (maps,) = run_maps(graph, [layer.input for layer in early], [others])
    for layer in early:
        steps = np.abs(maps[layer.input] - reads[layer.name]) / calibrated.ranges[layer.input].scale
        assert steps.mean() < 0.02


def test_a_model_folder_keeps_the_ranges(tmp_path: Path) -> None:
    model = used_to_int8("efficientnet_lite0")
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert again.int8_ranges == model.int8_ranges
    save_model(small_model("efficientnet_lite0", LABELS, SIZE), tmp_path / "plain")
    assert not load_model(tmp_path / "plain").int8_ranges
    told = {name: learned_int8(tmp_path / name) for name in ("model", "plain", "nowhere")}
    assert told == {"model": True, "plain": False, "nowhere": False}
    save_model(
        Model(model.network, model.preprocess, model.labels, {"stems": (0, 1)}),
        tmp_path / "strange",
    )
    with pytest.raises(UsageError, match="of a layer 'stems'"):
        load_model(tmp_path / "strange")
