"""Making a run folder, and opening one again."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from dataclasses import fields, replace
from datetime import datetime, timezone
from pathlib import Path

import torch

from edgewise import __version__
from edgewise.data.dataset import Dataset, describe, load_dataset, read_dataset, write_dataset
from edgewise.errors import UsageError
from edgewise.families import variant
from edgewise.files import write_json
from edgewise.measure.latency import machine
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from edgewise.run_folder import Run
from edgewise.training import tensorboard
from edgewise.training.device import pick_device
from edgewise.training.recipe import Recipe
from edgewise.weights.pretrained import Checkpoint, choose, load_pretrained
from edgewise.weights.pretrained import resolve as resolve_name

LARGEST_DEFAULT_SIZE = 224
MOST_DEFAULT_WORKERS = 8
MAY_CHANGE_ON_RESUME = ("device", "workers")


def default_root(model: str, parent: Path) -> Path:
    """The first of `parent/MODEL-1`, `parent/MODEL-2` ... that does not exist."""
    number = 1
    while (parent / f"{model}-{number}").exists():
        number += 1
    return parent / f"{model}-{number}"


def create_run(recipe: Recipe, run: Run) -> tuple[Recipe, Dataset]:
    """Reads the data and makes the run folder; returns the recipe with every default resolved.

    Raises:
        UsageError: the folder is in use, the recipe can't be carried out here, or the data is no
            good. No folder was made.
    """
    if run.is_run(run.root):
        raise UsageError(
            f"{run.root} is a run already. Go on with it: edgewise train --resume {run.root}. "
            "Or choose another --name."
        )
    if run.root.exists() and (not run.root.is_dir() or any(run.root.iterdir())):
        raise UsageError(f"{run.root} holds something else already. Choose another --name.")
    recipe = resolve(recipe)
    dataset = load_dataset(Path(recipe.data), workers=recipe.workers or 1)
    print(describe(dataset), flush=True)
    write_dataset(dataset, run)
    write_json(run.environment, environment(recipe))
    recipe.write(run.recipe)  # last: it makes the folder a run
    return recipe, dataset


def reopen_run(recipe: Recipe, run: Run) -> tuple[Recipe, Dataset]:
    """Reads the data that a run was started with; returns the resolved recipe with it.

    Raises:
        UsageError: no such run, or `recipe` asks for something else than it did.
    """
    stored, recipe = Recipe.read(Run.open(run.root).recipe), resolve(recipe)
    for setting in fields(Recipe):
        name, was = setting.name, getattr(stored, setting.name)
        if name not in MAY_CHANGE_ON_RESUME and getattr(recipe, name) != was:
            raise UsageError(
                f"{name} can't be changed on resume: in {run.root} it is {was}. "
                "Leave it out, or start a new run."
            )
    return recipe, read_dataset(run)


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with every None and "auto" replaced by what they stand for on this machine.

    Pretrained weights are loaded once, which brings them to this machine: what is missing is said
    before the data is read.

    Raises:
        UsageError: no such model or device, its weights can't be had, or a package is missing.
        EdgewiseError: the weights can't be downloaded.
    """
    known = variant(resolve_name(recipe.model).name)
    if recipe.stages > recipe.epochs:
        raise UsageError(
            f"{recipe.stages} stages need at least as many epochs, not {recipe.epochs}"
        )
    if recipe.accumulate * 2 > recipe.batch:
        raise UsageError(
            f"a batch of {recipe.batch} can't be computed in {recipe.accumulate} parts: batch norm "
            "needs two images or more in each"
        )
    if recipe.precision == "fp16" and pick_device(recipe.device).type != "cuda":
        raise UsageError("fp16 needs an NVIDIA GPU; on a CPU use bf16 or fp32.")
    if recipe.tensorboard:
        tensorboard.require()
    pretrained = recipe.pretrained is not False
    if pretrained:
        try:
            checkpoint = starting_point(recipe.model)
        except UsageError as error:
            if recipe.pretrained:
                raise
            pretrained = False
            print(f"{recipe.model} starts from nothing, which takes many more images: {error}")
        else:
            load_pretrained(checkpoint.model, checkpoint.tag, checkpoint.width)
    return replace(
        recipe,
        pretrained=pretrained,
        head_epochs=min(recipe.head_epochs, recipe.epochs - 1) if pretrained else 0,
        imgsz=recipe.imgsz or min(known.input_size, LARGEST_DEFAULT_SIZE),
        workers=_cores() if recipe.workers is None else recipe.workers,
        device=str(pick_device(recipe.device)),
    )


def starting_point(model: str) -> Checkpoint:
    """The published weights that training starts from under this name, ours or timm's.

    Raises:
        UsageError: there are none, or none that allows commercial use and none was asked for.
    """
    name, width, _, tag = resolve_name(model)
    return choose(name, tag, width)


def preprocess_of(recipe: Recipe) -> Preprocess:
    """The rule from an image to the input of a resolved recipe's network.

    Mean, std and interpolation are those of the pretrained weights. The crop keeps the whole
    height or width: on a user's photos the object is often near an edge.
    """
    size = recipe.imgsz or LARGEST_DEFAULT_SIZE
    if recipe.pretrained:
        return replace(starting_point(recipe.model).preprocess, size=size, crop=1.0)
    return Preprocess(size, 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD)


def environment(recipe: Recipe) -> dict[str, str | int]:
    """What `environment.json` holds: the versions, the machine and the command."""
    return {
        "edgewise": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **machine(),
        "device": _device_name(recipe.device),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return device


def _cores() -> int:
    return min(os.cpu_count() or 1, MOST_DEFAULT_WORKERS)
