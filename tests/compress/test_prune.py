"""Pruned networks against the whole ones with the same channels masked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from all_kinds import FAMILIES, SIZE, images
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn
from torch.utils.flop_counter import FlopCounterMode

from edgewise.compress.groups import channel_groups
from edgewise.compress.prune import prune, recalibrate, with_channels
from edgewise.compress.pruning import Pruning
from edgewise.errors import UsageError
from edgewise.layers import LayerNorm2d
from edgewise.measure.count import count
from edgewise.model import Model
from edgewise.network import Network
from edgewise.preprocess import Preprocess
from edgewise.spec import Spec
from edgewise.weights.folder import load_model, save_model

Batches = list[tuple[Tensor, Tensor]]
NetworkOf = Callable[[str], Network]


class MaskedNorm(nn.Module):
    """A layer norm that sees some of the channels and leaves the others at zero."""

    def __init__(self, norm: nn.LayerNorm, kept: Tensor) -> None:
        super().__init__()
        self.norm, self.kept = norm, kept

    def forward(self, x: Tensor) -> Tensor:
        maps = isinstance(self.norm, LayerNorm2d)
        x = x.permute(0, 2, 3, 1) if maps else x
        y = torch.zeros_like(x)
        weight, bias = self.norm.weight[self.kept], self.norm.bias[self.kept]
        y[..., self.kept] = F.layer_norm(
            x[..., self.kept], (len(self.kept),), weight, bias, self.norm.eps
        )
        return y.permute(0, 3, 1, 2) if maps else y


def masked(network: Network, kept: dict[str, Tensor]) -> Network:
    """The whole network with the channels that are not kept at zero wherever they are."""
    network = copy.deepcopy(network)
    state, modules = network.state_dict(), dict(network.named_modules())
    for group in channel_groups(network.spec):
        gone = torch.ones(group.size, dtype=torch.bool)
        gone[kept[group.name]] = False
        for part in group.slices:
            tensor, entries = state[part.tensor], gone.repeat_interleave(part.repeat)
            tensor.movedim(part.dim, 0)[entries] = 0.0
            at, _, what = part.tensor.rpartition(".")
            norm = modules[at]
            if what == "weight" and isinstance(norm, nn.LayerNorm) and gone.any():
                parent, _, name = at.rpartition(".")
                setattr(modules[parent], name, MaskedNorm(norm, (~entries).nonzero().flatten()))
    return network.eval()


def drawn(network: Network, seed: int, part: float) -> dict[str, Tensor]:
    """Of each group, a random choice of about 1 - part of the channels, one at least."""
    generator = torch.Generator().manual_seed(seed)
    return {
        group.name: torch.randperm(group.size, generator=generator)[
            : max(1, round(group.size * (1 - part)))
        ]
        for group in channel_groups(network.spec)
    }


@torch.no_grad()
def exact_logits(network: Network) -> Tensor:
    """Computed in float64, from which the network's numbers come back as they were."""
    try:
        logits: Tensor = network.double()(images(4).double())
    finally:
        network.float()
    return logits


def difference(one: Network, other: Network) -> float:
    """The largest of the logits, whose standard deviation is about 1."""
    return float((exact_logits(one) - exact_logits(other)).abs().max())


def test_pruning_nothing_changes_nothing(model: Model, batches: Batches) -> None:
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    for target in ("channels", "macs"):
        same = prune(model, Pruning(0.0, target), batches)
        assert same.network.spec == model.network.spec
        after = same.network.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
    everything = {g.name: torch.arange(g.size) for g in channel_groups(model.network.spec)}
    after = with_channels(model.network, everything).state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_pruned_network_is_the_whole_one_with_a_mask(network: Network) -> None:
    kept = drawn(network, 0, 0.4)
    pruned = with_channels(network, kept)
    assert pruned.spec != network.spec
    assert difference(pruned, network) > 0.01  # what goes was not nothing
    assert difference(pruned, masked(network, kept)) < 1e-5  # GRN's 1e-6 below its mean


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from([name for name in FAMILIES if name != "vgg16"]),
    seed=st.integers(0, 2**31),
    part=st.floats(0.05, 0.8),  # of one channel, a layer norm divides mere rounding by its epsilon
)
def test_so_it_is_for_any_choice(network_of: NetworkOf, name: str, seed: int, part: float) -> None:
    network = network_of(name)
    kept = drawn(network, seed, part)
    pruned, mask = with_channels(network, kept), masked(network, kept)
    with torch.no_grad():
        scale = max(1.0, float(mask(images(4)).abs().max()))
    assert difference(pruned, mask) < 3e-5 * scale


def test_dead_channels_are_not_missed(network: Network) -> None:
    """Zero weights, biases and batch norms, anywhere but where a layer norm would count them."""
    normed = {
        f"{name}.weight" for name, m in network.named_modules() if isinstance(m, nn.LayerNorm)
    }
    kept = drawn(network, 1, 0.4)
    for group in channel_groups(network.spec):
        if normed & {part.tensor for part in group.slices}:
            kept[group.name] = torch.arange(group.size)
    dead = masked(network, kept)
    pruned = with_channels(dead, kept)
    assert pruned.spec != network.spec
    assert difference(pruned, dead) <= 1e-6


def test_the_caller_keeps_the_whole_network(model: Model, batches: Batches) -> None:
    before = copy.deepcopy(model.network.state_dict())
    for criterion in ("l1", "taylor"):
        prune(model, Pruning(0.5, criterion=criterion), batches)
    after = model.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(parameter.grad is not None for parameter in model.network.parameters())


@pytest.mark.parametrize("criterion", ["taylor", "l2"])
@pytest.mark.parametrize("how", ["compiled", "partly compiled", "frozen", "training", "bfloat16"])
def test_any_state_of_the_network_will_do(
    network_of: NetworkOf, batches: Batches, how: str, criterion: str
) -> None:
    rule = Preprocess(SIZE, 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3)
    plain = Model(network_of("mobilenet_v2"), rule, tuple("abcdefg"))
    network, given = copy.deepcopy(plain.network), batches
    if how == "compiled":
        network = torch.compile(network, backend="eager")
    elif how == "partly compiled":
        network.stages[1] = torch.compile(network.stages[1], backend="eager")
    elif how == "frozen":
        network.stages.requires_grad_(False)
    elif how == "training":
        network.train()
    else:
        plain = replace(plain, network=copy.deepcopy(network.bfloat16()).float())
        given = [(x.bfloat16(), labels) for x, labels in batches]
        batches = [(x.float(), labels) for x, labels in given]
    before = [(p.requires_grad, p.dtype) for p in network.parameters()]
    pruned = prune(replace(plain, network=network), Pruning(0.3, criterion=criterion), given)
    assert [(p.requires_grad, p.dtype) for p in network.parameters()] == before
    assert network.training == network.stem.training == (how == "training")
    wanted = prune(plain, Pruning(0.3, criterion=criterion), batches)
    state = wanted.network.to(before[0][1]).state_dict()
    assert pruned.network.spec == wanted.network.spec
    for name, value in pruned.network.state_dict().items():
        assert value.dtype == state[name].dtype and torch.equal(value, state[name])


@pytest.fixture(scope="module")
def narrower() -> dict[str, Model]:
    """What `pruned` has made, by the name of the whole network."""
    return {}


@pytest.fixture
def pruned(model: Model, batches: Batches, narrower: dict[str, Model]) -> Model:
    """The model without 30 % of its channels; not to be changed."""
    name = model.network.spec.name
    if name not in narrower:
        narrower[name] = prune(model, Pruning(0.3), batches)
    return narrower[name]


def test_it_costs_what_we_count(model: Model, pruned: Model) -> None:
    network = pruned.network
    cost, whole = count(network.spec, SIZE), count(model.network.spec, SIZE)
    assert cost.params == sum(p.numel() for p in network.parameters()) < whole.params
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images(1))
    assert counter.get_total_flops() == 2 * cost.macs < 2 * whole.macs


def test_it_reloads_from_plain_files(model: Model, pruned: Model, tmp_path: Path) -> None:
    save_model(pruned, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert again.network.spec == pruned.network.spec
    assert again.network.spec.name == f"{model.network.spec.name}_pruned"
    assert Spec.from_json(pruned.network.spec.to_json()) == pruned.network.spec
    assert difference(again.network, pruned.network) == 0


def test_part_of_the_macs(model: Model, batches: Batches) -> None:
    whole = count(model.network.spec, SIZE).macs
    pruned = prune(model, Pruning(0.3, "macs", multiple=2), batches)
    left = count(pruned.network.spec, SIZE).macs / whole
    assert 0.6 < left <= 0.7


def test_batch_norm_gets_the_statistics_of_the_images(network_of: NetworkOf) -> None:
    """As torch's own `update_bn`, which asks for training mode: no dropout or drop path here."""
    network = copy.deepcopy(network_of("mobilenet_v2"))
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    inputs = [images(8, seed) for seed in (5, 6)]
    theirs = copy.deepcopy(network).train()
    update_bn(inputs, theirs)
    recalibrate(network, inputs)
    for (name, ours), other in zip(
        network.state_dict().items(), theirs.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, other, msg=name)
    assert not any(module.training for module in network.modules())
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {network.spec.norm_momentum}


def test_recalibration_brings_answers_nearer(network_of: NetworkOf, batches: Batches) -> None:
    network = network_of("mobilenet_v2")
    kept = drawn(network, 3, 0.2)
    plain, calibrated = with_channels(network, kept), with_channels(network, kept)
    recalibrate(calibrated, [inputs for inputs, _ in batches])
    assert difference(calibrated, network) < difference(plain, network)


def test_groups_of_one_width_must_keep_as_many(network_of: NetworkOf) -> None:
    network = network_of("resnet50")
    with pytest.raises(UsageError, match=r"stages\.2\.1\.body\.1 keeps 32 channels"):
        with_channels(network, {"stages.2.1.body.0": torch.arange(4)})


def test_nothing_left_is_an_error(network_of: NetworkOf) -> None:
    with pytest.raises(UsageError, match=r"head\.conv"):
        with_channels(network_of("mobilenet_v2"), {"head.conv": torch.arange(0)})


def test_without_images_it_is_not_begun(network_of: NetworkOf, model: Model) -> None:
    with pytest.raises(UsageError, match="training images"):
        prune(replace(model, network=network_of("vgg16")), Pruning(0.3), [])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"part": 1.0}, "part"),
        ({"part": -0.1}, "part"),
        ({"part": 0.3, "target": "flops"}, "target"),
        ({"part": 0.3, "criterion": "l3"}, "criterion"),
        ({"part": 0.3, "multiple": 0}, "multiple"),
    ],
)
def test_bad_requests(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Pruning(**wrong)  # type: ignore[arg-type]
