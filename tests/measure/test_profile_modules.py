"""Any module of the user's: counted right, and left as it was."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oracles import import_torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, weight_norm
from torch.utils.flop_counter import FlopCounterMode

import edgewise
from edgewise.compress.separate import separate
from edgewise.errors import UsageError
from edgewise.measure.count import count


def flops(module: nn.Module, *inputs: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    total: int = counter.get_total_flops()
    return total


class Tied(nn.Module):
    """One convolution and one matrix, each used twice, a convolution of its own by function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.again = self.conv
        self.matrix = nn.Parameter(torch.zeros(3, 3))
        self.unused = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(F.relu(self.conv(x))).mean((2, 3))
        return x @ self.matrix @ self.matrix.T


def test_a_tied_module_has_its_macs_twice_and_its_weights_once() -> None:
    profile = edgewise.profile(Tied(), 8)
    assert profile.macs == 2 * 64 * 81 + 2 * 9
    assert profile.macs == flops(Tied(), torch.zeros(1, 3, 8, 8)) // 2
    assert profile.params == sum(p.numel() for p in Tied().parameters()) == 84 + 9 + 30
    assert profile.unread_params == 30
    convs = [layer for layer in profile.layers if layer.kind == "standard"]
    assert [(layer.params, layer.macs) for layer in convs] == [(84, 5184), (0, 5184)]


class Counting(nn.Module):
    """Changes itself in `forward`, as user's modules do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.register_buffer("calls", torch.zeros(()))
        self.shapes: list[Any] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.shapes.append(x.shape)
        self.body[1].running_mean.add_(1)
        y: Tensor = self.body(x)
        return y


@pytest.mark.parametrize("training", [True, False])
def test_the_users_module_is_not_changed(training: bool) -> None:
    module = Counting().train(training)
    module.body[2].eval()
    before = copy.deepcopy(module.state_dict())
    tensors = {name: (id(t), t.data_ptr()) for name, t in module.state_dict(keep_vars=True).items()}
    modes = [part.training for part in module.modules()]
    profile = edgewise.profile(module, 9)
    assert profile.macs == 49 * 4 * 27
    after = module.state_dict(keep_vars=True)
    assert {name: (id(t), t.data_ptr()) for name, t in after.items()} == tensors
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(p.requires_grad and p.device.type == "cpu" for p in module.parameters())
    assert [part.training for part in module.modules()] == modes
    assert module.shapes == []
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_a_module_in_training_is_profiled_in_evaluation() -> None:
    """In training, its batch norm would work out statistics and its dropout would be there."""
    module = Counting()
    assert edgewise.profile(module.train(), 9) == edgewise.profile(module.eval(), 9)
    norm = {kind.name: kind.elementwise for kind in edgewise.profile(module, 9).kinds}["norm"]
    assert norm == 2 * 4 * 49


class Tables(nn.Module):
    """Makes tensors on the CPU in `forward`, and reads numbers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.scale = torch.ones(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x) * self.scale + torch.arange(x.shape[-1])
        return y * int(torch.arange(3).sum())


def test_constants_of_another_device_are_taken() -> None:
    profile = edgewise.profile(Tables(), 8)
    assert profile.macs == 64 * 12
    assert not profile.unknown


class Choosing(nn.Module):
    """Asks for the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x) if x.sum().item() < 1 else x
        return self.norm(y)


def test_a_module_that_needs_values_is_run_where_it_is() -> None:
    module = Choosing()
    before = copy.deepcopy(module.state_dict())
    profile = edgewise.profile(module, 8)
    assert (profile.macs, profile.params, profile.unread_params) == (64 * 12, 24, 0)
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())
    with pytest.raises(UsageError, match="can't take an image of 8"), torch.device("meta"):
        edgewise.profile(Choosing(), 8)


@pytest.mark.parametrize(
    "read", [Tensor.numpy, Tensor.tolist, np.asarray, lambda x: x[x > 0].sum()]
)
def test_so_is_one_that_reads_its_image(read: Callable[[Tensor], object]) -> None:
    class Leaving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            read(x)
            y: Tensor = self.conv(x)
            return y

    assert edgewise.profile(Leaving(), 8).macs == 64 * 12


@pytest.mark.parametrize(
    "kept", [lambda y: y, lambda y: [y], lambda y: (1, y), lambda y: {"first": [y], "n": 2}]
)
def test_what_a_pass_left_in_a_module_is_no_hindrance(kept: Callable[[Tensor], object]) -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 12, 3)
            self.kept: object = None

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(x)
            self.kept = kept(y)
            return y

    module = Keeping()
    module(torch.randn(2, 8, 10, 10))  # with its graph
    before = module.kept
    assert edgewise.profile(module, 10, in_chans=8).macs == 64 * 12 * 72
    separate(module, torch.randn(2, 8, 10, 10), rank=1)
    assert module.kept is before


def test_an_empty_tensor_is_not_an_image_without_pixels() -> None:
    class Tokens(nn.Module):
        def __init__(self, more: int) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 4, 4)
            self.more = more

        def forward(self, x: Tensor) -> Tensor:
            y = self.patches(x).flatten(2).mT
            return torch.cat([y.new_zeros(len(y), self.more, 8), y], 1).mean(1)

    assert edgewise.profile(Tokens(0), 16).macs == edgewise.profile(Tokens(1), 16).macs == 16 * 384
    with pytest.raises(UsageError, match=r"input size 3 is too small .* smallest is 4"):
        edgewise.profile(Tokens(0), 3)


def test_a_map_that_is_cropped_to_nothing_is_too_small() -> None:
    class Cropped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x[:, :, 4:-4, 4:-4]).mean((2, 3))

    with pytest.raises(UsageError, match=r"input size 6 is too small .* smallest is 9"):
        edgewise.profile(Cropped(), 6)


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_weights_that_are_worked_out_are_counted_as_weights() -> None:
    """Weight norm, of both kinds: its kernel doesn't depend on the input."""
    for normed in (weight_norm(nn.Linear(6, 4)), parametrizations.weight_norm(nn.Linear(6, 4))):
        profile = edgewise.profile(normed, inputs=(torch.zeros(2, 6),))
        assert {kind.name: kind.macs for kind in profile.kinds}["linear"] == 2 * 24
        assert profile.params == 24 + 4 + 4
        assert profile.unread_params == 0


def test_a_module_that_can_be_compiled_is_seen_through() -> None:
    assert edgewise.profile(torch.compile(nn.Conv2d(3, 4, 1)), 8).macs == 64 * 12


def test_half_precision_halves_the_memory() -> None:
    whole = edgewise.profile(nn.Conv2d(3, 4, 1), 8)
    half = edgewise.profile(nn.Conv2d(3, 4, 1).half(), 8)
    assert (half.macs, half.peak_memory) == (whole.macs, whole.peak_memory // 2)


def test_profiling_in_two_threads() -> None:
    module, found = Tied(), []
    threads = [
        threading.Thread(target=lambda: found.append(edgewise.profile(module, 8).macs))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [edgewise.profile(module, 8).macs] * 2


@pytest.mark.filterwarnings("ignore")  # of torchvision's own
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "vit_b_32", "googlenet", "squeezenet1_1"])
def test_networks_that_are_not_ours(name: str) -> None:
    with torch.device("meta"):
        module = import_torchvision().models.get_model(name).eval()
    profile = edgewise.profile(module)
    assert 2 * profile.macs == flops(module, torch.zeros(1, 3, 224, 224, device="meta"))
    assert profile.params == sum(p.numel() for p in module.parameters())
    assert not profile.unknown


def test_too_small_an_image_names_the_smallest() -> None:
    with pytest.raises(UsageError, match=r"input size 31 is too small .* smallest is 32"):
        edgewise.profile("convnext_atto", 31)
    assert (
        edgewise.profile("convnext_atto", 32).macs
        == count(edgewise.create_model("convnext_atto").spec, 32).macs
    )
    with pytest.raises(UsageError, match=r"input size 9 x 4 is too small .* smallest is 5"):
        edgewise.profile(nn.Conv2d(3, 4, 5), (9, 4))
    with pytest.raises(UsageError, match=r"input size 0 is too small .* smallest is 1"):
        edgewise.profile("mobilenet_v1", 0)


class UNet(nn.Module):
    """Three halvings, and on the way back each map beside the one of the way down."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Conv2d(c, 4, 3, padding=1) for c in (3, 4, 4, 4))
        self.up = nn.ModuleList(nn.Conv2d(8, 4, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.down[0](x)]
        for conv in self.down[1:]:
            maps.append(conv(F.max_pool2d(maps[-1], 2)))
        x = maps.pop()
        for conv in self.up:
            x = conv(torch.cat([F.interpolate(x, scale_factor=2.0), maps.pop()], 1))
        return x


def test_a_size_that_does_not_fit_is_not_called_too_small() -> None:
    why = r"can't take an image of 100 px, though it takes one of 96: Sizes of tensors must match"
    with pytest.raises(UsageError, match=why):
        edgewise.profile(UNet(), 100)
    with pytest.raises(UsageError, match=r"of 100 x 68 px, though it takes one of 64: Sizes"):
        edgewise.profile(UNet(), (100, 68))
    assert edgewise.profile(UNet(), 96).macs


def test_an_input_that_never_fits_says_why() -> None:
    with pytest.raises(UsageError, match=r"can't take an image of 8 px: .*channels"):
        edgewise.profile(nn.Conv2d(5, 4, 3), 8)


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="Nearest: mobilenet_v2"):
        edgewise.profile("mobilenet_v22")
    with pytest.raises(UsageError, match="is no model"):
        edgewise.profile("no/such/folder")
