"""The groups: sizes, tensors and MACs against the network's own, and torch-pruning's groups."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from all_kinds import FAMILIES, images
from torch import nn

from edgewise.compress.groups import Group, channel_groups, resized
from edgewise.families import VARIANTS, variant
from edgewise.measure.count import count
from edgewise.network import Network, build


def by_name(network: Network) -> dict[str, Group]:
    return {group.name: group for group in channel_groups(network.spec)}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_dimension_is_in_one_group_but_those_of_input_classes_and_keys(name: str) -> None:
    spec = variant(name).spec(0.5)
    with torch.device("meta"):
        state = build(spec).state_dict()
    covered = []
    for group in channel_groups(spec):
        for part in group.slices:
            assert state[part.tensor].shape[part.dim] == group.size * part.repeat
            covered.append((part.tensor, part.dim))
    assert len(covered) == len(set(covered))
    every = {
        (tensor, dim)
        for tensor, value in state.items()
        for dim in range(min(value.ndim, 2))
        if value.shape[dim] > 1
    }
    free = {place for place in every - set(covered) if not place[0].startswith("head.classifier")}
    keys = {(name, 0) for name in state if re.search(r"\.(key|value)\.\d\.weight$", name)}
    assert free == {("stem.conv.weight", 1), *keys}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_sizes_are_the_same_spec(name: str) -> None:
    spec = variant(name).spec()
    assert resized(spec, {}) == spec


def test_what_an_inverted_residual_takes_along(network_of: Callable[[str], Network]) -> None:
    network = network_of("mobilenet_v3_small")
    at = "stages.3.0"
    wide = by_name(network)[f"{at}.expand"]
    assert {(part.tensor, part.dim) for part in wide.slices if "norm" not in part.tensor} == {
        (f"{at}.expand.conv.weight", 0),
        (f"{at}.depthwise.conv.weight", 0),
        (f"{at}.squeeze.reduce.weight", 1),
        (f"{at}.squeeze.expand.weight", 0),
        (f"{at}.squeeze.expand.bias", 0),
        (f"{at}.project.conv.weight", 1),
    }
    assert wide.size == network.spec.stages[3][0].expand
    assert wide.places == ((at, "expand"),)


def test_a_sum_along_a_stage_is_one_group(network_of: Callable[[str], Network]) -> None:
    network = network_of("resnet50")
    group = by_name(network)["stages.2.0"]
    assert group.places == tuple((f"stages.2.{b}", "out") for b in range(4))
    last = [f"stages.2.{b}.body.2.conv.weight" for b in range(4)]
    assert {*last, "stages.2.0.shortcut.conv.weight", "stages.3.0.body.0.conv.weight"} <= {
        part.tensor for part in group.slices
    }


def test_hidden_maps_of_a_residual_block_have_channels_of_their_own_and_one_width(
    network_of: Callable[[str], Network],
) -> None:
    groups = by_name(network_of("resnet50"))
    first, second = groups["stages.2.1.body.0"], groups["stages.2.1.body.1"]
    assert first.places == second.places == (("stages.2.1", "hidden"),)
    assert not {p.tensor for p in first.slices if p.dim == 0} & {
        p.tensor for p in second.slices if p.dim == 0
    }
    plain = by_name(network_of("resnet18"))
    assert plain["stages.2.1.body.0"].places == plain["stages.2.0"].places


def test_the_macs_of_a_group_by_hand(network_of: Callable[[str], Network]) -> None:
    network = network_of("mobilenet_v4_hybrid_medium")
    cost = count(network.spec, 64)
    of = {layer.name: layer.macs for layer in cost.layers}
    groups = by_name(network)
    at = "stages.2.1"
    parts = [of[f"{at}.{part}"] for part in ("expand", "depthwise", "project")]
    assert groups[f"{at}.expand"].macs(cost) == sum(parts) > 0
    heads = next(group for group in groups.values() if group.name.endswith(".heads"))
    at = heads.name.removesuffix(".heads")
    # Queries, the two products with keys and values, and the projection.
    assert heads.macs(cost) == of[f"{at}.query"] + of[at] + of[f"{at}.project"]


def test_an_implied_width_becomes_explicit() -> None:
    """A ConvNeXt row without `expand` is 4 x out wide, whatever becomes of its out."""
    spec = variant("convnext_atto").spec(0.5)
    implied = replace(
        spec,
        stages=tuple(tuple(replace(block, expand=0) for block in stage) for stage in spec.stages),
    )
    out = next(g.places for g in channel_groups(implied) if g.name == "stages.1.0")
    narrower = resized(implied, {out: 8})
    assert narrower.stages[1][0].out == 8
    assert narrower.stages[1][0].expand == spec.stages[1][0].expand


@pytest.mark.parametrize("name", [name for name in FAMILIES if "hybrid" not in name])
def test_groups_are_those_of_torch_pruning(name: str, network_of: Callable[[str], Network]) -> None:
    """It finds them in a traced graph, where ours come from the rows of the spec.

    Not of the hybrid network: it maps the indices of attention's reshapes one by one, which took
    more than 13 GB.
    """
    tp = pytest.importorskip("torch_pruning")
    network = network_of(name)
    with warnings.catch_warnings():  # of the layer scales and GRNs, which are what we mean
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(network, example_inputs=images(2))
    modules = dict(network.named_modules())
    names = {module: name for name, module in modules.items()}
    names |= {parameter: name for name, parameter in network.named_parameters()}
    leaves = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm)

    def theirs(group: Group, channel: int) -> set[tuple[str, bool, tuple[int, ...]]]:
        root = modules[group.slices[0].tensor.rpartition(".")[0]]
        prune = graph.get_pruner_of_module(root).prune_out_channels
        found = set()
        for dependency, indices in graph.get_pruning_group(root, prune, idxs=[channel]):
            module = dependency.target.module
            if module not in names:  # an operator such as an addition
                continue
            single = isinstance(module, nn.BatchNorm2d | nn.LayerNorm)
            single |= getattr(module, "groups", 1) > 1
            out = single or graph.is_out_channel_pruning_fn(dependency.handler)
            found.add((names[module], out, tuple(sorted(set(indices)))))
        return found

    def ours(group: Group, channel: int) -> set[tuple[str, bool, tuple[int, ...]]]:
        found = set()
        for part in group.slices:
            module = part.tensor.rpartition(".")[0]
            name = module if isinstance(modules[module], leaves) else part.tensor
            first = channel * part.repeat
            found.add((name, part.dim == 0, tuple(range(first, first + part.repeat))))
        return found

    for group in channel_groups(network.spec):
        channel = group.size // 2
        assert ours(group, channel) == theirs(group, channel), group.name
