"""A small run that is exported once, each test gets a copy that it may break; int8 graphs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from int8_graphs import LABELS, SIZE, batches, pixels_of
from photos import write_photos
from small import small_model

from edgewise.data.dataset import load_dataset, write_dataset
from edgewise.deploy.export import export
from edgewise.deploy.onnx import graph_of
from edgewise.deploy.quantize import Calibrated, calibrate
from edgewise.model import Model
from edgewise.run_folder import Run
from edgewise.training.recipe import Recipe
from edgewise.weights.folder import save_model

FAMILIES = ("efficientnet_lite0", "mobilenet_v2", "mobilenet_v3_small", "convnext_atto")
COUNTS = {"café": 16, "犬": 20, "cat": 18}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Not to be changed; `run` is a copy of it."""
    root = tmp_path_factory.mktemp("deploy")
    dataset = load_dataset(write_photos(root / "photos", COUNTS), workers=1)
    run = Run(root / "runs" / "first")
    run.root.mkdir(parents=True)
    Recipe(data="photos", workers=0).write(run.recipe)
    write_dataset(dataset, run)
    save_model(small_model("efficientnet_lite0", dataset.classes, size=33), run.model)
    export(run.root)
    return run


@pytest.fixture
def run(exported: Run, tmp_path: Path) -> Run:
    """An exported run, with its photos, to change at will."""
    shutil.copytree(exported.root.parents[1], tmp_path / "copy")
    run = Run(tmp_path / "copy" / "runs" / "first")
    data = json.loads(run.data.read_text())
    run.data.write_text(json.dumps({**data, "root": str(tmp_path / "copy" / "photos")}))
    return run


@pytest.fixture(scope="session", params=FAMILIES)
def made(request: pytest.FixtureRequest) -> tuple[Model, Any, Calibrated]:
    """A network, its float graph and the same calibrated; not to be changed."""
    model = small_model(request.param, LABELS, SIZE)
    torch.manual_seed(0)
    with torch.no_grad():  # the exporter makes one constant of all that are 0
        for name, parameter in model.network.named_parameters():
            if name.endswith("bias") and request.param == "convnext_atto":
                parameter.add_(0.01 * torch.randn_like(parameter))
    proto = graph_of(model)
    return model, proto, calibrate(proto, batches(pixels_of(model, 24)))


@pytest.fixture(scope="session")
def lite() -> tuple[Model, Any, Calibrated]:
    """The same of the one network that most tests need."""
    model = small_model("efficientnet_lite0", LABELS, SIZE)
    proto = graph_of(model)
    return model, proto, calibrate(proto, batches(pixels_of(model, 24)))
