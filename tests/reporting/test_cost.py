from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from not_installed import READS_ONNX, not_installed
from tiny_onnx import write_tiny_onnx

from edgewise.deploy.artifact import INFO, MAIN, MAIN_INT8, Info, making
from edgewise.families import variant
from edgewise.measure import latency
from edgewise.model import Model
from edgewise.network import build
from edgewise.preprocess import Preprocess
from edgewise.reporting.cost import cost
from edgewise.run_folder import Run
from edgewise.weights.folder import save_model


def test_cost_is_measured_once_for_each_artefact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "benchmark", partial(latency.benchmark, seconds=0.01))
    run = Run(tmp_path)
    run.recipe.write_text("{}")
    preprocess = Preprocess(32, 1.0, "bilinear", (127.0,) * 3, (128.0,) * 3)
    network = build(variant("mobilenet_v3_small").spec(width=0.25, classes=3))
    model = Model(network.eval(), preprocess, ("a", "b", "c"))
    save_model(model, run.model)

    first = cost(run)
    assert first["params"] == sum(p.numel() for p in network.parameters())
    assert first["artifact_bytes"] is None and first["runtime"].startswith("torch ")
    assert 0 < first["latency"]["median_ms"] <= first["latency"]["p90_ms"]
    assert json.loads(run.cost.read_text()) == first == cost(run)

    run.cost.write_text(json.dumps({**first, "params": 0}))
    assert cost(run)["params"] == 0  # what is known is taken
    with torch.no_grad():
        network.head.classifier.bias += 1.0
    save_model(model, run.model)  # as a run that still trains does
    first = cost(run)
    assert first["params"] > 0 and cost(run) == first

    info = Info("model.onnx", "onnx", "fp32", ("a", "b", "c"), preprocess)
    with making(run.exports / MAIN) as folder:
        info.write(folder)
        write_tiny_onnx(folder / info.file, np.ones((32 * 32 * 3, 3)), info.labels, preprocess)
    with pytest.MonkeyPatch.context() as patch:
        not_installed(patch, *READS_ONNX)
        without = cost(run)
        assert without["runtime"].startswith("torch ") and cost(run) == without
    second = cost(run)
    assert second["runtime"].startswith("onnxruntime ")
    assert second["artifact_sha256"] == without["artifact_sha256"] is not None
    with pytest.MonkeyPatch.context() as patch:
        not_installed(patch, *READS_ONNX)
        assert cost(run) == second  # as it was measured where that was installed
    assert second["artifact_bytes"] == (run.exports / MAIN / "model.onnx").stat().st_size
    assert second["params"] == first["params"]

    save_model(replace(model, int8_ranges={"stem.conv": (0.0, 1.0)}), run.model)
    third = cost(run)  # the float file is not what it learned
    assert third["artifact_bytes"] is None and third["runtime"].startswith("torch ")
    shutil.copytree(run.exports / MAIN, run.exports / MAIN_INT8)
    assert cost(run)["artifact_bytes"] == second["artifact_bytes"]
    for lost, left in (("model.onnx", "half of"), (INFO, "{")):
        (run.exports / MAIN_INT8 / lost).unlink()
        assert cost(run)["artifact_bytes"] is None
        (run.exports / MAIN_INT8 / lost).write_text(left)
    assert cost(run)["artifact_bytes"] is None
