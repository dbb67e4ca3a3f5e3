"""How good a trained model is, on images that it has not learned from."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edgewise.data.containers import check_whole
from edgewise.data.dataset import Dataset, Sample, read_dataset
from edgewise.data.decode import ImageError, decode_bytes, quiet_pillow
from edgewise.data.loader import evaluation_batches
from edgewise.errors import EdgewiseError, UsageError, unknown
from edgewise.files import sha256_file, write_json, write_text
from edgewise.model import Classifier
from edgewise.preprocess import Preprocess
from edgewise.progress import track
from edgewise.run_folder import Run
from edgewise.training.device import pick_device
from edgewise.training.metrics import (
    CalibrationBin,
    ClassScore,
    calibration,
    class_scores,
    confusion_matrix,
    expected_calibration_error,
    top_k_accuracy,
)
from edgewise.training.recipe import Recipe
from edgewise.training.rounding import as_learned
from edgewise.weights.folder import load_model

KEPT_BYTES = 2**28  # of pixels: 1,700 images of 224 px
MOST_AT_ONCE = 128  # images that are classified: more would hardly be faster

Classify = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Skipped:
    """An image of the split that could not be used, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """What `eval/SPLIT.json` holds.

    Attributes:
        split: "train", "val" or "test".
        model_sha256: of the weights that were evaluated.
        images: how many were classified.
        skipped: those that could not be.
        top1: the part whose most probable class is right.
        top5: the part whose class is among the five most probable; None with five classes or fewer.
        ece: expected calibration error, over `calibration`.
        classes: the labels, in the order of rows and columns.
        confusion: images of each true class (row) predicted as each class (column).
        per_class: scores of each class.
        calibration: accuracy by confidence.
    """

    split: str
    model_sha256: str
    images: int
    skipped: tuple[Skipped, ...]
    top1: float
    top5: float | None
    ece: float
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    per_class: tuple[ClassScore, ...]
    calibration: tuple[CalibrationBin, ...]


def evaluate(run: Run, split: str | None = None, device: str = "auto") -> Evaluation:
    """Evaluates the best model of a run; writes `eval/SPLIT.json` and `eval/SPLIT.csv`.

    One that learned to compute in int8 answers as it does in int8.

    Args:
        run: a run folder.
        split: "train", "val" or "test"; None for test, or val if there are no test images.
        device: where to run the model; see `pick_device`.

    Raises:
        UsageError: no model yet, no such split, nothing in it, or no image of it can be read.
        EdgewiseError: a container such as a tar shard is cut off; a part of it is not evaluated.
    """
    dataset = read_dataset(run.trained())
    split = split or ("test" if dataset.splits["test"] else "val")
    if split not in dataset.splits:
        raise unknown("split", split, dataset.splits)
    samples = dataset.splits[split]
    bad = [item for item in dataset.quarantined if item.split == split]
    if not samples and not bad:
        there = " or ".join(name for name, members in dataset.splits.items() if members)
        raise UsageError(f"{run.root} has no images in the split {split}. Give --split {there}.")
    check_whole([*(sample.path for sample in samples), *(item.path for item in bad)])
    skipped = [Skipped(dataset.relative(item.path), item.reason) for item in bad]
    model, recipe = load_model(run.model), Recipe.read(run.recipe)
    classify = classifier_function(Classifier(as_learned(model)), pick_device(device))
    batch, workers = images_at_once(recipe), recipe.workers or 0
    try:
        probabilities = predict_samples(classify, samples, model.preprocess, batch, workers)
    except ImageError:  # a file went bad since the data was checked: list it, evaluate the others
        samples, gone = _readable(dataset, samples)
        skipped += gone
        probabilities = predict_samples(classify, samples, model.preprocess, batch, workers)
    if not samples:
        raise UsageError(f"no image in the split {split} of {dataset.root} can be read")
    digest = sha256_file(run.weights)
    evaluation = _measure(split, digest, samples, probabilities, dataset.classes, skipped)
    _write(run, dataset, evaluation, samples, probabilities)
    return evaluation


def images_at_once(recipe: Recipe, processes: int = 1) -> int:
    """How many images are classified at a time: no more than memory has had room to learn from.

    Args:
        recipe: with nothing left open.
        processes: that share the images.
    """
    return max(1, min(MOST_AT_ONCE, recipe.batch // (recipe.accumulate * processes)))


def predict_samples(
    classify: Classify,
    samples: Sequence[Sample],
    preprocess: Preprocess,
    batch: int,
    workers: int,
) -> NDArray[np.float32]:
    """The probabilities (N, classes) of samples, in their order.

    Args:
        classify: uint8 (N, H, W, 3) pixels -> probabilities (N, classes), for a batch.
        samples: the images.
        preprocess: the rule from a file to pixels.
        batch: images at a time.
        workers: processes that decode; 0 decodes in this one.

    Raises:
        ImageError: a file can't be read, or holds other bytes than it did; the message names it.
        EdgewiseError: the GPU has too little memory for a batch.
    """
    pixels = PixelsOf(samples, preprocess, batch, workers)
    pixels.few = False  # they are gone through once
    return predict_pixels(classify, pixels)


def predict_pixels(classify: Classify, pixels: PixelsOf) -> NDArray[np.float32]:
    """`predict_samples` of images that may be decoded already."""
    parts = []
    for batch in track(pixels, "evaluating", len(pixels)):
        try:
            parts.append(classify(batch))
        except torch.OutOfMemoryError as error:
            raise EdgewiseError(
                f"the GPU has too little memory to classify {len(batch)} images of "
                f"{batch.shape[1]} pixels at once. End what else is at work on it; or train again "
                "with a larger accumulate, which makes them fewer, or with a smaller --imgsz."
            ) from error
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


class PixelsOf:
    """The pixels of some images, batch by batch: uint8 (N, H, W, 3).

    They are decoded each time that they are gone through, or only once if they are few enough to
    be kept: then no process is started for them again.

    Attributes:
        few: whether they are kept; at first, if they are few enough.
    """

    def __init__(
        self, samples: Sequence[Sample], preprocess: Preprocess, batch: int, workers: int
    ) -> None:
        """See `predict_samples`."""
        self._batches = evaluation_batches(samples, preprocess, batch=batch, workers=workers)
        self._kept: list[NDArray[np.uint8]] = []
        self.few = len(samples) * preprocess.size**2 * 3 <= KEPT_BYTES

    def __len__(self) -> int:
        """How many batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Each batch; an ImageError names a file that can't be read."""
        if self._kept:
            yield from self._kept
            return
        seen = []
        for pixels, _ in self._batches:
            batch = pixels.numpy()
            if self.few:
                batch = batch.copy()  # out of the memory that is shared with the workers
                seen.append(batch)
            yield batch
        self._kept = seen


def classifier_function(classifier: Classifier, device: torch.device) -> Classify:
    """A module as a function of arrays, in evaluation mode, without gradients."""
    classifier = classifier.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def classify(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities = classifier(torch.from_numpy(pixels).to(device))
        result: NDArray[np.float32] = probabilities.cpu().numpy()
        return result

    return classify


def _readable(
    dataset: Dataset, samples: Sequence[Sample]
) -> tuple[tuple[Sample, ...], list[Skipped]]:
    good, gone = [], []
    for sample in samples:
        try:
            with quiet_pillow():
                decode_bytes(sample.read())
        except ImageError as error:
            gone.append(Skipped(dataset.relative(sample.path), str(error)))
        else:
            good.append(sample)
    return tuple(good), gone


def _measure(
    split: str,
    model_sha256: str,
    samples: Sequence[Sample],
    probabilities: NDArray[np.float32],
    classes: tuple[str, ...],
    skipped: Sequence[Skipped],
) -> Evaluation:
    labels = np.array([sample.label for sample in samples])
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), len(classes))
    bins = calibration(labels, probabilities)
    return Evaluation(
        split=split,
        model_sha256=model_sha256,
        images=len(samples),
        skipped=tuple(skipped),
        top1=top_k_accuracy(labels, probabilities, 1),
        top5=top_k_accuracy(labels, probabilities, 5) if len(classes) > 5 else None,
        ece=expected_calibration_error(bins),
        classes=classes,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        per_class=class_scores(confusion, classes),
        calibration=bins,
    )


def _write(
    run: Run,
    dataset: Dataset,
    evaluation: Evaluation,
    samples: Sequence[Sample],
    probabilities: NDArray[np.float32],
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "predicted", "probability", "probability_label"))
    for sample, row in zip(samples, probabilities, strict=True):
        best = int(row.argmax())
        writer.writerow(
            (
                dataset.relative(sample.path),
                dataset.classes[sample.label],
                dataset.classes[best],
                f"{row[best]:.6f}",
                f"{row[sample.label]:.6f}",
            )
        )
    write_text(run.evaluation / f"{evaluation.split}.csv", text.getvalue())
    write_json(run.evaluation / f"{evaluation.split}.json", asdict(evaluation))
