"""int8 graphs, held to the runtimes that read them, to sums by hand and to a search of all ways."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from photos import picture
from small import small_model
from torch import nn

from edgewise.deploy.onnx import graph_of
from edgewise.deploy.quantize import Calibrated, Range, calibrate, range_of
from edgewise.deploy.quantize_equalise import equalise, streams
from edgewise.deploy.quantize_keep import (
    MOST_CHANGED,
    int8_graph,
    keep_float_until,
    sensitivity,
)
from edgewise.deploy.quantize_layers import constants, layers_of
from edgewise.deploy.quantize_observe import Moments, observe
from edgewise.deploy.quantize_weights import round_together
from edgewise.errors import EdgewiseError, UsageError
from edgewise.model import Model

SIZE = 64
FAMILIES = ("efficientnet_lite0", "mobilenet_v2", "mobilenet_v3_small", "convnext_atto")
LABELS = tuple("abcdefghij")


def pixels_of(model: Model, count: int, first: int = 0) -> NDArray[np.uint8]:
    return np.stack(
        [model.preprocess.pixels(picture(seed)) for seed in range(first, first + count)]
    )


def batches(pixels: NDArray[Any], size: int = 4) -> list[NDArray[Any]]:
    return [pixels[at : at + size] for at in range(0, len(pixels), size)]


def session(proto: Any, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1")
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def answers(proto: Any, pixels: NDArray[Any]) -> NDArray[np.float32]:
    loaded = session(proto)
    (found,) = loaded.run(None, {loaded.get_inputs()[0].name: pixels})
    return np.asarray(found)


@pytest.fixture(scope="module", params=FAMILIES)
def made(request: pytest.FixtureRequest) -> tuple[Model, Any, Calibrated]:
    model = small_model(request.param, LABELS, SIZE)
    torch.manual_seed(0)
    with torch.no_grad():  # the exporter makes one constant of all that are 0
        for name, parameter in model.network.named_parameters():
            if name.endswith("bias") and request.param == "convnext_atto":
                parameter.add_(0.01 * torch.randn_like(parameter))
    proto = graph_of(model)
    return model, proto, calibrate(proto, batches(pixels_of(model, 24)))


@pytest.fixture(scope="module")
def lite() -> tuple[Model, Any, Calibrated]:
    model = small_model("efficientnet_lite0", LABELS, SIZE)
    proto = graph_of(model)
    return model, proto, calibrate(proto, batches(pixels_of(model, 24)))


def test_layers_have_the_names_of_the_modules(made: tuple[Model, Any, Calibrated]) -> None:
    model, _, calibrated = made
    expected = {
        name: tuple(module.weight.shape)
        for name, module in model.network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    found = {layer.name: layer for layer in calibrated.layers}
    assert found.keys() == expected.keys()
    for name, layer in found.items():
        assert len(layer.rows) == expected[name][0]
        assert layer.rows.size == np.prod(expected[name])


def test_int8_is_nearer_to_float_than_onnxruntimes_own(
    made: tuple[Model, Any, Calibrated], tmp_path: Path
) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model, proto, calibrated = made
    fed = iter([{"pixels": batch} for batch in batches(pixels_of(model, 24))])
    reader = SimpleNamespace(get_next=lambda: next(fed, None))
    onnx.save(proto, tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "theirs.onnx",
        reader,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "Clip", "Relu"],
    )
    pixels = pixels_of(model, 40, first=1000)
    exact = answers(proto, pixels)
    ours = answers(calibrated.quantized(), pixels) - exact
    theirs = answers(onnx.load(tmp_path / "theirs.onnx"), pixels) - exact
    assert 1e-8 < np.square(ours).mean() < 0.9 * np.square(theirs).mean()


def test_openvino_answers_so_too(made: tuple[Model, Any, Calibrated], tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    model, proto, _ = made
    calibrated = calibrate(proto, batches(pixels_of(model, 24)), bits=7)
    onnx.save(calibrated.quantized(), tmp_path / "m.onnx")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(tmp_path / "m.onnx", "CPU", settings)
    pixels = pixels_of(model, 40, first=1000)
    exact = answers(proto, pixels)
    in_onnxruntime = np.square(answers(calibrated.quantized(), pixels) - exact).mean()
    in_openvino = np.square(np.array(compiled(pixels)[0]) - exact).mean()
    assert 0 < in_openvino < 2 * in_onnxruntime


def test_every_convolution_computes_in_integers(
    made: tuple[Model, Any, Calibrated], tmp_path: Path
) -> None:
    """Says ONNX Runtime: it puts an integer operator in the place of each."""
    model, _, calibrated = made
    session(calibrated.quantized(), tmp_path / "m.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    convolutions = [m for m in model.network.modules() if isinstance(m, nn.Conv2d)]
    assert kinds.count("QLinearConv") == len(convolutions)
    assert "Conv" not in kinds


def test_a_network_that_is_kept_in_float_is_the_float_network(
    made: tuple[Model, Any, Calibrated],
) -> None:
    model, proto, calibrated = made
    pixels = pixels_of(model, 8)
    kept = calibrated.quantized([layer.name for layer in calibrated.layers])
    assert not {"QuantizeLinear", "DequantizeLinear"} & {n.op_type for n in kept.graph.node}
    assert np.abs(answers(kept, pixels) - answers(proto, pixels)).max() < 1e-4


def test_the_graph_that_was_given_is_left_alone(lite: tuple[Model, Any, Calibrated]) -> None:
    model, proto, calibrated = lite
    before = graph_of(model).SerializeToString(deterministic=True)
    assert proto.SerializeToString(deterministic=True) == before
    again = calibrate(proto, batches(pixels_of(model, 24)))
    first, second = (
        c.quantized().SerializeToString(deterministic=True) for c in (calibrated, again)
    )
    assert first == second


@pytest.mark.parametrize("bits", [7, 8])
def test_weights_are_integers_of_so_many_bits(
    lite: tuple[Model, Any, Calibrated], bits: int
) -> None:
    model, proto, _ = lite
    calibrated = calibrate(proto, batches(pixels_of(model, 8)), bits)
    values = constants(calibrated.quantized())
    for layer in calibrated.layers:
        integers = values[f"{layer.weight}_integers"]
        assert integers.dtype == np.int8
        assert np.abs(integers.astype(int)).max() in range(2 ** (bits - 2), 2 ** (bits - 1))
        assert layer.weight not in values  # nor are the floats shipped


def test_a_constant_that_several_layers_share_is_changed_for_each_alone() -> None:
    model = small_model("convnext_atto", LABELS, SIZE)  # its new biases are all 0
    proto, pixels = graph_of(model), pixels_of(model, 24)
    layers = layers_of(proto)
    assert len({layer.name for layer in layers}) == len(layers)
    exact = np.log(answers(proto, pixels))
    short = np.log(answers(calibrate(proto, batches(pixels)).quantized(), pixels))
    assert np.corrcoef(exact.ravel(), short.ravel())[0, 1] > 0.98


def test_named_layers_and_modules_stay_in_float(lite: tuple[Model, Any, Calibrated]) -> None:
    _, _, calibrated = lite
    graph = calibrated.quantized(["stem", "stages.1.0.expand"])
    values = constants(graph)
    kept = [layer.name for layer in calibrated.layers if layer.weight in values]
    assert kept == ["stem.conv", "stages.1.0.expand.conv"]
    assert calibrated.named(["head"]) == ("head.conv.conv", "head.classifier")
    with pytest.raises(UsageError, match=r"unknown layer 'stages.1.0.expnd'.*stages.1.0.expand"):
        calibrated.quantized(["stages.1.0.expnd"])


def test_a_range_moves_its_values_hardly_more_than_the_best_of_many() -> None:
    random = np.random.default_rng(0)
    values = np.maximum(random.laplace(-0.5, 0.5, 20_000), -1).astype(np.float32)
    x = torch.from_numpy(values)

    def error(low: float, high: float) -> float:
        scale = (high - low) / 255
        zero = round(-low / scale)
        moved = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)
        return float((moved - x).square().sum())

    found = range_of(values)
    low = -float(found.zero) * float(found.scale)
    ours = error(low, low + 255 * float(found.scale))
    lows, highs = np.linspace(-1.0, -0.3, 15), np.linspace(0.5, float(values.max()), 40)
    best = min(error(low, high) for low in lows for high in highs)
    assert ours < 1.2 * best
    assert ours < 0.8 * error(float(values.min()), float(values.max()))


def test_a_range_holds_zero_exactly_and_a_map_of_zeros_has_one() -> None:
    found = range_of(np.float32([3.0, 5.0, 7.0]))
    assert (found.scale, found.zero) == (pytest.approx(7 / 255, rel=0.05), 0)
    assert range_of(np.zeros(10, np.float32)).zero == 0
    assert range_of(np.float32([-2.0, -1.0])).zero == 255


def test_weights_of_independent_inputs_are_rounded_to_the_nearest() -> None:
    rows = torch.randn(2, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scales = rows.abs().amax(2) / 127
    variances = torch.rand(2, 12, dtype=torch.float64) + 0.1
    found = round_together(rows, scales, torch.diag_embed(variances), 127)
    assert torch.equal(found, (rows / scales[:, :, None]).round())


def test_weights_of_inputs_that_go_together_make_up_for_each_other() -> None:
    random = np.random.default_rng(1)
    mixed = random.normal(size=(4, 4)) * [1.0, 0.2, 0.2, 0.2]
    covariance = torch.from_numpy(mixed @ mixed.T + 0.01 * np.eye(4))[None]
    rows = torch.from_numpy(random.normal(size=(1, 40, 4)))
    scales = rows.abs().amax(2) / 7
    low = (rows[0] / scales[0, :, None]).floor()

    def error(integers: torch.Tensor) -> torch.Tensor:
        lost = rows[0] - integers * scales[0, :, None]
        return torch.einsum("oi,ij,oj->o", lost, covariance[0], lost)

    ways = [low + torch.tensor(up) for up in itertools.product((0, 1), repeat=4)]
    best = torch.stack([error(way.clamp(-7, 7)) for way in ways]).min(0).values.sum()
    nearest = error((rows[0] / scales[0, :, None]).round()).sum()
    found = error(round_together(rows, scales, covariance, 7)[0]).sum()
    assert found < 0.8 * nearest
    assert found < 2 * best  # of all 16 ways to round a row up and down


def test_moments_are_those_of_the_sums() -> None:
    """A convolution's squared outputs average to w M wᵀ, its outputs to w m."""
    torch.manual_seed(0)
    x = torch.randn(3, 6, 9, 9) + 0.5
    for groups, kernel, stride in ((1, 3, 2), (6, 5, 1), (1, 1, 1), (2, 3, 1)):
        conv = nn.Conv2d(6, 12, kernel, stride, kernel // 2, groups=groups, bias=False)
        proto = _exported(conv, x)
        (layer,) = layers_of(proto)
        moments: Moments = observe(proto, [layer], [x[:2].numpy(), x[2:].numpy()]).moments[
            layer.name
        ]
        with torch.no_grad():
            y = conv(x).transpose(0, 1).reshape(12, -1).double()
        w = torch.from_numpy(layer.rows).double().reshape(groups, 12 // groups, -1)
        squares = torch.einsum("goi,gij,goj->go", w, moments.second, w).reshape(-1)
        assert torch.allclose(squares, y.square().mean(1), rtol=1e-4)
        means = torch.einsum("goi,gi->go", w, moments.first).reshape(-1)
        assert torch.allclose(means, y.mean(1), atol=1e-5)


def test_the_bias_takes_up_the_mean_of_what_rounding_loses() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, 1)
    x = torch.rand(8, 8, 12, 12) + 2.0  # a mean that shows
    proto = _exported(conv, x)
    fed = batches(x.numpy())
    calibrated = calibrate(proto, fed, bits=4)
    graph = calibrated.quantized()
    error = answers(graph, x.numpy()) - answers(proto, x.numpy())
    assert np.abs(error).mean() > 5 * np.abs(error.mean((0, 2, 3))).max()


def test_equalising_keeps_the_answers_and_evens_the_channels() -> None:
    model = small_model("mobilenet_v2", LABELS, SIZE)
    with torch.no_grad():  # a bottleneck whose channels differ, undone behind it
        project, expand = (
            model.network.stages[1][0].project.conv,  # type: ignore[index, union-attr]
            model.network.stages[2][0].expand.conv,  # type: ignore[index, union-attr]
        )
        norm = model.network.stages[1][0].project.norm  # type: ignore[index, union-attr]
        factors = torch.logspace(-2, 2, project.out_channels)
        norm.weight.mul_(factors)
        norm.bias.mul_(factors)
        expand.weight.div_(factors[None, :, None, None])
    proto, pixels = graph_of(model), pixels_of(model, 8)
    assert len(streams(proto)) >= 4
    before, exact = _spread(proto, pixels), answers(proto, pixels)
    equalise(proto, batches(pixels))
    assert _spread(proto, pixels) < before / 10
    assert np.abs(answers(proto, pixels) - exact).max() < 1e-4


def test_nothing_is_equalised_across_a_bound_or_a_norm() -> None:
    for name in ("convnext_atto", "mobilenet_v3_small"):
        proto = graph_of(small_model(name, LABELS, SIZE))
        makers = {out: node.op_type for node in proto.graph.node for out in node.output}
        for stream in streams(proto):
            assert {makers[name] for name in stream.maps} <= {"Conv", "Add"}


def test_the_block_that_int8_spoils_is_the_dearest_and_stays_in_float() -> None:
    model = small_model("efficientnet_lite0", LABELS, SIZE)
    proto, pixels = graph_of(model), pixels_of(model, 24)
    calibrated = calibrate(proto, batches(pixels))
    coarse = Range(np.float32(3.0), np.uint8(0))  # two steps from 0 to 6
    spoiled = replace(
        calibrated,
        ranges=calibrated.ranges | {_input(calibrated, "stages.3.0.depthwise.conv"): coarse},
    )
    costs = sensitivity(spoiled, batches(pixels))
    assert costs[0].block == "stages.3.0"
    assert costs[0].divergence > 2 * costs[1].divergence
    assert {cost.block for cost in costs} == {layer.block for layer in calibrated.layers}
    kept = keep_float_until(spoiled, batches(pixels), most_changed=0.1)
    assert "stages.3.0.expand.conv" in kept
    exact = answers(proto, pixels).argmax(1)
    changed = (answers(spoiled.quantized(kept), pixels).argmax(1) != exact).mean()
    assert changed <= 0.1 < (answers(spoiled.quantized(), pixels).argmax(1) != exact).mean()
    assert keep_float_until(spoiled, batches(pixels), most_changed=1.0) == ()


def test_images_decide_what_stays_in_float_unless_it_is_said(
    lite: tuple[Model, Any, Calibrated],
) -> None:
    model, proto, _ = lite
    pixels = pixels_of(model, 32)
    graph, kept = int8_graph(proto, pixels, ("stem",))
    assert kept == ("stem.conv",)
    assert "network.stem.conv.weight" in constants(graph)
    assert int8_graph(proto, pixels, ())[1] == ()
    graph, kept = int8_graph(proto, pixels, None)
    held = pixels[::4]
    changed = (answers(graph, held).argmax(1) != answers(proto, held).argmax(1)).mean()
    assert changed <= max(2 / len(held), MOST_CHANGED) or not kept


def test_bad_input_is_named(lite: tuple[Model, Any, Calibrated]) -> None:
    model, proto, _ = lite
    none = np.zeros((0, SIZE, SIZE, 3), np.uint8)
    with pytest.raises(EdgewiseError, match="needs images"):
        int8_graph(proto, none, None)
    with pytest.raises(EdgewiseError, match="needs images"):
        calibrate(proto, [])
    broken = small_model("efficientnet_lite0", LABELS, SIZE)
    with torch.no_grad():
        broken.network.stem.conv.weight[0] = float("nan")  # type: ignore[index, union-attr]
    with pytest.raises(EdgewiseError, match="not finite"):
        calibrate(graph_of(broken), batches(pixels_of(model, 4)))
    with pytest.raises(EdgewiseError, match="no convolution or matrix"):
        calibrate(_exported(nn.Softmax(1), torch.zeros(2, 3)), [np.zeros((2, 3), np.float32)])


def _exported(module: nn.Module, x: torch.Tensor) -> Any:
    from edgewise.deploy.onnx import to_onnx

    return to_onnx(module.eval(), (x[:2],), "x", "y", any_batch=True)


def _spread(proto: Any, pixels: NDArray[np.uint8]) -> float:
    """The loudest over the quietest channel of the map that stages.2.0.expand reads."""
    layer = next(item for item in layers_of(proto) if item.name == "stages.2.0.expand.conv")
    wider = onnx.ModelProto()
    wider.CopyFrom(proto)
    wider.graph.output.append(onnx.ValueInfoProto(name=layer.input))
    (values,) = session(wider).run([layer.input], {"pixels": pixels})
    sizes = np.abs(np.asarray(values)).max((0, 2, 3))
    return float(sizes.max() / sizes.min())


def _input(calibrated: Calibrated, name: str) -> str:
    return next(layer.input for layer in calibrated.layers if layer.name == name)
