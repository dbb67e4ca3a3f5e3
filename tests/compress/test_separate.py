"""Networks with their convolutions taken apart: the same answers where nothing may be lost."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from photos import picture
from small import small_model
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from edgewise.compress.separate import separate
from edgewise.compress.separate_spec import rank_fields, with_ranks
from edgewise.deploy.onnx import to_bytes, to_onnx
from edgewise.errors import EdgewiseError, UsageError
from edgewise.families import variant
from edgewise.layers import Separated
from edgewise.measure.count import count
from edgewise.measure.profile import profile
from edgewise.network import build
from edgewise.spec import Spec
from edgewise.weights.tensors import tensors_of


def plant(model: nn.Module, rank: int) -> None:
    """Gives every dense kernel a rank, so that nothing is lost."""
    torch.manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            out, in_chans, *sides = module.weight.shape
            pointwise = torch.randn(rank, out, in_chans)
            depthwise = torch.randn(rank, in_chans, *sides)
            kernel = torch.einsum("roi,rihw->oihw", pointwise, depthwise)
            with torch.no_grad():
                module.weight.copy_(kernel / kernel.std() / (in_chans * 9) ** 0.5)


def inputs(count: int = 4, channels: int = 8, side: int = 19) -> Tensor:
    torch.manual_seed(4)
    return torch.randn(count, channels, side, side + 2).cumsum(2) / 3  # neighbours are alike


def answer(model: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        given: Tensor = copy.deepcopy(model).eval()(images)
    return given


CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "oblong": {"kernel_size": (3, 5), "stride": (1, 2), "padding": (0, 2), "dilation": (2, 1)},
    "same": {"kernel_size": 5, "padding": "same", "dilation": 2},
    "even": {"kernel_size": 4, "stride": 3, "bias": False},
    "reflecting": {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"},
    "circular": {"kernel_size": 7, "padding": 3, "padding_mode": "circular", "bias": False},
}


@pytest.mark.parametrize("weights_only", [False, True])
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_any_convolution_of_a_low_rank_is_kept(options: dict[str, Any], weights_only: bool) -> None:
    model = nn.Sequential(nn.Conv2d(8, 24, **options), nn.ReLU(), nn.Conv2d(24, 8, 3))
    plant(model, rank=2)
    apart, report = separate(model, inputs(), rank=2, weights_only=weights_only)
    assert report.ranks == (2, 2)
    assert isinstance(apart[0], Separated) and isinstance(apart[2], Separated)
    wanted = answer(model, inputs())
    assert (answer(apart, inputs()) - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert report.macs == tuple(profile(m, inputs=(inputs(1),)).macs for m in (model, apart))
    assert report.params == tuple(sum(p.numel() for p in m.parameters()) for m in (model, apart))


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16", "efficientnet_v2_s"])
def test_a_network_stays_a_spec_and_weights(name: str, padding: str) -> None:
    torch.manual_seed(0)
    network = build(replace(variant(name).spec(0.25, classes=3), padding=padding))
    plant(network.stages, rank=2)
    images = inputs(3, 3, 48)
    apart, report = separate(network.train(), images, rank=2, weights_only=True)
    assert any(report.ranks)
    assert apart.training
    again = build(Spec.from_json(json.loads(json.dumps(apart.spec.to_json()))))
    again.load_state_dict(apart.state_dict())
    wanted, found = answer(network, images), answer(again, images)
    assert tensors_of(apart).keys() == again.state_dict().keys()  # so it can be saved
    assert torch.equal(found, answer(apart, images))
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()
    # Three ways to count.
    assert apart.spec.name == f"{network.spec.name}_separated"
    cost = count(apart.spec, 48)
    assert (cost.macs, cost.params) == (profile(apart, 48).macs, report.params[1])
    assert report.macs == tuple(profile(n, (48, 50)).macs for n in (network, apart))
    assert report.macs[1] < report.macs[0]


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_v2_s"])
def test_a_separated_network_runs_in_onnx_runtime(name: str) -> None:
    network = small_model(name, tuple("abc"), size=32, stages=3).network
    images = inputs(2, 3, 32)
    apart, report = separate(network, images, macs=0.6)
    assert any(report.ranks)
    file = to_bytes(to_onnx(apart.eval(), (images,), "x", "y", any_batch=True))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": images.numpy()})
    assert np.abs(found - answer(apart, images).numpy()).max() < 1e-4


def test_a_separated_network_learns() -> None:
    network = small_model("resnet18", tuple("abc"), size=32).network
    apart, _ = separate(network, inputs(2, 3, 32), rank=1)
    layer = next(module for module in apart.modules() if isinstance(module, Separated))
    before = copy.deepcopy(apart.train().state_dict())
    optimizer = torch.optim.SGD(apart.parameters(), 0.1)
    apart(inputs(4, 3, 32)).logsumexp(1).sum().backward()
    optimizer.step()
    for part in (layer.depthwise, layer.pointwise):
        assert part.weight.grad is not None and part.weight.grad.abs().max() > 0
    assert any(not torch.equal(before[key], value) for key, value in apart.state_dict().items())


def test_images_keep_more_of_the_answers_than_weights_alone() -> None:
    model = small_model("resnet18", tuple("abcde"), size=48)
    pixels = np.stack([model.preprocess.pixels(picture(seed)) for seed in range(48)])
    images = model.preprocess.normalise(torch.from_numpy(pixels))
    seen, unseen = images[:32], images[32:]
    wanted = answer(model.network, unseen)
    errors = {}
    for weights_only in (False, True):
        apart, _ = separate(model.network, seen, rank=2, weights_only=weights_only)
        errors[weights_only] = float((answer(apart, unseen) - wanted).norm() / wanted.norm())
    assert errors[False] < 0.75 * errors[True]


def test_the_mean_of_every_output_is_kept() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1))
    images = inputs(16) + torch.arange(8.0).reshape(1, 8, 1, 1)  # far from 0
    apart, report = separate(model, images, rank=1)
    wanted, found = answer(model, images), answer(apart, images)
    assert torch.allclose(found.mean((0, 2, 3)), wanted.mean((0, 2, 3)), atol=1e-4)
    lost = (found - wanted).var() / (wanted - wanted.mean((0, 2, 3), keepdim=True)).var()
    assert report.layers[0].errors[0] == pytest.approx(float(lost), rel=0.05)  # as reported
    assert 0.01 < float(lost) < 1


def test_a_mean_far_from_0_leaves_the_fit_as_it_is() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3)).double()
    errors = [
        separate(model, inputs(16).double() + offset, rank=1)[1].layers[0].errors
        for offset in (0, 1e5)
    ]
    assert errors[1] == pytest.approx(errors[0], rel=1e-3)


def test_what_can_not_be_taken_apart_is_left_alone() -> None:
    class Strange(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / self.weight.norm()

    class Equalised(nn.Conv2d):
        def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return super()._conv_forward(x, weight / 72**0.5, bias)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image = nn.Conv2d(3, 8, 3)
            self.grouped = nn.Conv2d(8, 8, 3, groups=2)
            self.point = nn.Conv2d(8, 8, 1)
            self.strange = nn.Sequential(Strange(8, 8, 3), Equalised(8, 8, 3))
            self.normed = weight_norm(nn.Conv2d(8, 8, 3))
            self.tiny = nn.Conv2d(8, 1, 3)  # rank 1 costs 8 x (9 + 1), the kernel 8 x 9
            self.unused = nn.Conv2d(8, 8, 3)
            self.dense = self.twin = nn.Conv2d(8, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.point(self.grouped(self.image(x)))
            x = self.twin(self.dense(self.normed(self.strange(x))))
            return self.tiny(x)

    model = Own().eval()
    before = copy.deepcopy(model.state_dict())
    images = inputs(2, 3)
    apart, report = separate(model, images, rank=3)
    assert [layer.name for layer in report.layers] == ["dense"]
    assert isinstance(apart.dense, Separated) and apart.twin is apart.dense
    changed = [n for n, m in apart.named_modules() if isinstance(m, Separated)]
    assert changed == ["dense"]
    assert not apart.training
    assert report.macs[1] == profile(apart, inputs=(images[:1],)).macs  # both calls
    # The model itself is as it was.
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in (*model.modules(), *apart.modules()))


class Asks(nn.Module):
    """Its code takes more of a layer than its answers; `kept` is what it gave last."""

    def __init__(self, ask: Callable[[nn.Conv2d, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3)
        self.ask = ask
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.ask(self.second, self.second(self.first(x)))
        return self.kept


@pytest.mark.parametrize("weights_only", [False, True])
def test_a_network_that_could_not_run_afterwards_names_the_layer(weights_only: bool) -> None:
    for ask in (
        lambda conv, x: x.to(conv.weight.dtype),
        lambda conv, x: functional.conv2d(x, conv.weight),
    ):
        with pytest.raises(EdgewiseError, match=r"^second can't be taken apart: .*'weight'"):
            separate(Asks(ask), inputs(), rank=1, weights_only=weights_only)


def test_a_network_that_keeps_its_last_answers_is_taken_apart() -> None:
    model = Asks(lambda conv, x: x).eval()
    plant(model, 1)
    wanted = model(inputs())  # keeps its graph
    for weights_only in (False, True):
        apart, _ = separate(model, inputs(), rank=1, weights_only=weights_only)
        assert (answer(apart, inputs()) - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert model.kept is wanted


def test_a_weight_that_a_hook_works_out_is_left_alone() -> None:
    with pytest.warns(FutureWarning):
        model = nn.Sequential(torch.nn.utils.weight_norm(nn.Conv2d(8, 8, 3)), nn.Conv2d(8, 8, 3))
    _, report = separate(model, inputs(), rank=1)
    assert [layer.name for layer in report.layers] == ["1"]


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_convolution_with_hooks_is_left_alone(register: str) -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    plant(model, 1)
    getattr(model[0], register)(lambda conv, given, *out: (out or given)[0] * 2)
    apart, report = separate(model, inputs(), rank=1)
    assert [layer.name for layer in report.layers] == ["1"]
    assert torch.allclose(answer(apart, inputs()), answer(model, inputs()), atol=1e-4)


def test_a_compiled_network_is_taken_apart_as_what_it_was_compiled_from() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    plant(model, 1)
    separated, _ = separate(torch.compile(model), inputs(), rank=1)
    assert torch.allclose(answer(separated, inputs()), answer(model, inputs()), atol=1e-4)


def test_a_budget_is_kept_and_spent() -> None:
    network = build(variant("resnet18").spec(0.25, classes=5))
    images = inputs(4, 3, 32)
    for part in (0.3, 0.5, 0.8):
        apart, report = separate(network, images, macs=part)
        whole, left = report.macs
        assert 0.97 * part * whole < left <= part * whole
        assert profile(apart, inputs=(images,)).macs == len(images) * left
    assert separate(network, images)[1].macs == separate(network, images, macs=0.5)[1].macs


def test_separating_again_takes_the_layers_that_are_left() -> None:
    network = build(variant("resnet18").spec(0.25, classes=5))
    images = inputs(4, 3, 32)
    some, first = separate(network, images, rank=4)  # makes a layer of few channels no cheaper
    assert 0 in first.ranks or len(first.ranks) == len(rank_fields(network.spec))
    left = len(rank_fields(network.spec)) - sum(rank > 0 for rank in first.ranks)
    if left:
        _, second = separate(some, images, rank=1)
        assert len(second.layers) == left
    else:
        with pytest.raises(UsageError, match="nothing to take apart"):
            separate(some, images, rank=1)


def test_the_table() -> None:
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, (3, 5)))
    _, report = separate(model, inputs(), rank=6)
    heading, first, second, whole = report.lines()
    assert heading == ("LAYER", "KERNEL", "RANK", "ERROR", "MMACS", "THEN")
    assert first[:4] == ("0", "8-16 3x3", "-", "-")  # 6 x (9 + 16) is more than 9 x 16
    assert second[:3] == ("1", "16-16 3x5", "6")
    assert second[3] == f"{report.layers[1].errors[5]:.1%}"
    assert whole == ("the whole network", "", "", "", *(f"{x / 1e6:,.2f}" for x in report.macs))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be 1 or more"),
        ({"rank": 9}, "rank 9 makes no layer cheaper"),
        ({"rank": 1, "macs": 0.5}, "Leave out one"),
        ({"macs": 0.0}, "above 0 and below 1, not 0"),
        ({"macs": 1.5}, "above 0 and below 1, not 1.5"),
        ({"macs": float("nan")}, "above 0 and below 1, not nan"),
        ({"macs": 0.01}, "out of reach: rank 1 in every layer leaves 0."),
    ],
)
def test_a_wrong_call_says_what_is_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        separate(nn.Sequential(nn.Conv2d(8, 16, 3)), inputs(), **options)


def test_networks_without_dense_convolutions() -> None:
    for name in ("mobilenet_v2", "convnext_atto"):
        network = build(variant(name).spec(0.25, classes=5))
        with pytest.raises(UsageError, match="nothing to take apart"):
            separate(network, inputs(1, 3, 32), rank=1)


@pytest.mark.parametrize("where", ["weight", "image"])
def test_numbers_that_are_not_finite_name_the_layer(where: str) -> None:
    model, images = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 16, 3)), inputs()
    if where == "weight":
        nn.init.constant_(model[1].weight, float("nan"))  # type: ignore[arg-type]
    else:
        images[0, 0, 0, 0] = float("inf")
    with pytest.raises(EdgewiseError, match=r"^1 can't be taken apart: .* not all finite"):
        separate(model, images, rank=1)


def test_images_of_another_shape() -> None:
    for wrong in (torch.zeros(8, 32, 32), torch.zeros(0, 8, 32, 32)):
        with pytest.raises(UsageError, match=r"images must be \(N, C, H, W\)"):
            separate(nn.Sequential(nn.Conv2d(8, 16, 3)), wrong)


def test_ranks_of_a_spec_name_modules_that_it_has() -> None:
    for name in ("resnet18", "resnet50", "vgg16", "efficientnet_v2_s", "mobilenet_v4_conv_small"):
        spec = variant(name).spec()
        names = rank_fields(spec)
        with torch.device("meta"):
            network = build(spec)
            ranked = build(with_ranks(spec, dict.fromkeys(names, 2)))
        dense = {
            module_name
            for module_name, module in network.stages.named_modules(prefix="stages")
            if isinstance(module, nn.Conv2d) and module.groups == 1 and module.kernel_size[0] > 1
        }
        assert set(names) == dense
        found = {n for n, module in ranked.named_modules() if isinstance(module, Separated)}
        assert found == dense
