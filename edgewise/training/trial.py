"""Short trials before a run, with real steps: how large a batch, how high a rate, how many epochs.

What is learned in them is thrown away.
"""

from __future__ import annotations

import csv
import io
import math
import time
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgewise.data.cache import ImageCache
from edgewise.data.dataset import Dataset
from edgewise.data.loader import Batches
from edgewise.errors import EdgewiseError, UsageError
from edgewise.files import write_text
from edgewise.model import Classifier
from edgewise.preprocess import Preprocess
from edgewise.progress import Bar, bar
from edgewise.training.batches import recipe_batches
from edgewise.training.device import repeat_exactly
from edgewise.training.evaluate import (
    PixelsOf,
    classifier_function,
    images_at_once,
    predict_pixels,
)
from edgewise.training.learner import Learner
from edgewise.training.recipe import Recipe
from edgewise.training.teacher import Teacher

SMALLEST_BATCH, LARGEST_BATCH = 8, 1024
WARM_STEPS, TIMED_STEPS = 2, 5
TURNS = 3  # of two ways that are timed one after the other, a step to get warm and a timed one each
AS_FAST = 0.95  # of the highest images/s
FASTER = 1.03  # a doubling that brings less than this is the last

RATES = (1e-6, 1.0)
RATE_STEPS = 100
SMOOTHING = 0.9
DIVERGED = 4.0  # times the lowest loss
BELOW_LOWEST = 10.0

TIMED_SECONDS = 5.0
ROUGHLY = 2.0, 2  # seconds and steps, where it is only to tell a few steps from many
TIMED_VALIDATION = 4  # batches
HEAD_EPOCH = 0.5  # of an epoch's time: one in which only the head learns (0.4 to 0.55 measured)
SPARE = 0.95  # of the time given; the rest is for what was not foreseen


def find_batch(
    recipe: Recipe, preprocess: Preprocess, dataset: Dataset, teacher: Teacher | None = None
) -> int:
    """The smallest batch with which this machine trains about as fast as it can.

    Larger ones would be no faster, and make fewer steps. The steps are of the recipe's network at
    its training size, on pictures of noise.

    Raises:
        UsageError: not even the smallest batch fits into the GPU's memory.
    """
    most = min(len(dataset.splits["train"]), LARGEST_BATCH)
    speed_of = _trial_steps(recipe, preprocess, dataset, teacher)
    with bar("finding the batch", int(math.log2(most / SMALLEST_BATCH)) + 1) as steps:

        def images_per_second(batch: int) -> float | None:
            steps.advance(note=str(batch))
            return speed_of(batch)

        batch = best_batch(images_per_second, most)
    if batch is None:
        raise UsageError(
            f"the GPU has too little memory for {SMALLEST_BATCH} images of "
            f"{recipe.train_imgsz} pixels. Use a smaller --imgsz or --model."
        )
    return batch


def batch_that_fits(
    recipe: Recipe, preprocess: Preprocess, dataset: Dataset, teacher: Teacher | None = None
) -> int:
    """About the largest batch below the recipe's that the GPU has memory for; 0 if none of 2 is.

    It is found by real steps, to an eighth of the recipe's batch.
    """
    speed_of = _trial_steps(recipe, preprocess, dataset, teacher)
    fits, too_large = 0, recipe.batch
    while too_large - fits > max(1, recipe.batch // 8):
        batch = (fits + too_large) // 2
        if batch < 2:  # batch norm can't learn from one
            break
        if speed_of(batch) is None:
            too_large = batch
        else:
            fits = batch
    return fits


def _trial_steps(
    recipe: Recipe, preprocess: Preprocess, dataset: Dataset, teacher: Teacher | None
) -> Callable[[int], float | None]:
    """From a batch to its images/s in steps on noise; None if the GPU's memory is too small."""
    learner = _learner(recipe, preprocess, dataset, teacher)

    def speed_of(batch: int) -> float | None:
        try:
            return _speed(learner, *_noise(recipe, preprocess, dataset, batch))
        except torch.OutOfMemoryError:
            learner.optimizer.zero_grad()
            torch.cuda.empty_cache()
            return None

    return speed_of


def cost_of_determinism(
    recipe: Recipe, preprocess: Preprocess, dataset: Dataset, teacher: Teacher | None = None
) -> float:
    """How many times as long a step takes with `deterministic` as without it, on noise.

    The process is left as the recipe has it.

    Raises:
        RuntimeError: an operator has no deterministic version.
    """
    learner = _learner(recipe, preprocess, dataset, teacher)
    pixels, labels = _noise(recipe, preprocess, dataset, recipe.batch)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with bar("timing what --deterministic costs", 2 * TURNS) as turns:
        for _ in range(TURNS):
            for always, times in seconds.items():
                repeat_exactly(always)
                times.append(len(pixels) / _speed(learner, pixels, labels, 1, 1))
                turns.advance()
    repeat_exactly(recipe.deterministic)
    return min(seconds[True]) / min(seconds[False])


def best_batch(images_per_second: Callable[[int], float | None], most: int) -> int | None:
    """The smallest batch that is about as fast as the fastest that fits.

    Batches are doubled while it pays. Where the memory ends, the last gap is bisected in steps of
    the smallest batch.

    Args:
        images_per_second: of a batch; None if it doesn't fit into memory.
        most: the largest batch that may be tried.

    Returns:
        The batch, or None if none fits.
    """
    speeds: dict[int, float] = {}
    batch, too_large = min(SMALLEST_BATCH, most), most + 1
    while batch < too_large:
        speed = images_per_second(batch)
        if speed is None:
            too_large = batch
            break
        pays = speed > FASTER * max(speeds.values(), default=0.0)
        speeds[batch] = speed
        if not pays:
            too_large = 0  # memory is not what ends it
        batch *= 2
    low = max(speeds, default=0)
    while too_large <= most and too_large - low > SMALLEST_BATCH and low:
        middle = (low + too_large) // 2 // SMALLEST_BATCH * SMALLEST_BATCH
        if middle <= low:
            break
        speed = images_per_second(middle)
        if speed is None:
            too_large = middle
        else:
            low, speeds[middle] = middle, speed
    fast = [batch for batch, s in speeds.items() if s >= AS_FAST * max(speeds.values())]
    return min(fast, default=None)


@dataclass(frozen=True)
class RateTrial:
    """A range test of the learning rate (arXiv 1506.01186, section 3.3).

    Attributes:
        rates: of the steps, rising by the same factor from each to the next.
        losses: of the same steps, smoothed.
        chosen: a tenth of the rate at which the loss was lowest.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    chosen: float

    def write(self, folder: Path) -> None:
        """Writes `lr_find.csv`, and `lr_find.png` if matplotlib is installed."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("lr", "smoothed_loss"))
        writer.writerows(zip(self.rates, self.losses, strict=True))
        write_text(folder / "lr_find.csv", text.getvalue())
        with suppress(ImportError):
            self._draw(folder / "lr_find.png")

    def _draw(self, path: Path) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(self.rates, self.losses)
        axes.axvline(self.chosen, color="tab:orange", linestyle="--")
        axes.annotate(
            f" chosen: {self.chosen:.2g}", (self.chosen, max(self.losses)), color="tab:orange"
        )
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss, smoothed")
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=150)


class _RangeTest(Learner):
    """A learner whose rate rises step by step."""

    def learning_rate(self, number: int) -> float:
        low, high = RATES
        return float(low * (high / low) ** (number / (RATE_STEPS - 1)))


def find_rate(
    recipe: Recipe,
    preprocess: Preprocess,
    dataset: Dataset,
    cache: ImageCache | None = None,
    teacher: Teacher | None = None,
) -> RateTrial:
    """Learns with higher and higher rates, until the loss rises.

    Raises:
        EdgewiseError: the loss is not finite from the beginning.
    """
    learner = _learner(recipe, preprocess, dataset, teacher, _RangeTest)
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    with bar("finding the learning rate", RATE_STEPS) as steps:
        batches = _batches(recipe, preprocess, dataset, cache, range(RATE_STEPS))
        for number, (pixels, labels) in enumerate(islice(batches, RATE_STEPS)):
            try:
                loss, _ = learner.step(pixels, labels, number)
            except EdgewiseError:
                if not losses:
                    raise
                break
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            rates.append(learner.learning_rate(number))
            losses.append(mean / (1 - SMOOTHING ** (number + 1)))
            steps.advance(note=f"{rates[-1]:.1e}: loss {losses[-1]:.3f}")
            if losses[-1] > DIVERGED * min(losses):
                break
    chosen = rates[int(np.argmin(losses))] / BELOW_LOWEST
    digits = 1 - math.floor(math.log10(chosen))
    return RateTrial(tuple(rates), tuple(losses), round(chosen, digits))


class TooLittleTime(UsageError):
    """Not even one epoch, or one of each stage, fits into the time that was given."""

    def __init__(self, what: str, fewer: str = "") -> None:
        super().__init__(f"{what}. Give more --time, or use {fewer}a smaller --model or --imgsz.")
        self.what = what


def plan_epochs(
    recipe: Recipe,
    preprocess: Preprocess,
    dataset: Dataset,
    cache: ImageCache | None = None,
    teacher: Teacher | None = None,
) -> int:
    """How many epochs end within the recipe's `minutes`, by the time of some steps.

    Raises:
        TooLittleTime: not even one does, or not one for each of the recipe's stages.
    """
    assert recipe.minutes is not None
    start, of_stage = training_seconds(recipe, preprocess, dataset, cache, teacher)
    given, least = 60 * recipe.minutes, recipe.stages

    def seconds(epochs: int) -> float:
        each = np.array(of_stage)[np.arange(epochs) * least // epochs]
        # The head learns alone in its epochs, or in all but the last.
        each[: min(recipe.head_epochs, epochs - 1)] *= HEAD_EPOCH
        return start + float(each.sum())

    if seconds(least) > SPARE * given:
        takes = "one epoch takes" if least == 1 else f"{least} epochs, one of each stage, take"
        fewer = "" if least == 1 else "fewer stages, "
        raise TooLittleTime(
            f"{takes} about {seconds(least) / 60:.1f} minutes here, more than the "
            f"{recipe.minutes:.3g} given",
            fewer,
        )
    most = int(given / (HEAD_EPOCH * min(of_stage))) + least
    epochs = least - 1 + bisect_right(range(least, most + 1), SPARE * given, key=seconds)
    mean = sum(of_stage) / len(of_stage)
    print(f"{epochs:,} epochs of about {mean:.1f} s fit into {recipe.minutes:.3g} minutes")
    return epochs


def training_seconds(
    recipe: Recipe,
    preprocess: Preprocess,
    dataset: Dataset,
    cache: ImageCache | None = None,
    teacher: Teacher | None = None,
    roughly: bool = False,
) -> tuple[float, list[float]]:
    """How long training takes, by some steps: its start, and an epoch of each stage.

    The start is that of the processes that decode, which then serve all epochs. The epochs are ones
    in which everything learns, with their validation.

    Args:
        recipe: what is to be trained.
        preprocess: its model's.
        dataset: the images.
        cache: of decoded ones, if there is to be one.
        teacher: whose answers are learned from, if there is one.
        roughly: by fewer steps: within a tenth of what more of them say, in half of the time.
    """
    least = ROUGHLY if roughly else (TIMED_SECONDS, TIMED_STEPS)
    recipe = replace(recipe, epochs=recipe.stages, head_epochs=0)  # each epoch is a stage
    learner = _learner(recipe, preprocess, dataset, teacher)
    starts, learning = [], []
    with bar("timing some steps", recipe.stages * (WARM_STEPS + least[1])) as steps:
        for stage in range(recipe.stages):
            learner.begin_epoch(stage)
            batches = _batches(recipe, preprocess, dataset, cache, range(stage, stage + 1))
            begun, step = _step_seconds(learner, batches, least[0] / recipe.stages, least[1], steps)
            starts.append(begun)
            learning.append(step * len(batches))
    validation = _validation_seconds(recipe, learner, dataset)
    return starts[0], [seconds + validation for seconds in learning]


def _step_seconds(
    learner: Learner, batches: Batches, least: float, fewest: int, steps: Bar
) -> tuple[float, float]:
    """The time until batches come, and that of a step, by so many seconds of them or more."""
    began, times = time.monotonic(), [0.0]
    for number, (pixels, labels) in enumerate(batches):
        learner.step(pixels, labels, number)
        times.append(time.monotonic() - began)
        steps.advance()
        if times[-1] > least and len(times) > WARM_STEPS + fewest:
            break
    warm = min(WARM_STEPS, len(times) - 2)
    step = (times[-1] - times[warm]) / (len(times) - 1 - warm)
    return max(0.0, times[warm] - warm * step), step


def _validation_seconds(recipe: Recipe, learner: Learner, dataset: Dataset) -> float:
    samples = dataset.splits["val"]
    some = samples[: TIMED_VALIDATION * recipe.batch]
    classify = classifier_function(Classifier(learner.model(dataset.classes)), learner.device)
    how = learner.preprocess, images_at_once(recipe), recipe.workers or 0
    pixels = PixelsOf(some, *how)
    if PixelsOf(samples, *how).few:
        list(pixels)  # decoded in the first epoch, and kept
    began = time.monotonic()
    predict_pixels(classify, pixels)
    return (time.monotonic() - began) * len(samples) / len(some)


def _learner(
    recipe: Recipe,
    preprocess: Preprocess,
    dataset: Dataset,
    teacher: Teacher | None,
    kind: type[Learner] = Learner,
) -> Learner:
    """A new one of which everything learns."""
    images = list(dataset.counts()["train"].values())
    steps = math.ceil(sum(images) / recipe.batch)
    learner = kind(recipe, preprocess, images, steps, None, teacher, dataset.classes)
    learner.begin_epoch(recipe.head_epochs)
    return learner


def _batches(
    recipe: Recipe,
    preprocess: Preprocess,
    dataset: Dataset,
    cache: ImageCache | None,
    epochs: range,
) -> Batches:
    return recipe_batches(recipe, preprocess, dataset.splits["train"], epochs, cache=cache)


def _noise(
    recipe: Recipe, preprocess: Preprocess, dataset: Dataset, batch: int
) -> tuple[Tensor, Tensor]:
    """Pixels and labels of a batch at the recipe's training size."""
    size = recipe.train_imgsz or preprocess.size
    pixels = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)
    return pixels, torch.arange(batch) % len(dataset.classes)


def _speed(
    learner: Learner,
    pixels: Tensor,
    labels: Tensor,
    warm: int = WARM_STEPS,
    timed: int = TIMED_STEPS,
) -> float:
    """Images a second."""
    for number in range(warm):
        learner.step(pixels, labels, number)
    _wait(learner.device)
    began = time.monotonic()
    for number in range(timed):
        learner.step(pixels, labels, number)
    _wait(learner.device)
    return timed * len(pixels) / (time.monotonic() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
