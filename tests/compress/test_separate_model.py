"""From a run or a folder to the folder of a smaller model, and on from there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from photos import picture, write_photos
from small import small_model
from torch import nn

from edgewise.compress.separate_model import separate_model
from edgewise.data.dataset import load_dataset, write_dataset
from edgewise.deploy.export import export
from edgewise.deploy.predictor import open_predictor
from edgewise.errors import EdgewiseError, UsageError
from edgewise.files import sha256_file
from edgewise.layers import Separated
from edgewise.run_folder import Run
from edgewise.training.recipe import Recipe
from edgewise.weights.create import adapt_stem, create_model
from edgewise.weights.folder import load_model, save_model

COUNTS = {"café": 12, "cat": 14}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Not to be changed."""
    root = tmp_path_factory.mktemp("separate")
    dataset = load_dataset(write_photos(root / "photos", COUNTS), workers=1)
    made = Run(root / "run")
    made.root.mkdir()
    Recipe(data="photos", workers=0).write(made.recipe)
    write_dataset(dataset, made)
    save_model(small_model("resnet18", dataset.classes, size=33), made.model)
    return made


def pixels(source: Path) -> np.ndarray:
    preprocess = load_model(source).preprocess
    return np.stack([preprocess.pixels(picture(seed)) for seed in range(6)])


def test_a_run_is_fitted_on_its_training_images(run: Run, tmp_path: Path) -> None:
    before = sha256_file(run.weights)
    report = separate_model(run.root, tmp_path / "smaller", rank=None, macs=0.5)
    rows = (run.split.read_text(encoding="utf-8").splitlines())[1:]
    assert report.images == sum(",train," in row for row in rows) > 0
    assert report.macs[1] <= 0.5 * report.macs[0]
    assert sha256_file(run.weights) == before
    whole, smaller = load_model(run.model), load_model(tmp_path / "smaller")
    assert (smaller.labels, smaller.preprocess) == (whole.labels, whole.preprocess)
    assert smaller.network.spec.name.endswith("_separated")
    assert report.params[1] == sum(p.numel() for p in smaller.network.parameters())


def test_the_folder_trains(run: Run, tmp_path: Path) -> None:
    separate_model(run.root, tmp_path / "smaller", rank=1, macs=None)
    network = create_model(tmp_path / "smaller", num_classes=5, in_chans=1)
    layer = next(module for module in network.modules() if isinstance(module, Separated))
    before = layer.depthwise.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    loss = nn.functional.cross_entropy(network(torch.randn(4, 1, 33, 33)), torch.arange(4))
    loss.backward()
    optimizer.step()
    assert not torch.equal(layer.depthwise.weight, before)


def test_the_folder_exports_and_answers(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "smaller"
    separate_model(run.root, folder, rank=2, macs=None)
    artifact = export(folder, "onnx", output=tmp_path / "export")
    images = pixels(folder)
    answers = [
        open_predictor(source).probabilities(images) for source in (folder, artifact.path.parent)
    ]
    assert np.abs(answers[0] - answers[1]).max() < 1e-4
    assert np.ptp(answers[0], axis=0).max() > 0.05  # they are of the pictures


def test_a_folder_needs_images_of_its_own(run: Run, tmp_path: Path) -> None:
    plain = separate_model(run.model, tmp_path / "plain", rank=2, macs=None)
    photos = run.root.parent / "photos"
    fitted = separate_model(run.model, tmp_path / "fitted", 2, None, calibrate=photos)
    assert plain.images == 0 < fitted.images <= sum(COUNTS.values())
    with torch.inference_mode():
        images = load_model(run.model).preprocess.normalise(torch.from_numpy(pixels(run.model)))
        wanted, rough, near = (
            load_model(folder).network(images)
            for folder in (run.model, tmp_path / "plain", tmp_path / "fitted")
        )
    assert (near - wanted).norm() < 0.9 * (rough - wanted).norm()


def test_messages_are_of_what_the_images_are_for(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path / "photos", {"cat": 3, "dog": 2})
    separate_model(run.model, tmp_path / "fitted", 1, calibrate=tmp_path / "photos")
    assert "such as 'dog'; the separated kernels will fit" in capsys.readouterr().err
    with pytest.raises(UsageError, match="separated kernels that are fitted to other pictures"):
        separate_model(run.root, tmp_path / "other", 1, calibrate=tmp_path / "photos")
    for path in (tmp_path / "photos").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(EdgewiseError, match=r"separated kernels are .* none of 5 can be read"):
        separate_model(run.model, tmp_path / "other", 1, calibrate=tmp_path / "photos")
    assert "int8" not in capsys.readouterr().err


def test_a_wrong_call_writes_nothing(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "smaller"
    for rank, macs, message in ((1, 0.5, "Leave out one"), (50, None, "rank 50 makes no layer")):
        with pytest.raises(UsageError, match=message):
            separate_model(run.model, output, rank, macs)
    with pytest.raises(UsageError, match="no such file or folder"):
        separate_model(tmp_path / "none", output, 1, None)
    save_model(small_model("mobilenet_v2", ("a", "b"), size=33), tmp_path / "v2")
    with pytest.raises(UsageError, match="nothing to take apart"):
        separate_model(tmp_path / "v2", output, 1, None)
    grey = small_model("resnet18", ("a", "b"), size=33)
    grey = replace(grey, network=adapt_stem(grey.network, 1))
    save_model(grey, tmp_path / "grey")
    with pytest.raises(UsageError, match=r"grey takes images of 1 channels.*in_chans=3\)"):
        separate_model(tmp_path / "grey", output, calibrate=run.root.parent / "photos")
    assert not output.exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("mine")
    with pytest.raises(UsageError, match="not a model folder"):
        separate_model(run.model, tmp_path / "full", 1, None)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["diary.txt"]
