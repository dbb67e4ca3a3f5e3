"""A model that is loaded once and asked often: what a program on the device holds."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image

from edgewise.data.decode import check_not_empty, decode, upright_rgb
from edgewise.deploy.fastest import open_fastest
from edgewise.deploy.predict import BATCH, Guess, best, check_count
from edgewise.deploy.predictor import Predictor, open_predictor
from edgewise.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgewise.preprocess import Preprocess

    Picture: TypeAlias = str | Path | Image.Image | NDArray[np.uint8]


class Runner:
    """Any model in its runtime, asked for pictures of any kind, also by several threads at once.

    Attributes:
        labels: a name for each class.
        preprocess: how an image becomes an input.
        runtime: what computes the answers, with its version.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.labels: tuple[str, ...] = predictor.labels
        self.preprocess: Preprocess = predictor.preprocess
        self.runtime: str = predictor.runtime

    def probabilities(self, images: Picture | Iterable[Picture]) -> NDArray[np.float32]:
        """(N, classes), each row summing to 1. Memory holds the pixels of `BATCH` images at most.

        Args:
            images: N of them, each a file, a Pillow image, or uint8 RGB pixels (H, W, 3) of any
                size; or one of these alone.

        Raises:
            UsageError: one is none of these.
            ImageError: a file can't be read, pixels have no fixed range, or there are none.
        """
        rows = [np.zeros((0, len(self.labels)), np.float32)]
        pixels = (self.preprocess.pixels(_image(image)) for image in _each(images))
        while batch := list(islice(pixels, BATCH)):
            rows.append(self._predictor.probabilities(np.stack(batch)))
        return np.concatenate(rows)

    def predict(
        self, images: Picture | Iterable[Picture], topk: int = 1
    ) -> list[tuple[Guess, ...]]:
        """The most probable classes of each image, the most probable first.

        Args:
            images: as in `probabilities`.
            topk: how many classes; all of them if there are fewer.

        Raises:
            UsageError, ImageError: as there; or `topk` is below 1.
        """
        check_count("topk", topk)
        return [best(row, self.labels, topk) for row in self.probabilities(images)]


def load(source: str | Path, runtime: str | None = None) -> Runner:
    """A model that is ready to answer.

    Args:
        source: a model name, a run, a model folder, an exported file or its folder.
        runtime: what computes the answers, as `edgewise bench` calls it; None for the fastest that
            there is for `source` on this machine, which is measured once.

    Raises:
        UsageError: `source` is no model, or can't be read as what it is.
    """
    return Runner(open_predictor(source, runtime) if runtime else open_fastest(source))


def _each(images: Picture | Iterable[Picture]) -> Iterable[Picture]:
    """One image after the other; an array that is not several of them is one, good or bad."""
    if isinstance(images, np.ndarray) and images.dtype.kind not in "OU":  # else it is of names
        return images if images.ndim == 4 else [images]
    if isinstance(images, str | bytes | Path | Image.Image) or not isinstance(images, Iterable):
        return [images]
    return images


def _image(picture: Picture) -> Image.Image:
    if isinstance(picture, str | Path):
        return decode(Path(picture))
    if isinstance(picture, Image.Image):
        check_not_empty(*picture.size)
        return upright_rgb(picture)
    if not isinstance(picture, np.ndarray):
        raise UsageError(
            "an image is a file's path, a Pillow image or a NumPy array, not "
            f"{type(picture).__name__}. Open what is in memory with Pillow: "
            "PIL.Image.open(io.BytesIO(data))"
        )
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise UsageError(
            f"an image is uint8 RGB of shape (H, W, 3), not {picture.dtype} of {picture.shape}"
        )
    height, width, _ = picture.shape
    check_not_empty(width, height)
    return Image.fromarray(picture)
