"""Trials before a run: the batch, the rate and the epochs that they choose."""

from __future__ import annotations

import csv
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgewise.compress.retrain import retrain
from edgewise.data.dataset import load_dataset
from edgewise.errors import EdgewiseError, UsageError
from edgewise.model import Model
from edgewise.preprocess import Preprocess
from edgewise.run_folder import Run
from edgewise.training import trial
from edgewise.training.history import read_history
from edgewise.training.learner import Learner
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.training.start import preprocess_of
from edgewise.training.teacher import Teacher
from edgewise.training.trial import (
    TooLittleTime,
    best_batch,
    find_rate,
    plan_epochs,
    training_seconds,
)
from edgewise.weights.create import create_model
from edgewise.weights.folder import load_model, save_model


@given(
    fits=st.integers(8, 2000),
    most=st.integers(8, 1024),
    saturates=st.sampled_from([8, 32, 100, 9999]),
)
def test_the_batch_fits_and_a_larger_one_would_hardly_be_faster(
    fits: int, most: int, saturates: int
) -> None:
    """Speed grows with the batch up to a point, memory with the batch up to another."""

    def speed(batch: int) -> float | None:
        tried.append(batch)
        return float(min(batch, saturates)) ** 0.5 if batch <= fits else None

    tried: list[int] = []
    batch = best_batch(speed, most)
    assert batch is not None and batch <= fits and max(tried) <= most
    possible = min(fits, most)
    assert min(batch, saturates) >= 0.5 * min(possible, saturates) or possible - batch < 8
    assert len(tried) <= 15  # seven doublings, and six halvings of the last gap


def test_memory_that_ends_between_two_doublings_is_used() -> None:
    """The largest of 8, 16, 24 ... that fits, where speed grows without end."""
    assert best_batch(lambda batch: batch if batch <= 57 else None, 1024) == 56
    assert best_batch(lambda batch: None, 1024) is None
    assert best_batch(lambda batch: 100.0, 1024) == 8
    assert best_batch(lambda batch: 1.0, 5) == 5


@pytest.mark.parametrize(
    ("fits", "says"),
    [
        (13, r"batch of 16 at 32 pixels. 12 would fit: .*--batch 12, or with accumulate=2"),
        (5, r"4 would fit: .*--batch 4, or with accumulate=4"),
        (1, r"Not even 2 fit: use a smaller --imgsz"),
    ],
)
def test_a_gpu_without_enough_memory_says_what_would_fit(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: int, says: str
) -> None:
    step = Learner.step

    def short_of_memory(
        self: Learner, pixels: Tensor, labels: Tensor, number: int
    ) -> tuple[float, int]:
        if len(pixels) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(self, pixels, labels, number)

    monkeypatch.setattr(Learner, "step", short_of_memory)
    with pytest.raises(EdgewiseError, match=says):
        train(replace(recipe, batch=16, train_imgsz=32), tmp_path / "run")


def test_a_compressed_run_learns_in_parts_where_a_batch_does_not_fit(
    reference: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`compress` has no --batch."""
    loss, fits = Learner._loss, 13

    def short_of_memory(self: Learner, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if len(images) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return loss(self, images, targets)

    monkeypatch.setattr(Learner, "_loss", short_of_memory)
    model = load_model(reference.model)
    run = retrain(model, reference, tmp_path / "run", {}, epochs=1)
    recipe = Recipe.read(run.recipe)
    # Half the batch is too few for batch norm to learn from.
    assert (recipe.batch, recipe.accumulate, recipe.freeze_norm) == (16, 2, True)
    said = capsys.readouterr().out
    assert "memory for a batch of 16 at 32 pixels: each is computed in 2 parts\n" in said
    assert len(read_history(run)) == 1
    fits = 1
    advice = r"16 at 32 pixels\. End what .* go on with: edgewise train --resume .*other, or add"
    with pytest.raises(EdgewiseError, match=advice):
        retrain(model, reference, tmp_path / "other", {}, epochs=1)


@pytest.mark.parametrize("asked", [{"find_lr": True, "lr": 0.0}, {"minutes": 1.0, "epochs": 0}])
def test_a_trial_without_enough_memory_says_the_same(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    step = Learner.step

    def short_of_memory(
        self: Learner, pixels: Tensor, labels: Tensor, number: int
    ) -> tuple[float, int]:
        if len(pixels) > 13:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(self, pixels, labels, number)

    monkeypatch.setattr(Learner, "step", short_of_memory)
    with pytest.raises(
        EdgewiseError, match=r"batch of 16 at 32 pixels. 12 would fit: .*--batch 12"
    ):
        train(replace(recipe, **asked), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, r"go on with: edgewise train --resume .*run"),
        ({"find_lr": True, "lr": 0.0}, r"--batch\.$"),
        ({"minutes": 1.0, "epochs": 0}, r"--batch\.$"),
    ],
)
def test_a_decoding_process_that_dies_is_told_of(
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, Any],
    says: str,
) -> None:
    """In a training and in the trials before it: torch says so in the midst of a step."""

    def kill_one(*arguments: object) -> tuple[float, int]:
        multiprocessing.active_children()[0].kill()
        time.sleep(60)
        raise AssertionError("torch noticed nothing")

    monkeypatch.setattr(Learner, "step", kill_one)
    with pytest.raises(EdgewiseError, match=rf"DataLoader worker .*fewer --workers .*{says}"):
        train(replace(recipe, workers=2, **asked), tmp_path / "run")


def test_the_rate_is_below_where_learning_ends_and_above_where_it_is_slow(recipe: Recipe) -> None:
    """On a network of batch norms and AdamW, decades of experience say 1e-4 to 1e-2."""
    recipe = replace(recipe, train_imgsz=32, head_epochs=0, magnitude=0)
    dataset = load_dataset(Path(recipe.data), workers=1)
    found = find_rate(recipe, preprocess_of(recipe), dataset)
    ratios = np.diff(np.log(found.rates))
    assert np.allclose(ratios, ratios[0]) and found.rates[0] == trial.RATES[0]
    lowest = found.rates[int(np.argmin(found.losses))]
    assert found.chosen == pytest.approx(lowest / 10, rel=0.06)
    assert 1e-4 <= found.chosen <= 1e-1


def test_a_run_with_all_three(recipe: Recipe, tmp_path: Path) -> None:
    asked = replace(recipe, epochs=0, batch=0, find_batch=True, find_lr=True, minutes=0.1)
    run = train(asked, tmp_path / "run")
    told = Recipe.read(run.recipe)
    assert not told.find_batch and not told.find_lr and 8 <= told.batch <= 52
    assert len(read_history(run)) == told.epochs >= 1
    with (run.root / "lr_find.csv").open() as file:
        assert next(iter(csv.DictReader(file))).keys() == {"lr", "smoothed_loss"}
    assert (run.root / "lr_find.png").stat().st_size > 5_000
    train(told, run.root, resume=True)  # what was chosen is not chosen again


def test_time_too_short_for_an_epoch(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"one epoch takes about .* more than the 1e-05 given"):
        train(replace(recipe, epochs=0, minutes=1e-5), tmp_path / "run")
    with pytest.raises(UsageError, match="--epochs or --time, not both"):
        train(replace(recipe, epochs=2, minutes=1.0), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_start_of_the_workers_is_in_the_time_once(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """57 of 60 seconds are planned for: 7 to start with and ten epochs of 5."""
    monkeypatch.setattr(trial, "training_seconds", lambda *rest: (7.0, [5.0]))
    dataset = load_dataset(Path(recipe.data), workers=1)
    asked = replace(recipe, minutes=1.0, head_epochs=0)
    assert plan_epochs(asked, preprocess_of(recipe), dataset) == 10


def test_a_teacher_is_asked_in_the_steps_that_are_timed(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answers may take longer than the learning."""
    model = Model(create_model("tiny", 3), preprocess_of(recipe), ("0", "1", "4"))
    save_model(model, tmp_path / "teacher")
    asked = []
    own = Teacher.logits

    def logits(self: Teacher, inputs: Tensor, rule: Preprocess) -> Tensor:
        asked.append(len(inputs))
        return own(self, inputs, rule)

    def stop(*arguments: object) -> int:
        plan_epochs(*arguments)  # type: ignore[arg-type]
        raise EdgewiseError("that is all")

    monkeypatch.setattr(Teacher, "logits", logits)
    monkeypatch.setattr("edgewise.training.start.plan_epochs", stop)
    taught = replace(recipe, epochs=0, minutes=1.0, teacher=str(tmp_path / "teacher"))
    with pytest.raises(EdgewiseError, match="that is all"):
        train(taught, str(tmp_path / "run"))
    assert len(asked) > trial.WARM_STEPS


@pytest.mark.parametrize(
    ("seconds", "head_epochs", "planned"),
    [(10.0, 1, 6), (11.0, 1, 5), (50.0, 1, 1), (30.0, 5, 2), (18.0, 5, 5)],
)
def test_an_epoch_of_the_head_alone_takes_half_as_long(
    seconds: float, head_epochs: int, planned: int, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """57 seconds: 5.7 whole epochs are one of the head and five; 3.2 are four and one."""
    monkeypatch.setattr(trial, "training_seconds", lambda *rest: (0.0, [seconds]))
    dataset = load_dataset(Path(recipe.data), workers=1)
    asked = replace(recipe, minutes=1.0, head_epochs=head_epochs)
    assert plan_epochs(asked, preprocess_of(recipe), dataset) == planned


@pytest.mark.parametrize(("head_epochs", "planned"), [(0, 8), (5, 10)])
def test_epochs_of_later_stages_take_longer(
    head_epochs: int, planned: int, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """57 seconds: three epochs of 2 s, three of 8 and two of 10 are 50, one more would be 60.

    With the head alone in five: four of 1 s, one of 4, two of 8 and three of 10 are 54.
    """
    monkeypatch.setattr(trial, "training_seconds", lambda *rest: (0.0, [2.0, 8.0, 10.0]))
    dataset = load_dataset(Path(recipe.data), workers=1)
    asked = replace(recipe, minutes=1.0, head_epochs=head_epochs, stages=3)
    assert plan_epochs(asked, preprocess_of(recipe), dataset) == planned


def test_each_stage_is_timed_at_its_size(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    step, sizes = Learner.step, []

    def watched(self: Learner, pixels: Tensor, labels: Tensor, number: int) -> tuple[float, int]:
        sizes.append(pixels.shape[1])
        return step(self, pixels, labels, number)

    monkeypatch.setattr(Learner, "step", watched)
    asked = replace(recipe, stages=3, first_imgsz=16, train_imgsz=32, magnitude=0, head_epochs=1)
    dataset = load_dataset(Path(recipe.data), workers=1)
    start, seconds = training_seconds(asked, preprocess_of(recipe), dataset)
    assert list(dict.fromkeys(sizes)) == [16, 24, 32]
    assert start >= 0 and len(seconds) == 3 and min(seconds) > 0


def test_roughly_is_by_fewer_steps(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "TIMED_SECONDS", 0.0)
    monkeypatch.setattr(trial, "ROUGHLY", (0.0, trial.ROUGHLY[1]))
    step, taken = Learner.step, []

    def watched(self: Learner, pixels: Tensor, labels: Tensor, number: int) -> tuple[float, int]:
        taken.append(number)
        return step(self, pixels, labels, number)

    monkeypatch.setattr(Learner, "step", watched)
    dataset = load_dataset(Path(recipe.data), workers=1)
    many = replace(recipe, batch=4, head_epochs=0)
    for roughly in (False, True):
        taken.clear()
        training_seconds(many, preprocess_of(many), dataset, roughly=roughly)
        assert len(taken) == trial.WARM_STEPS + (2 if roughly else 5)


def test_time_too_short_for_an_epoch_of_each_stage(recipe: Recipe, tmp_path: Path) -> None:
    asked = replace(recipe, epochs=0, minutes=1e-5, stages=2, first_imgsz=16)
    advice = "2 epochs, one of each stage, take about .* Give more --time, or use fewer stages"
    with pytest.raises(TooLittleTime, match=advice):
        train(asked, tmp_path / "run")
    assert not (tmp_path / "run").exists()
