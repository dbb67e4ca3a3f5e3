"""Training that goes on from a model folder."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgewise.data.dataset import load_dataset
from edgewise.errors import UsageError
from edgewise.families import variant
from edgewise.model import Model
from edgewise.network import build
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from edgewise.run_folder import Run
from edgewise.training.defaults import fit
from edgewise.training.learner import Learner
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.training.start import preprocess_of, resolve
from edgewise.weights.folder import load_model, save_model


@pytest.fixture
def onward(recipe: Recipe, reference: Run) -> Recipe:
    return replace(recipe, model=str(reference.model), pretrained=None)


def test_it_begins_with_the_folders_weights(onward: Recipe, reference: Run) -> None:
    ready = resolve(onward)
    assert (ready.model, ready.pretrained) == (str(reference.model), False)
    learner = Learner(ready, preprocess_of(ready), [4, 4, 4], steps_per_epoch=5)
    before = load_model(reference.model).network.state_dict()
    after = learner.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_other_classes_get_a_fresh_classifier(onward: Recipe, reference: Run) -> None:
    ready = resolve(onward)
    learner = Learner(ready, preprocess_of(ready), [4, 4], steps_per_epoch=5)
    before = load_model(reference.model).network
    assert torch.equal(learner.network.stem.conv.weight, before.stem.conv.weight)
    assert learner.network.head.classifier.out_features == 2


def test_a_run_stands_for_its_model_and_its_size_for_ours(onward: Recipe, reference: Run) -> None:
    told = replace(onward, model=os.path.relpath(reference.root), imgsz=None)
    ready = resolve(told)
    assert (ready.model, ready.imgsz) == (str(reference.model), 32)
    assert preprocess_of(ready) == load_model(reference.model).preprocess


def test_it_trains_the_head_first_and_resumes(
    onward: Recipe, reference: Run, tmp_path: Path
) -> None:
    run = train(replace(onward, epochs=2), tmp_path / "run")
    stored = Recipe.read(run.recipe)
    assert stored.head_epochs == 1
    again = train(stored, run.root, resume=True)
    assert load_model(again.model).network.spec == load_model(reference.model).network.spec


@pytest.mark.parametrize(("name", "width"), [("tiny", 1.0), ("convnext_atto", 0.2)])
def test_a_fresh_network_of_ones_own_starts_from_nothing(
    onward: Recipe, name: str, width: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = build(variant(name).spec(width, classes=3))
    network(torch.randn(2, 3, 64, 64))  # batch norm's statistics alone are no knowledge
    rule = Preprocess(64, 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD)
    save_model(Model(network, rule, ("0", "1", "4")), tmp_path / "own")
    ready = resolve(replace(onward, model=str(tmp_path / "own"), batch=8, lr=0.0))
    assert "own starts from nothing" in capsys.readouterr().out
    data = load_dataset(Path(onward.data), workers=1)
    fresh = replace(ready, model="tiny", pretrained=False)
    assert replace(fit(ready, data), model="tiny") == fit(fresh, data)
    with torch.no_grad():
        network.head.classifier.bias[0] += 1e-3  # as after a step
    save_model(Model(network, rule, ("0", "1", "4")), tmp_path / "own")
    assert fit(ready, data).head_epochs == 1 and fit(ready, data).freeze_norm


def test_bad_folders(onward: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a folder's own weights"):
        resolve(replace(onward, pretrained=True))
    with pytest.raises(UsageError, match="no such model folder"):
        resolve(replace(onward, model=str(tmp_path / "none")))
    with pytest.raises(UsageError, match=r"no model\.safetensors"):
        resolve(replace(onward, model=str(tmp_path)))
