"""Which layers int8 costs most in, and which stay in float."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from int8_graphs import answers, batches, pixels_of, session
from numpy.typing import NDArray

from edgewise.deploy import quantize_keep
from edgewise.deploy.artifact import MOST_CHANGED
from edgewise.deploy.quantize import Calibrated, Range, calibrate
from edgewise.deploy.quantize_keep import (
    int8_graph,
    keep_float_until,
    risk,
    sensitivity,
)
from edgewise.deploy.quantize_layers import constants
from edgewise.errors import UsageError
from edgewise.model import Model


def test_named_layers_and_modules_stay_in_float(lite: tuple[Model, Any, Calibrated]) -> None:
    _, _, calibrated = lite
    graph = calibrated.quantized(["stem", "stages.1.0.expand"])
    values = constants(graph)
    kept = [layer.name for layer in calibrated.layers if layer.weight in values]
    assert kept == ["stem.conv", "stages.1.0.expand.conv"]
    assert calibrated.named(["head"]) == ("head.conv.conv", "head.classifier")
    with pytest.raises(UsageError, match=r"unknown layer 'stages.1.0.expnd'.*stages.1.0.expand"):
        calibrated.quantized(["stages.1.0.expnd"])


@pytest.mark.parametrize("part", ["expand", "depthwise", "project"])
def test_a_layer_between_bytes_stays_in_float_in_the_runtime_too(
    lite: tuple[Model, Any, Calibrated], part: str, tmp_path: Path
) -> None:
    """ONNX Runtime would round its weights itself, with one scale for all of them."""
    _, _, calibrated = lite
    graph = calibrated.quantized([f"stages.1.0.{part}.conv"])
    session(graph, tmp_path / "m.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    convolutions = sum(layer.is_conv for layer in calibrated.layers)
    assert (kinds.count("QLinearConv"), kinds.count("Conv")) == (convolutions - 1, 1)


def test_the_block_that_int8_spoils_is_the_dearest_and_stays_in_float(
    lite: tuple[Model, Any, Calibrated],
) -> None:
    model, proto, calibrated = lite
    pixels = pixels_of(model, 24)  # that it was calibrated on
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
    assert "stages.3.0.expand.conv" in kept.layers
    exact = answers(proto, pixels).argmax(1)
    changed = (answers(spoiled.quantized(kept.layers), pixels).argmax(1) != exact).mean()
    assert changed <= 0.1 < (answers(spoiled.quantized(), pixels).argmax(1) != exact).mean()
    assert kept.left <= 0.1 < kept.lost
    assert kept.costs[0].block == "stages.3.0"
    assert "It costs most in stages.3.0" in kept.note
    whole = keep_float_until(spoiled, batches(pixels), most_changed=1.0)
    assert (whole.layers, whole.costs, whole.note) == ((), (), "")
    assert whole.left == whole.lost > 0.1


def test_images_decide_what_stays_in_float_unless_it_is_said(
    lite: tuple[Model, Any, Calibrated], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, proto, _ = lite
    pixels = pixels_of(model, 32)
    seen = []
    monkeypatch.setattr(
        quantize_keep, "calibrate", lambda *given: seen.append(given) or calibrate(*given)
    )
    monkeypatch.setattr(quantize_keep, "_LAST", {})
    graph, kept = int8_graph(proto, pixels, ("stem",))
    assert kept.layers == ("stem.conv",)
    assert "network.stem.conv.weight" in constants(graph)
    assert int8_graph(proto, pixels, (), fuses=True)[1].layers == ()
    assert [sum(map(len, fed)) for _, fed, _ in seen] == [32]  # the same serves another runtime
    others = pixels_of(model, 40)[32:]
    graph, kept = int8_graph(proto, pixels, None, others)
    assert kept.left == pytest.approx(risk(answers(proto, others), answers(graph, others)), 1e-3)
    assert kept.left <= MOST_CHANGED < kept.lost or not kept.layers
    strict = int8_graph(proto, pixels, None, others, most_changed=kept.left / 2)[1]
    assert len(strict.layers) > len(kept.layers)
    assert int8_graph(proto, pixels, None, others, most_changed=1.0)[1].layers == ()
    assert [sum(map(len, fed)) for _, fed, _ in seen] == [32]
    graph, kept = int8_graph(proto, pixels, None)  # no others: a quarter is kept apart to choose on
    assert [sum(map(len, fed)) for _, fed, _ in seen] == [32, 24]
    for_choosing = calibrate(proto, batches(np.delete(pixels, slice(None, None, 4), axis=0)))
    expected = keep_float_until(for_choosing, batches(pixels[::4]))
    assert (kept.layers, kept.left) == (expected.layers, pytest.approx(expected.left, 1e-3))
    whole = calibrate(proto, batches(pixels)).quantized(kept.layers)
    assert (answers(graph, others) == answers(whole, others)).all()


@pytest.mark.parametrize("error", [0.1, 0.5])
def test_the_risk_of_another_top_class_is_that_of_normal_errors(error: float) -> None:
    """Of 40 images it is told as well as of the 40,000 that are drawn like them."""
    random = np.random.default_rng(0)

    def drawn(images: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        logits = np.zeros((images, 10))
        logits[:, 0] = random.exponential(2.0, images)  # it leads by so much; the rest is far off
        logits[:, 2:] = -30
        moved = logits + random.normal(0, error / np.sqrt(2), logits.shape)
        whole, short = (np.exp(item).astype(np.float32) for item in (logits, moved))
        return whole / whole.sum(1, keepdims=True), short / short.sum(1, keepdims=True)

    exact, moved = drawn(40_000)
    changed = (exact.argmax(1) != moved.argmax(1)).mean()
    assert risk(exact, moved) == pytest.approx(changed, rel=0.1)
    few = np.mean([risk(*drawn(40)) for _ in range(200)])
    assert few == pytest.approx(changed, rel=0.25)


def test_what_changes_is_counted_but_for_one_image() -> None:
    exact = np.tile(np.float32([0.9, 0.05, 0.05]), (200, 1))
    moved = exact.copy()
    moved[:1] = [0.05, 0.05, 0.9]
    assert risk(exact, exact) == 0
    assert risk(exact, moved) < 1e-4
    moved[:10] = [0.05, 0.05, 0.9]
    assert risk(exact, moved) == pytest.approx(10 / 200)


def test_the_progress_is_shown(
    lite: tuple[Model, Any, Calibrated],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("edgewise.progress.SECONDS_BETWEEN_LINES", 0.0)
    model, proto, calibrated = lite
    pixels = pixels_of(model, 8)
    keep_float_until(calibrate(proto, batches(pixels)), batches(pixels), most_changed=0.0)
    shown = capsys.readouterr().err
    for what in ("sizes of channels: 1/2", "ranges of maps: 1/2"):
        assert what in shown
    for what, count in (
        ("rounding weights", len(calibrated.layers)),
        ("block by block in int8", len({layer.block for layer in calibrated.layers})),
    ):
        assert f"{what}: {count - 1}/{count}, " in shown


def _input(calibrated: Calibrated, name: str) -> str:
    return next(layer.input for layer in calibrated.layers if layer.name == name)
