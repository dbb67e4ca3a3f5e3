"""Training that goes on from a model folder."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgewise.errors import UsageError
from edgewise.run_folder import Run
from edgewise.training.learner import Learner
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.training.start import preprocess_of, resolve
from edgewise.weights.folder import load_model


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


def test_bad_folders(onward: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a folder's own weights"):
        resolve(replace(onward, pretrained=True))
    with pytest.raises(UsageError, match="no such model folder"):
        resolve(replace(onward, model=str(tmp_path / "none")))
    with pytest.raises(UsageError, match=r"no model\.safetensors"):
        resolve(replace(onward, model=str(tmp_path)))
