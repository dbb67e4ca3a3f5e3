"""What TensorBoard's own reader finds in a run."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from edgewise.errors import EdgewiseError, UsageError
from edgewise.run_folder import Run
from edgewise.training import loop
from edgewise.training.history import EpochMetrics, read_history
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.training.tensorboard import epoch_log


def shown(run: Run) -> dict[str, list[tuple[int, float]]]:
    """The steps and values of each scalar."""
    events = EventAccumulator(str(run.tensorboard)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_a_killed_and_resumed_run_shows_each_epoch_once(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, run = replace(recipe, tensorboard=True), Run(tmp_path / "run")
    saves = []

    def killed_at_the_second(*of: object) -> None:
        saves.append(of)
        if len(saves) == 2:  # epoch 2 is logged, but the checkpoint is still that of epoch 1
            raise KeyboardInterrupt
        save(*of)  # type: ignore[arg-type]

    save = loop.save_checkpoint
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "save_checkpoint", killed_at_the_second)
        train(asked, run.root)
    assert {step for step, _ in shown(run)["val_loss"]} == {1, 2}

    train(asked, run.root, resume=True)
    history = read_history(run)
    scalars = shown(run)
    assert set(scalars) == set(asdict(history[0])) - {"epoch", "phase"}
    for name, points in scalars.items():
        values = [(epoch.epoch, getattr(epoch, name)) for epoch in history]
        assert points == [(step, pytest.approx(value, rel=1e-6)) for step, value in values], name


def test_nothing_is_logged_unless_asked(reference: Run) -> None:
    assert not reference.tensorboard.exists()


def test_without_the_package_nothing_begins(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'edgewise\[tensorboard\]'"):
        train(replace(recipe, tensorboard=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.tensorboard.write_text("a file")
    log = epoch_log(run, True)
    with pytest.raises(EdgewiseError, match=r"can't write .*tensorboard.*--resume"):
        log(EpochMetrics(1, "all", 0.1, 1.0, 0.5, 1.0, 0.5, 0.5, 0.5, 100.0, 1.0))
