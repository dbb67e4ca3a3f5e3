"""Training that goes on from a model folder."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
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
from edgewise.training.start import (
    create_run,
    preprocess_of,
    reopen_run,
    resolve,
    weights_licence,
)
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


def test_classes_keep_what_was_learned_of_them_by_their_names(
    onward: Recipe, reference: Run, digits: Path, tmp_path: Path
) -> None:
    """It knows 0, 1 and 4; here 1 and 4 come first and third, and the second is new to it."""
    for digit, name in (("1", "1"), ("0", "3, which it does not know"), ("4", "4")):
        shutil.copytree(digits / digit, tmp_path / "renamed" / name)
    still = replace(onward, data=str(tmp_path / "renamed"), epochs=1, lr=1e-9, calibrate=False)
    new = load_model(train(still, tmp_path / "run").model).network.head.classifier.weight
    old = load_model(reference.model).network.head.classifier.weight
    assert torch.allclose(new[[0, 2]], old[[1, 2]], atol=1e-5)
    assert (new[1] - old).norm(dim=1).min() > 0.5 * old.norm(dim=1).min()


@pytest.mark.parametrize("drop_path", [None, 0.1])
def test_the_same_classes_in_the_same_order_change_nothing(
    onward: Recipe, reference: Run, drop_path: float | None
) -> None:
    ready = resolve(replace(onward, drop_path=drop_path))
    labels = load_model(reference.model).labels
    plain, named = (
        Learner(ready, preprocess_of(ready), [4] * 3, 5, labels=told).network.state_dict()
        for told in ((), labels)
    )
    assert all(torch.equal(named[name], value) for name, value in plain.items())


def test_of_more_classes_the_known_ones_are_kept(onward: Recipe, reference: Run) -> None:
    ready = resolve(onward)
    labels = ["4", "5", "0", "1"]
    learner = Learner(ready, preprocess_of(ready), [4] * 4, 5, labels=labels)
    old = load_model(reference.model).network.head.classifier.state_dict()
    for name, new in learner.network.head.classifier.state_dict().items():
        assert torch.equal(new[[2, 3, 0]], old[name])
    assert not learner.network.head.classifier.bias[1].any()  # as fresh ones begin


def test_labels_that_an_import_made_up_are_in_the_order_of_the_data(
    onward: Recipe, reference: Run, tmp_path: Path
) -> None:
    model = load_model(reference.model)
    save_model(replace(model, labels=("class 0", "class 1", "class 2")), tmp_path / "imported")
    ready = resolve(replace(onward, model=str(tmp_path / "imported")))
    learner = Learner(ready, preprocess_of(ready), [4] * 3, 5, labels=("ant", "bee", "fly"))
    old = model.network.head.classifier.weight
    assert torch.equal(learner.network.head.classifier.weight, old)
    known = Learner(ready, preprocess_of(ready), [4] * 3, 5, labels=("ant", "class 0", "fly"))
    assert torch.equal(known.network.head.classifier.weight[1], old[0])
    assert not torch.equal(known.network.head.classifier.weight[0], old[0])
    plain = resolve(onward)  # whose labels are no made-up ones
    fresh = Learner(plain, preprocess_of(plain), [4] * 3, 5, labels=("ant", "bee", "fly"))
    assert not (fresh.network.head.classifier.weight == old).any()


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


def test_on_resume_a_folder_that_was_moved_is_named_anew(
    onward: Recipe, reference: Run, tmp_path: Path
) -> None:
    old, new, run = tmp_path / "old", tmp_path / "new", Run(tmp_path / "run")
    shutil.copytree(reference.root, old)
    with ExitStack() as claim:
        create_run(replace(onward, model=str(old), teacher=str(old)), run, claim)
    stored = Recipe.read(run.recipe)
    moved = replace(stored, model=str(new), teacher=str(new))
    shutil.copytree(old, new)
    with pytest.raises(UsageError, match="model can't be changed on resume"):
        reopen_run(moved, run)
    shutil.rmtree(old)
    with pytest.raises(UsageError, match=r"no such model folder: .*old"):
        reopen_run(stored, run)
    recipe, *_ = reopen_run(moved, run)
    assert (recipe.model, recipe.teacher) == (str(new / "model"), str(new))
    with pytest.raises(UsageError, match="model can't be changed on resume"):
        reopen_run(replace(stored, model="tiny"), run)


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


def test_the_licence_of_the_first_weights_goes_from_run_to_run(tmp_path: Path) -> None:
    runs = [Run(tmp_path / name) for name in ("first", "second", "third")]
    models = ("efficientnet_lite0", *(str(run.model) for run in runs))
    for run, model in zip(runs, models, strict=False):
        run.model.mkdir(parents=True)
        Recipe(data="photos", model=model, pretrained=run == runs[0]).write(run.recipe)
    for run in runs:
        assert weights_licence(run, Recipe.read(run.recipe)) == "Apache-2.0"
    own = Recipe(data="photos", model=str(tmp_path / "imported"), pretrained=False)
    (tmp_path / "imported").mkdir()
    assert weights_licence(runs[2], own) is None
    runs[0].recipe.write_text("{")
    assert weights_licence(runs[2], Recipe.read(runs[2].recipe)) is None


def test_the_licence_stays_when_the_first_run_is_gone(
    onward: Recipe, reference: Run, tmp_path: Path
) -> None:
    first, second = Run(tmp_path / "first"), Run(tmp_path / "second")
    shutil.copytree(reference.model, first.model)
    Recipe(data="photos", pretrained=True).write(first.recipe)
    with ExitStack() as claim:
        create_run(replace(onward, model=str(first.root)), second, claim)
    shutil.rmtree(first.root)
    assert weights_licence(second, Recipe.read(second.recipe)) == "Apache-2.0"


def test_bad_folders(onward: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a folder's own weights"):
        resolve(replace(onward, pretrained=True))
    with pytest.raises(UsageError, match="no such model folder"):
        resolve(replace(onward, model=str(tmp_path / "none")))
    with pytest.raises(UsageError, match=r"no model\.safetensors"):
        resolve(replace(onward, model=str(tmp_path)))
