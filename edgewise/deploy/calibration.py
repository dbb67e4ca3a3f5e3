"""The pictures that an int8 file is made with, preprocessed as the model's are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgewise.data.dataset import Sample, read_dataset
from edgewise.data.folders import images_below
from edgewise.data.scan import scan
from edgewise.deploy.decoded import decode_batches
from edgewise.errors import EdgewiseError, UsageError
from edgewise.preprocess import Preprocess
from edgewise.run_folder import Run

IMAGES = 256  # of a split, of which each class has its part
BATCH = 32


def calibration_pixels(
    source: str | Path,
    data: Path | None,
    preprocess: Preprocess,
    labels: Sequence[str],
    fitted: str = "int8 ranges",
) -> NDArray[np.uint8]:
    """uint8 (N, size, size, 3): up to 256 images, the same ones each time.

    Args:
        source: what is exported: a run's own training images are taken.
        data: a folder or file of images to take instead; needed for all else than a run.
        preprocess: of the model.
        labels: of the model.
        fitted: what they are for, for the messages.

    Raises:
        UsageError: there is no data, its folders are not as training takes them, or a run's is of
            other classes.
        EdgewiseError: no image of it can be read.
    """
    images = _images(source, data, labels, fitted)
    pixels = some_pixels(images, preprocess)
    if pixels is None:
        raise EdgewiseError(
            f"{fitted} are fitted to images, and none of {len(images):,} can be read"
        )
    return pixels


def some_pixels(
    images: Sequence[Path | Sample], preprocess: Preprocess
) -> NDArray[np.uint8] | None:
    """uint8 (N, size, size, 3): up to 256 of the images, the same ones each time; None for none."""
    order = np.random.default_rng(0).permutation(len(images))
    pixels: list[NDArray[np.uint8]] = []
    for decoded in decode_batches((images[i] for i in order), preprocess, BATCH):
        pixels += [item.pixels for item in decoded if item.pixels is not None]
        if len(pixels) >= IMAGES:
            break
    return np.stack(pixels[:IMAGES]) if pixels else None


def _images(
    source: str | Path, data: Path | None, labels: Sequence[str], fitted: str
) -> Sequence[Path | Sample]:
    run = Run(Path(source)) if Run.is_run(Path(source)) else None
    if data is None:
        if run is None:
            raise UsageError(
                f"{fitted} are fitted to images: name some that are like those the model will see, "
                "--calibrate photos/"
            )
        return read_dataset(run).splits["train"]
    if data.is_dir():
        try:
            found = scan(data, fewest=1)
        except UsageError:
            pictures = list(images_below(data))
            if {picture.parent for picture in pictures} == {data}:
                return pictures  # of no classes, which are not needed here
            raise
    else:
        found = scan(data, fewest=1)
    strange = [name for name in found.classes if name not in labels]
    if strange and run:
        raise UsageError(
            f"{data} has the class '{strange[0]}', which the model doesn't know: {fitted} that are "
            "fitted to other pictures lose accuracy. Leave --calibrate out to take the run's own "
            "training images."
        )
    if strange:
        print(
            f"note: {data} has classes that the model doesn't know, such as '{strange[0]}'; the "
            f"{fitted} will fit its pictures",
            file=sys.stderr,
        )
    return [image.path for image in found.images if image.split in (None, "train")]
