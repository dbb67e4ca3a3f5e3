"""Training in a search: short trials on the user's data, of which the better ones go on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch

from edgewise.data.dataset import Dataset, Sample, read_dataset
from edgewise.errors import UsageError
from edgewise.run_folder import Run
from edgewise.search.decisions import Numbers
from edgewise.search.pace import steps_in
from edgewise.search.request import RUNS, SearchFolder
from edgewise.training.defaults import fit
from edgewise.training.divergence import Diverged
from edgewise.training.history import kept_epoch, read_history
from edgewise.training.loop import train
from edgewise.training.metrics import wilson
from edgewise.training.recipe import Recipe
from edgewise.training.start import TooLittleMemory, preprocess_of, resolve, too_little_memory
from edgewise.training.trial import TooLittleTime, training_seconds

FEWEST = 10  # images of a class in a trial on a part of the data
RETRIES = 3  # at half the rate, where training diverges: nobody is there to set another


@dataclass(frozen=True)
class Trainer:
    """Trains networks on one split of one data set.

    Attributes:
        dataset: with the three splits.
        seed: of everything random.
        device: that training uses, see `pick_device`.
        workers: processes that decode; None for one a core.
        settings: more of the recipe's, by their names.
    """

    dataset: Dataset
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    settings: tuple[tuple[str, object], ...] = ()

    def train(self, model: str, imgsz: int, minutes: float, root: Path, **settings: object) -> Run:
        """A run of about so many minutes; one that is there already goes on where it was.

        Where not even one epoch would fit, it learns from a part of the images.

        Args:
            model: a network's name, or a model folder to go on from.
            imgsz: height and width of the input, in pixels.
            minutes: to plan for.
            root: of the run.
            settings: more of the recipe's.

        Raises:
            TooLittleTime: not even an epoch of a few images of each class fits.
            Stopped, Diverged, EdgewiseError: see `edgewise.training.loop.train`.
        """
        if Run.is_run(root):
            return train(Recipe.read(Run(root).recipe), root, resume=True)
        recipe = self._recipe(model, imgsz, minutes=minutes, **settings)
        images = self.dataset
        while True:
            try:
                return train(recipe, root, dataset=images)
            except TooLittleTime:
                smaller = few(images, len(images.splits["train"]) // 2)
                if smaller is None:
                    raise
                images = smaller

    def time_epoch(self, model: str, imgsz: int, pretrained: bool) -> tuple[float, float]:
        """Seconds that an epoch with its validation would take, and the steps in it: `steps_in`.

        Raises:
            TooLittleMemory: the GPU has no room for a step.
            EdgewiseError: pretrained weights can't be downloaded.
        """
        recipe = fit(resolve(self._recipe(model, imgsz, pretrained=pretrained)), self.dataset)
        try:
            rule = preprocess_of(recipe)
            _, seconds = training_seconds(recipe, rule, self.dataset, roughly=True)
        except torch.OutOfMemoryError:
            pass  # what it holds goes with its error, and is to be tried with
        else:
            return fmean(seconds), steps_in(len(self.dataset.splits["train"]), recipe.batch)
        raise too_little_memory(recipe, self.dataset, processes=1)

    def _recipe(self, model: str, imgsz: int, **settings: object) -> Recipe:
        return Recipe(
            data=str(self.dataset.root),
            model=model,
            imgsz=imgsz,
            seed=self.seed,
            device=self.device,
            workers=self.workers,
            retries=RETRIES,
            **{**dict(self.settings), **settings},  # type: ignore[arg-type]
        )


def outcome(run: Run) -> Numbers:
    """What a run's kept epoch reached on the images that the search selects by."""
    best = kept_epoch(read_history(run))
    images = len(read_dataset(run).splits["val"])
    low, high = wilson(round(best.val_accuracy * images), images)
    return {
        "epochs": Recipe.read(run.recipe).epochs,
        "score": best.score,
        "accuracy": best.val_accuracy,
        "low": low,
        "high": high,
        "images": images,
    }


def tried(work: Callable[[], Numbers]) -> Numbers:
    """What a training reached; or its "failure" and a score of 0: the search goes on without it.

    "out" is there where more time would not help.
    """
    try:
        return work()
    except TooLittleTime as error:
        return {"score": 0.0, "failure": error.what}
    except Diverged as error:
        return {"score": 0.0, "failure": f"training diverged: {error.what}", "out": True}
    except TooLittleMemory as error:
        return {"score": 0.0, "failure": error.what, "out": True}


def follow_move(folder: SearchFolder) -> None:
    """Names models and teachers in the recipes of a search's runs by where the search is now.

    A run keeps their whole paths, and could not be gone on with once the folder was moved.
    """
    for path in (path for kind in RUNS for path in (folder.root / kind).rglob("recipe.json")):
        recipe = Recipe.read(path)
        moved = {
            name: str(folder.at(was).resolve())
            for name, was in (("model", recipe.model), ("teacher", recipe.teacher))
            if was and Path(was).is_absolute() and not Path(was).exists()
        }
        if moved:
            replace(recipe, **moved).write(path)  # type: ignore[arg-type]


def few(dataset: Dataset, most: int) -> Dataset | None:
    """The same with about `most` training images, each class in proportion; None if too few.

    Which ones stay is told by their contents: fewer are always a part of more.
    """
    samples = dataset.splits["train"]
    if most < FEWEST * len(dataset.classes) or most >= len(samples):
        return None
    by_label: dict[int, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: sample.sha256):
        by_label[sample.label].append(sample)
    kept = {
        sample.path
        for own in by_label.values()
        for sample in own[: max(FEWEST, round(most * len(own) / len(samples)))]
    }
    part = tuple(sample for sample in samples if sample.path in kept)
    return replace(dataset, splits={**dataset.splits, "train": part})


def with_test(dataset: Dataset) -> Dataset:
    """The same with images to test on: where there are none, every other one of each class of val.

    Copies of an image stay together, under whatever labels they are.

    Raises:
        UsageError: val has too few of them to be parted.
    """
    if dataset.splits["test"]:
        return dataset
    val = dataset.splits["val"]
    label_of = {sample.sha256: sample.label for sample in val}
    by_label: dict[int, list[str]] = defaultdict(list)
    for sha256, label in sorted(label_of.items()):
        by_label[label].append(sha256)
    test = {sha256 for own in by_label.values() for sha256 in own[1::2]}
    if not test:
        raise UsageError(
            "a search needs images to choose by and others to test on, and val has one of each "
            "class, without copies. Put more images in val, or some in a folder test."
        )
    return replace(
        dataset,
        splits={
            **dataset.splits,
            "val": tuple(sample for sample in val if sample.sha256 not in test),
            "test": tuple(sample for sample in val if sample.sha256 in test),
        },
    )
