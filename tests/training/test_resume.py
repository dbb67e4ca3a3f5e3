"""A run that is stopped or killed goes on, and ends with exactly the same weights."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commandline import edgewise
from tiny import python

from edgewise.compress.retrain import retrain
from edgewise.data.loader import Batches
from edgewise.errors import EdgewiseError, UsageError
from edgewise.run_folder import Run
from edgewise.training import checkpoint, loop
from edgewise.training.batches import recipe_batches
from edgewise.training.checkpoint import load_checkpoint
from edgewise.training.history import EpochMetrics, read_history
from edgewise.training.interrupt import Stopped
from edgewise.training.learner import Learner
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.weights.folder import load_model

STEPS = 4  # in an epoch of the reference run


def same(run: Run, reference: Run) -> bool:
    """Whether two runs kept the same weights, to the bit, and saw the same figures."""
    files = [each.weights.read_bytes() for each in (run, reference)]
    figures = [
        [replace(epoch, images_per_second=0, seconds=0) for epoch in read_history(each)]
        for each in (run, reference)
    ]
    return files[0] == files[1] and figures[0] == figures[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("batch", [1, STEPS + 2, 2 * STEPS])
def test_stopped_and_resumed_equals_uninterrupted(
    recipe: Recipe,
    reference: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    number: int,
) -> None:
    step, steps = Learner.step, []

    def step_with_signal(self: Learner, *arguments: Any) -> tuple[float, int]:
        steps.append(arguments)
        if len(steps) == batch:
            os.kill(os.getpid(), number)
        return step(self, *arguments)

    monkeypatch.setattr(Learner, "step", step_with_signal)
    with pytest.raises(Stopped, match="go on with: edgewise train --resume") as stopped:
        train(recipe, tmp_path)
    assert stopped.value.exit_status == 128 + number
    assert len(steps) == batch  # the batch at hand was finished, no other begun
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert same(train(recipe, tmp_path, resume=True), reference)
    assert len(steps) == 3 * STEPS  # none was done twice


def test_a_signal_after_the_last_batch_is_not_forgotten(
    recipe: Recipe,
    reference: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A search would begin its next rung, and `timeout` sends one SIGTERM only."""
    write = loop.write_history

    def write_with_signal(run: Run, history: list[EpochMetrics]) -> None:
        write(run, history)
        if len(history) == recipe.epochs:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_history", write_with_signal)
        with pytest.raises(Stopped, match="go on with: edgewise train --resume") as stopped:
            train(recipe, tmp_path)
    assert stopped.value.exit_status == 128 + signal.SIGTERM
    assert same(train(recipe, tmp_path, resume=True), reference)
    assert "nothing left to do" in capsys.readouterr().out


def test_stopped_at_an_epochs_end_it_goes_on_in_more_processes(
    recipe: Recipe,
    tmp_path: Path,
    stop_at: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """52 images are 4 batches, but 3 of three processes: the last 4 images join those before."""
    stop_at(STEPS)
    with pytest.raises(Stopped):
        train(recipe, tmp_path)

    def of_three(*arguments: Any, share: tuple[int, int], **rest: Any) -> Batches:
        return recipe_batches(*arguments, share=(0, 3), **rest)

    monkeypatch.setattr(loop, "recipe_batches", of_three)
    history = read_history(train(recipe, tmp_path, resume=True))
    assert [epoch.epoch for epoch in history] == [1, 2, 3]


def test_a_run_made_of_anothers_goes_on_where_it_was_moved(
    reference: Run, tmp_path: Path, stop_at: Callable[[int], None]
) -> None:
    """Its recipe names what it begins with, and its teacher, by where they were."""
    before, after = tmp_path / "before", tmp_path / "after"
    first = Run(shutil.copytree(reference.root, before / "first"))
    stop_at(1)
    with pytest.raises(Stopped):
        retrain(load_model(first.model), first, before / "second", {}, epochs=1)
    before.rename(after)
    run = Run((after / "second").rename(after / "renamed"))
    assert edgewise("train", "--resume", run.root).status == 0
    assert run.weights.is_file()
    said = edgewise("train", "--resume", run.root, "--model", "tiny")
    assert said.status == 2 and f"in {run.root} it is {run.start}" in said.errors


def test_second_signal_stops_at_once(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: Learner, *arguments: Any) -> tuple[float, int]:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    monkeypatch.setattr(Learner, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_writing() -> None:
    write, calls = checkpoint.write_atomic, []

    def write_or_die(path: Path, whole: Callable[[Any], object]) -> None:
        def half(file: Any) -> None:
            file.write(b"half")
            file.flush()
            die()

        calls.append(path)
        write(path, half if len(calls) == 6 else whole)

    checkpoint.write_atomic = write_or_die  # type: ignore[assignment]


def die_renaming() -> None:
    replace, calls = Path.replace, []

    def rename(self: Path, target: Path) -> None:
        replace(self, target)
        if Path(target).name == "previous.safetensors":
            calls.append(target)
            if len(calls) == 6:
                die()

    Path.replace = rename  # type: ignore[assignment, method-assign]


def die_after_the_model() -> None:
    write = loop.write_history

    def write_and_die(run: Run, history: list[EpochMetrics]) -> None:
        write(run, history)
        if len(history) == 2:
            die()

    loop.write_history = write_and_die


# Where a kill hurts most: with half a checkpoint on the disk, between its two renames, and when the
# model of an epoch is saved but its checkpoint is not.
KILLS = {
    "writing": die_writing,
    "renaming": die_renaming,
    "after the model": die_after_the_model,
}


def train_to_death(where: str, recipe: Recipe, root: Path) -> None:
    KILLS[where]()
    loop.SECONDS_BETWEEN_CHECKPOINTS = 0
    train(recipe, root)


@pytest.mark.parametrize("where", KILLS)
def test_killed_and_resumed_equals_uninterrupted(
    recipe: Recipe, reference: Run, tmp_path: Path, where: str
) -> None:
    """In a fork of this process: a new one takes longer to import torch than to train."""
    fork = multiprocessing.get_context("fork")
    killed = fork.Process(target=train_to_death, args=(where, recipe, tmp_path / "run"))
    killed.start()
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    assert same(train(recipe, tmp_path / "run", resume=True), reference)


def test_killed_before_the_first_checkpoint_starts_again(
    recipe: Recipe, reference: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Learner, "step", lambda *arguments: 1 / 0)
        train(recipe, tmp_path)
    assert same(train(recipe, tmp_path, resume=True), reference)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_signal_to_all_processes(
    name: str,
    recipe: Recipe,
    reference: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As Ctrl-C in a terminal and `timeout` send it: to the workers too, and SIGTERM twice."""
    interrupted = f"""
        import os, signal, sys
        from edgewise.training.learner import Learner
        from edgewise.cli.main import main
        step = Learner.step
        def step_with_interrupt(self, pixels, labels, number):
            if number == 5:
                os.killpg(os.getpgrp(), signal.{name})
                if signal.{name} == signal.SIGTERM:
                    os.killpg(os.getpgrp(), signal.SIGTERM)
            return step(self, pixels, labels, number)
        Learner.step = step_with_interrupt
        main()
    """
    options = (
        f"train {recipe.data} --model tiny --no-pretrained --imgsz 32 --epochs 3 --batch 16 "
        f"--no-flip --workers 2 --device cpu --name first"
    )
    stopped = python(interrupted, *options.split(), folder=tmp_path)
    assert stopped.returncode == 128 + signal.Signals[name], stopped.stderr
    assert "stopped; go on with: edgewise train --resume runs/first" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    state, _ = load_checkpoint(Run(tmp_path / "runs" / "first"))
    assert state is not None  # the batch at hand was finished and saved
    assert (state["progress"]["epoch"], state["progress"]["batch"]) == (1, 2)

    monkeypatch.chdir(tmp_path)
    resumed = edgewise("train", "--resume", "runs/first", "--workers", 0)
    assert resumed.status == 0, resumed.errors
    assert "edgewise eval runs/first" in resumed.output
    assert same(Run(tmp_path / "runs" / "first"), reference)


def test_run_with_a_cut_off_checkpoint_goes_on_and_says_so(
    recipe: Recipe, reference: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(recipe, tmp_path)
    last = run.checkpoints / "last.safetensors"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    assert same(train(recipe, tmp_path, resume=True), reference)
    assert "last.safetensors is cut off" in capsys.readouterr().err


def test_start_that_was_killed_can_be_started_again(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it had written the recipe, which makes a folder a run."""
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Recipe, "write", lambda self, path: 1 / 0)
        train(recipe, tmp_path)
    (tmp_path / ".recipe.json.123.tmp").write_text("{")
    assert (tmp_path / "data.json").is_file() and not Run.is_run(tmp_path)
    train(replace(recipe, epochs=1), tmp_path)
    assert not (tmp_path / ".recipe.json.123.tmp").exists()


def test_no_other_process_goes_on_with_a_run_under_way(
    recipe: Recipe, reference: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgewise.files.PATIENCE", 0.1)
    step, refused = Learner.step, []

    def step_beside_another(self: Learner, *arguments: Any) -> tuple[float, int]:
        if arguments[-1] in (0, STEPS):  # of a run that is new, and of one that was resumed
            with pytest.raises(UsageError, match="another process is at work in") as error:
                train(recipe, tmp_path, resume=True)
            refused.append(error)
        if arguments[-1] == 2 and len(refused) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments)

    monkeypatch.setattr(Learner, "step", step_beside_another)
    with pytest.raises(Stopped):
        train(recipe, tmp_path)
    assert same(train(recipe, tmp_path, resume=True), reference)
    assert len(refused) == 2


def test_resume_refuses_another_recipe(reference: Run, recipe: Recipe) -> None:
    with pytest.raises(UsageError, match=r"epochs can't be changed on resume.*is 3"):
        train(replace(recipe, epochs=9), reference.root, resume=True)


def test_resume_of_a_finished_run_does_nothing(
    reference: Run, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (reference.checkpoints / "last.safetensors").stat().st_mtime_ns
    train(recipe, reference.root, resume=True)
    assert "nothing left to do" in capsys.readouterr().out
    assert (reference.checkpoints / "last.safetensors").stat().st_mtime_ns == before


def test_checkpoint_of_another_recipe_is_named(recipe: Recipe, tmp_path: Path) -> None:
    run = train(replace(recipe, epochs=1), tmp_path)
    edited = replace(Recipe.read(run.recipe), model="mobilenet_v3_small")
    edited.write(run.recipe)
    with pytest.raises(EdgewiseError, match=r"doesn't fit .*recipe\.json"):
        train(edited, tmp_path, resume=True)


def test_only_a_finished_run_may_be_where_nothing_can_be_written(
    recipe: Recipe,
    reference: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(folder: Path) -> None:
        raise EdgewiseError(f"can't write in {folder}")

    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in root.rglob("*")}

    root = shutil.copytree(reference.root, tmp_path / "copy")
    monkeypatch.setattr(loop, "claimed", refuse)
    before = written()
    train(recipe, root, resume=True)
    assert "nothing left to do" in capsys.readouterr().out
    assert written() == before
    checkpoints = Run(root).checkpoints
    (checkpoints / "previous.safetensors").replace(checkpoints / "last.safetensors")
    before = written()
    with pytest.raises(EdgewiseError, match=r"can't write in .*copy"):
        train(recipe, root, resume=True)
    assert written() == before
