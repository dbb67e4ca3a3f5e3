"""Naming what is in images, as many as there are: files are decoded while the network runs."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.data.folders import images_below
from edgewise.deploy.decoded import answers, decode_batches
from edgewise.deploy.fastest import open_fastest
from edgewise.deploy.predictor import Predictor, open_predictor
from edgewise.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


BATCH = 16  # images that go through the network at once
DECIMALS = 6  # about what float32 holds


@dataclass(frozen=True)
class Guess:
    """One class of an answer: its index, its label, its probability in [0, 1]."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a model says of one file: the most probable classes first, or why it can't be read."""

    path: Path
    top: tuple[Guess, ...] = ()
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """{"path", "top": [{"index", "label", "probability"}, ...]}, or {"path", "error"}."""
        if self.error:
            return {"path": str(self.path), "error": self.error}
        return {"path": str(self.path), "top": [asdict(guess) for guess in self.top]}


def predict(
    source: str | Path,
    images: str | Path | Iterable[str | Path],
    topk: int = 5,
    batch: int = BATCH,
    runtime: str | None = None,
) -> Iterator[Prediction]:
    """Answers for each image, in order; a file that can't be read is answered with its `error`.

    Args:
        source: a model name, a run folder, a model folder or an exported file.
        images: files, folders (searched at any depth for image files) and patterns such as
            "photos/**/*.jpg", each in the order of its names; or one of these.
        topk: the number of classes in an answer; all of them if there are fewer.
        batch: images that go through the network at once.
        runtime: what computes the answers, "torch", "onnxruntime" or "openvino"; None for the
            fastest that there is for `source` on this machine, which is measured once.

    Raises:
        UsageError: at once, before the first answer: `source` is no model, a folder or a pattern
            has no image, or a number is below 1.
    """
    check_count("topk", topk)
    check_count("batch", batch)
    paths = find_images(images)
    predictor = open_predictor(source, runtime) if runtime else open_fastest(source)
    return _predictions(predictor, paths, topk, batch)


def check_count(name: str, number: int) -> None:
    """Refuses what is below 1.

    Raises:
        UsageError: it is.
    """
    if number < 1:
        raise UsageError(f"{name} must be 1 or more, not {number}")


def find_images(images: str | Path | Iterable[str | Path]) -> Iterator[Path]:
    """The files that a file, folder or pattern stands for, or several of them, in order.

    A file that is named without a pattern needn't exist: who reads it says so.

    Raises:
        UsageError: at once, if a folder or a pattern has no image, or there is none at all.
    """
    named = [images] if isinstance(images, str | Path) else images
    found = [_started(str(image), _expand(str(image))) for image in named]
    if not found:
        raise UsageError("no images: name a file, a folder or a pattern such as 'photos/*.jpg'")
    return chain.from_iterable(found)


def _expand(image: str) -> Iterator[Path]:
    path = Path(image)
    if path.is_dir():
        yield from images_below(path)
    elif path.exists() or not glob.has_magic(image):  # "[1].jpg" may be a file's very name
        yield path
    else:
        matches = sorted(glob.iglob(image, recursive=True))  # noqa: PTH207 (takes absolute ones)
        yield from (path for path in map(Path, matches) if path.is_file())


def _started(image: str, paths: Iterator[Path]) -> Iterator[Path]:
    """`paths` again, once it is known that there is a first one."""
    try:
        first = next(paths)
    except StopIteration:
        what = "has no images in it" if Path(image).is_dir() else "matches no file"
        raise UsageError(f"'{image}' {what}. Check the path, or the pattern's quotes.") from None
    return chain([first], paths)


def _predictions(
    predictor: Predictor, paths: Iterator[Path], topk: int, batch: int
) -> Iterator[Prediction]:
    for decoded in decode_batches(paths, predictor.preprocess, batch):
        for item, probabilities in zip(decoded, answers(predictor, decoded), strict=True):
            if probabilities is None:
                yield Prediction(item.path, error=item.error)
            else:
                yield Prediction(item.path, best(probabilities, predictor.labels, topk))


def best(
    probabilities: NDArray[np.float32], labels: tuple[str, ...], topk: int
) -> tuple[Guess, ...]:
    """The most probable of (classes,), the most probable first."""
    order = np.argsort(-probabilities, kind="stable")[:topk]  # of equals, the lower index first
    return tuple(
        Guess(int(index), labels[index], round(float(probabilities[index]), DECIMALS))
        for index in order
    )
