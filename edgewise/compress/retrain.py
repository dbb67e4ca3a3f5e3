"""A run of a model that was made of another run's: the same data, learned from the old answers."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewise.data.dataset import read_dataset, write_dataset
from edgewise.errors import UsageError
from edgewise.files import claimed, holds_more_than, read_json, remove_halves, write_json
from edgewise.model import Model
from edgewise.run_folder import Run
from edgewise.shell import command_line
from edgewise.training.defaults import NORM_NEEDS, fit
from edgewise.training.device import pick_device
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.training.start import TooLittleMemory, environment, resolve, weights_licence
from edgewise.weights.folder import incoming_of, save_model

GENTLY = 0.1  # of the original run's rate, for what has only to get used to a small change


def retrain(
    model: Model,
    original: Run,
    root: Path,
    facts: dict[str, Any],
    epochs: int = 0,
    rate: float = 1.0,
    qat: bool = False,
) -> Run:
    """Makes the run `root` and trains `model` in it, with the original's model as its teacher.

    Data, split and settings are the original run's, but for a device that is not here. Everything
    learns from the first epoch on, at one size of image; where a GPU has no room for a batch beside
    the teacher, from the same batch in parts. What was stopped goes on with `edgewise train
    --resume`, as any run.

    Args:
        model: to begin with; kept as `Run.start`.
        original: the run that it was made of.
        root: of the new run.
        facts: plain values for `Run.compression`: what was done to the model.
        epochs: how many; 0 for as many as the original had.
        rate: of learning, in parts of what the original, or the first run it comes from, had.
        qat: whether it learns with weights and inputs rounded as in int8.

    Raises:
        UsageError: `root` is in use, or the original run has no model or no images any more.
        Stopped, Diverged, EdgewiseError: see `train`.
    """
    new = Run(root)
    check_unused(root)
    dataset = read_dataset(original.trained())
    old = Recipe.read(original.recipe)
    with claimed(root):
        check_unused(root)  # another process may have been faster
        for path in (*_first_files(new), new.recipe):
            remove_halves(path)
        save_model(model, new.start)
        recipe = fit(resolve(_retraining(old, original, new, epochs, rate, qat)), dataset)
        write_dataset(dataset, new)
        licence = weights_licence(original, old)
        write_json(new.compression, {**facts, "rate": rate, "weights_licence": licence})
        write_json(new.environment, environment(recipe))
        recipe.write(new.recipe)  # last: it makes the folder a run
    while True:
        try:
            return train(recipe, root, resume=True)
        except TooLittleMemory as error:
            recipe = _in_parts(recipe, new, error)
        with claimed(root):
            recipe.write(new.recipe)


def _in_parts(recipe: Recipe, run: Run, error: TooLittleMemory) -> Recipe:
    """The recipe with its batch in parts that fit, as `compress` has no option for it.

    Raises:
        TooLittleMemory: there are none, or it has learned from whole batches before.
    """
    parts = min(error.parts, recipe.batch // 2)  # batch norm can't learn from one image
    if parts <= recipe.accumulate or run.checkpoints.exists():
        go_on = command_line("train", "--resume", run.root)
        advice = f"End what else fills it and go on with: {go_on}, or add --device cpu."
        raise TooLittleMemory(error.what, advice) from error
    print(f"{error.what}: each is computed in {parts} parts", flush=True)
    freeze = recipe.freeze_norm or recipe.batch < NORM_NEEDS * parts
    return replace(recipe, accumulate=parts, freeze_norm=freeze)


def _retraining(
    old: Recipe, original: Run, new: Run, epochs: int, rate: float, qat: bool
) -> Recipe:
    recipe = replace(
        old,
        model=str(new.start),
        pretrained=False,
        teacher=str(original.root),
        epochs=epochs or old.epochs,
        lr=float(f"{rate * old.lr / _rate_of(original):.12g}"),  # not 0.00030000000000000003
        minutes=None,
        head_epochs=0,
        stages=1,
        find_batch=False,
        find_lr=False,
    )
    recipe = _as_can_be_had(recipe)
    if not qat:
        return recipe
    # Batch norm stays as it is: then images must be as large as those it was measured on.
    return replace(recipe, qat=True, precision="fp32", freeze_norm=True, train_imgsz=old.imgsz)


def _as_can_be_had(recipe: Recipe) -> Recipe:
    """For this machine: the original run may have been trained on another, which had a GPU."""
    try:
        device = pick_device(recipe.device)
    except UsageError:
        device = pick_device("auto")
        print(f"there is no device '{recipe.device}' here: trained on '{device}'", file=sys.stderr)
        recipe = replace(recipe, device=str(device))
    if device.type == "cuda":
        return recipe
    precision = "fp32" if recipe.precision == "fp16" else recipe.precision
    return replace(recipe, precision=precision, sync_batch_norm=False)


def _rate_of(run: Run) -> float:
    """The `rate` that it was made with. Without it, two gentle steps would learn at a hundredth."""
    made_of = read_json(run.compression) if run.compression.is_file() else {}
    return float(made_of.get("rate", 1.0))


def check_unused(root: Path) -> None:
    """Whether a run can be made in `root`: it is no file, and holds no more than what is left of a
    start that was killed before `retrain` wrote the recipe.

    Raises:
        UsageError: it can't.
    """
    run = Run(root)
    left = (*_first_files(run), run.recipe, run.start, incoming_of(run.start))
    if run.is_run(root) or holds_more_than(root, left):
        raise UsageError(f"{root} holds something already. Choose another --name.")


def _first_files(run: Run) -> tuple[Path, ...]:
    return run.data, run.split, run.quarantine, run.compression, run.environment
