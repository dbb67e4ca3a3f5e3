"""A small run that is exported once; each test gets a copy that it may break."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from photos import write_photos
from small import small_model

from edgewise.data.dataset import load_dataset, write_dataset
from edgewise.deploy.export import export
from edgewise.run_folder import Run
from edgewise.training.recipe import Recipe
from edgewise.weights.folder import save_model

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
