"""Making a run folder, and opening one again."""

from __future__ import annotations

import math
import os
import platform
import shlex
import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict, fields, replace
from datetime import datetime, timezone
from pathlib import Path

import torch

from edgewise import __version__
from edgewise.data.cache import ImageCache
from edgewise.data.dataset import Dataset, describe, load_dataset, read_dataset, write_dataset
from edgewise.data.loader import worker_lost
from edgewise.errors import EdgewiseError, UsageError
from edgewise.families import variant
from edgewise.files import (
    claimed,
    holds_more_than,
    is_folder,
    read_json,
    remove_halves,
    write_json,
)
from edgewise.measure.latency import machine
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from edgewise.run_folder import Run
from edgewise.training import tensorboard
from edgewise.training.batches import cache_of
from edgewise.training.defaults import check, check_first_stage, fit, has_learned
from edgewise.training.device import pick_device
from edgewise.training.recipe import Recipe
from edgewise.training.teacher import TIMM, Teacher, load_teacher
from edgewise.training.trial import (
    RateTrial,
    batch_that_fits,
    cost_of_determinism,
    find_batch,
    find_rate,
    plan_epochs,
)
from edgewise.training.world import job_of_torchrun, of_torchrun, resume_command
from edgewise.weights.folder import load_model
from edgewise.weights.pretrained import Checkpoint, choose, load_pretrained
from edgewise.weights.pretrained import resolve as resolve_name

LARGEST_DEFAULT_SIZE = 224
MAIN = "__main__.py"
MOST_DEFAULT_WORKERS = 8
MAY_CHANGE_ON_RESUME = ("device", "workers")
MAY_MOVE = ("model", "teacher")  # folders


def create_run(
    recipe: Recipe, run: Run, claim: ExitStack, dataset: Dataset | None = None
) -> tuple[Recipe, Dataset, ImageCache | None]:
    """Reads the data, unless it is given, and makes the run folder.

    Args:
        recipe: what to do.
        run: the new run.
        claim: keeps other processes out of the folder until it is closed.
        dataset: the images, where they were read before.

    Returns:
        The recipe with every default resolved, the data, and the training images if they are
        cached.

    Raises:
        UsageError: the folder is in use, the recipe can't be carried out here, or the data is no
            good. No folder was made.
        EdgewiseError: there is too little room for the cache. No folder was made.
    """
    _check_free(run)
    if recipe.epochs and recipe.minutes:
        raise UsageError("give --epochs or --time, not both")
    check_first_stage(recipe)
    parent = next(path for path in run.root.absolute().parents if path.exists())
    if not os.access(parent, os.W_OK):
        raise UsageError(f"can't write in {parent}: make it writable, or train in another folder.")
    recipe = resolve(recipe)
    if dataset is None:
        dataset = load_dataset(Path(recipe.data), workers=recipe.workers or 1)
        print(describe(dataset), flush=True)
    teacher = teacher_of(recipe, dataset)
    cache = cache_of(fit(recipe, dataset, of_torchrun().size), preprocess_of(recipe), dataset)
    recipe, found = _tried(recipe, dataset, cache, teacher)
    _check_free(run)  # all of this took a while, in which another process may have made it
    claim.enter_context(claimed(run.root))
    _check_free(run)
    for path in (*_first_files(run), run.recipe):
        remove_halves(path)
    write_dataset(dataset, run)
    made = environment(recipe) | {"weights_licence": _licence_of_start(recipe)}
    write_json(run.environment, made)
    recipe.write(run.recipe)  # last: it makes the folder a run
    if found:
        found.write(run.root)
    return recipe, dataset, cache


def _check_free(run: Run) -> None:
    """Whether a run can be made here.

    Raises:
        UsageError: the folder is a run, or holds more than a start that was killed leaves there.
    """
    if run.is_run(run.root):
        raise UsageError(
            f"{run.root} is a run already. Go on with it: {resume_command(run.root)}. "
            "Or choose another --name."
        )
    if holds_more_than(run.root, (*_first_files(run), run.recipe)):
        raise UsageError(f"{run.root} holds something else already. Choose another --name.")


def _first_files(run: Run) -> tuple[Path, ...]:
    """What is written before the recipe, which makes the folder a run."""
    return run.environment, run.data, run.split, run.quarantine


def reopen_run(recipe: Recipe, run: Run) -> tuple[Recipe, Dataset, ImageCache | None]:
    """Reads the data that a run was started with; returns what `create_run` does.

    Raises:
        UsageError: no such run, or `recipe` asks for something else than it did.
    """
    stored = Recipe.read(Run.open(run.root).recipe)
    for name, place in _moved(stored, run).items():
        if getattr(recipe, name) == getattr(stored, name):  # as it was read from the run
            recipe = replace(recipe, **{name: place})  # type: ignore[arg-type]
        stored = replace(stored, **{name: place})  # type: ignore[arg-type]
    # That of a run of an older version may be relative.
    stored = replace(stored, teacher=_whole_path(stored.teacher))
    open_settings = {
        name: getattr(stored, name)
        for name, value in asdict(recipe).items()
        if value is None or (name in ("epochs", "batch", "lr") and value == 0)
    }
    dataset = read_dataset(run)
    recipe = fit(resolve(replace(recipe, **open_settings)), dataset, of_torchrun().size)
    for setting in fields(Recipe):
        name, was, now = setting.name, getattr(stored, setting.name), getattr(recipe, setting.name)
        moved = name in MAY_MOVE and was and _has_moved(Path(was), Path(now))
        if name not in MAY_CHANGE_ON_RESUME and not moved and now != was:
            raise UsageError(
                f"{name} can't be changed on resume: in {run.root} it is {was}. "
                "Leave it out, or start a new run."
            )
    return recipe, dataset, cache_of(recipe, preprocess_of(recipe), dataset)


def _moved(stored: Recipe, run: Run) -> dict[str, str]:
    """Where a run that was made of another's has its model and its teacher since it was moved.

    A recipe keeps their whole paths. The teacher is looked for beside the run, if it was there.
    """
    if not run.start.is_dir():
        return {}
    places, before = {"model": str(run.start.resolve())}, Path(stored.model).parent
    teacher = Path(stored.teacher or "")
    beside = run.root.resolve().parent / teacher.name
    if teacher.parent == before.parent and not is_folder(teacher) and is_folder(beside):
        places["teacher"] = str(beside)
    return places


def _has_moved(was: Path, now: Path) -> bool:
    """Whether a folder may be this one by now. The checkpoint tells whether what is in it fits."""
    return was.is_absolute() and not is_folder(was) and is_folder(now)


def resolve(recipe: Recipe, fetch: bool = True) -> Recipe:
    """The recipe with what is open chosen for this machine; `defaults.fit` does it for the data.

    Pretrained weights are loaded once, which brings them to this machine: what is missing is said
    before the data is read. Without `fetch` they are only looked up.

    Raises:
        UsageError: no such model or device, its weights can't be had, or a package is missing.
        EdgewiseError: the weights can't be downloaded.
    """
    if recipe.folder:
        folder = recipe.folder.resolve()
        folder = Run(folder).trained().model if Run.is_run(folder) else folder
        recipe = replace(recipe, model=str(folder))
        own = load_model(folder)
        if (channels := own.network.spec.in_chans) != 3:
            raise UsageError(
                f"{folder} takes images of {channels} channels, and those to learn from have 3. "
                f"Make one that does: edgewise.create_model('{folder}', in_chans=3), and save it."
            )
        if not has_learned(own.network):
            print(f"{folder} starts from nothing, which takes many more images: it never learned")
        own_size = own.preprocess.size
    else:
        own_size = variant(resolve_name(recipe.model).name).input_size
    check(recipe)
    if recipe.precision == "fp16" and pick_device(recipe.device).type != "cuda":
        raise UsageError("fp16 needs an NVIDIA GPU; on a CPU use bf16 or fp32.")
    if recipe.qat and recipe.precision != "fp32":
        raise UsageError("qat rounds to 8 bits itself, in fp32: leave precision out.")
    if recipe.sync_batch_norm and pick_device(recipe.device).type != "cuda":
        raise UsageError(
            "sync_batch_norm works between NVIDIA GPUs only. Leave it out, or train a network that "
            "has no batch norm, such as convnext_atto."
        )
    if recipe.tensorboard:
        tensorboard.require()
    return replace(
        recipe,
        pretrained=_can_start_pretrained(recipe, fetch),
        teacher=_whole_path(recipe.teacher),
        imgsz=recipe.imgsz or min(own_size, LARGEST_DEFAULT_SIZE),
        workers=_cores() if recipe.workers is None else recipe.workers,
        device=str(pick_device(recipe.device)),
    )


def _can_start_pretrained(recipe: Recipe, fetch: bool) -> bool:
    """Whether it starts from ImageNet weights, which are then on this machine."""
    if recipe.folder:
        if recipe.pretrained:
            raise UsageError(
                "pretrained is for a model's name: training goes on from a folder's own weights."
            )
        return False
    if recipe.pretrained is False:
        return False
    try:
        checkpoint = starting_point(recipe.model)
    except UsageError as error:
        if recipe.pretrained:
            raise
        print(f"{recipe.model} starts from nothing, which takes many more images: {error}")
        return False
    if fetch:
        load_pretrained(checkpoint.model, checkpoint.tag, checkpoint.width)
    return True


def starting_point(model: str) -> Checkpoint:
    """The published weights that training starts from under this name, ours or timm's.

    Raises:
        UsageError: there are none, or none that allows commercial use and none was asked for.
    """
    name, width, _, tag = resolve_name(model)
    return choose(name, tag, width)


def weights_licence(run: Run, recipe: Recipe) -> str | None:
    """The licence of the published weights that a run's are made of, as an SPDX identifier.

    None where it started from fresh ones, or from a folder of which nobody said it. What began
    with another run's model has that run's, which may be gone by now: it is kept from the start.
    """
    for file in (run.environment, run.compression):
        told: dict[str, str | None] = read_json(file) if file.is_file() else {}
        if "weights_licence" in told:
            return told["weights_licence"]
    return _licence_of_start(recipe)  # it is of an older version


def _licence_of_start(recipe: Recipe) -> str | None:
    """The same by what a recipe starts from."""
    if recipe.pretrained:
        return starting_point(recipe.model).licence
    before = Run(recipe.folder.parent) if recipe.folder else None
    with suppress(UsageError, OSError):  # it was edited since, or may not be read
        if before and before.model == recipe.folder and Run.is_run(before.root):
            return weights_licence(before, Recipe.read(before.recipe))
    return None


def preprocess_of(recipe: Recipe) -> Preprocess:
    """The rule from an image to the input of a resolved recipe's network.

    Mean, std and interpolation are those of the pretrained weights. The crop keeps the whole
    height or width: on a user's photos the object is often near an edge. A model folder's rule
    stays as it is, but for the size.
    """
    size = recipe.imgsz or LARGEST_DEFAULT_SIZE
    if recipe.folder:
        return replace(load_model(recipe.folder).preprocess, size=size)
    if recipe.pretrained:
        return replace(starting_point(recipe.model).preprocess, size=size, crop=1.0)
    return Preprocess(size, 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD)


def _tried(
    recipe: Recipe, dataset: Dataset, cache: ImageCache | None, teacher: Teacher | None
) -> tuple[Recipe, RateTrial | None]:
    """The recipe with what is open chosen: by the data, or by trials where it asks for them.

    Raises:
        UsageError: a setting doesn't suit the data, or there is too little time.
        EdgewiseError: in a trial the GPU had too little memory, the loss was not finite from the
            beginning, or a process that decodes was killed.
    """
    processes = of_torchrun().size
    asked = replace(recipe, find_batch=False, find_lr=False)
    if processes > 1 and (recipe.minutes or asked != recipe):
        raise UsageError(
            "--batch auto, --lr find and --time are for a single process. Find them without "
            "torchrun, and give their values."
        )
    preprocess, found = preprocess_of(recipe), None
    chosen = fit(asked, dataset, processes)
    try:
        if recipe.find_batch:
            asked = replace(asked, batch=find_batch(chosen, preprocess, dataset, teacher))
            chosen = fit(asked, dataset)
            print(f"batch: {chosen.batch}", flush=True)
        if recipe.find_lr:
            found = find_rate(chosen, preprocess, dataset, cache, teacher)
            asked = replace(asked, lr=found.chosen)
            chosen = fit(asked, dataset)
            print(f"learning rate: {chosen.lr:g}", flush=True)
        if recipe.deterministic and processes == 1:
            cost = cost_of_determinism(chosen, preprocess, dataset, teacher)
            print(f"--deterministic: a step takes {cost:.2f} times as long as without", flush=True)
        if recipe.minutes:
            epochs = plan_epochs(chosen, preprocess, dataset, cache, teacher)
            chosen = fit(replace(asked, epochs=epochs), dataset)
    except torch.OutOfMemoryError:
        pass  # what the trial holds goes with its error, and is to be tried with
    except RuntimeError as error:
        lost = worker_lost(error)
        if lost is None:
            raise
        raise lost from error
    else:
        return chosen, found
    raise too_little_memory(chosen, dataset, processes)


class TooLittleMemory(EdgewiseError):
    """A GPU had no room for a step; `what` says of which batch, and the message what would fit.

    `parts` is the `accumulate` with which the same batch would; 0 if none was found.
    """

    def __init__(self, what: str, advice: str, parts: int = 0) -> None:
        super().__init__(f"{what}. {advice}")
        self.what, self.parts = what, parts


def too_little_memory(recipe: Recipe, dataset: Dataset, processes: int) -> TooLittleMemory:
    """What to say where a GPU had no room for a step of a resolved recipe: it tries what would fit.

    What the step needed has to be free by now.
    """
    torch.cuda.empty_cache()
    batch = recipe.batch // 2
    if processes == 1 and batch:
        teacher = teacher_of(recipe, dataset)
        batch = batch_that_fits(recipe, preprocess_of(recipe), dataset, teacher)
    parts = recipe.accumulate * math.ceil(recipe.batch / batch) if batch else 0
    advice = (
        f"{batch} would fit: train again with --batch {batch}, or with accumulate={parts} (the "
        "same batch in parts) or precision=bf16."
        if batch
        else "Not even 2 fit: use a smaller --imgsz or --model, or precision=bf16."
    )
    what = (
        f"the GPU has too little memory for a batch of {recipe.batch} at {recipe.train_imgsz} "
        "pixels"
    )
    return TooLittleMemory(what, advice, parts)


def teacher_of(recipe: Recipe, dataset: Dataset) -> Teacher | None:
    """The teacher that a resolved recipe names, if it names one.

    Raises:
        UsageError: there is no such model, or it doesn't know the classes.
    """
    if recipe.teacher is None:
        return None
    return load_teacher(recipe.teacher, dataset.classes, pick_device(recipe.device))


def made_by_this_torchrun(run: Run) -> bool:
    """Whether it is a run, and one that this torchrun began before it lost a process."""
    job = job_of_torchrun()
    if job is None or not Run.is_run(run.root) or not run.environment.is_file():
        return False
    made: dict[str, str | int] = read_json(run.environment)
    return made.get("torchrun") == job


def environment(recipe: Recipe) -> dict[str, str | int]:
    """What `environment.json` holds of here and now: the versions, the machine, the command."""
    program, job = Path(sys.argv[0]).name, job_of_torchrun()
    return {
        "edgewise": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **machine(),
        "device": _device_name(recipe.device),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        # `python -m edgewise`, as torchrun calls it, is the same program under another name.
        "command": shlex.join(["edgewise" if program == MAIN else program, *sys.argv[1:]]),
        **({"torchrun": job} if job else {}),
    }


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return device


def _whole_path(teacher: str | None) -> str | None:
    """A run may be resumed from another folder."""
    if teacher is None:
        return None
    if teacher.startswith(TIMM):
        name, _, file = teacher.removeprefix(TIMM).partition(":")
        return f"{TIMM}{name}:{Path(file).resolve()}" if file else teacher
    return str(Path(teacher).resolve())


def _cores() -> int:
    return min(os.cpu_count() or 1, MOST_DEFAULT_WORKERS)
