"""What `--cache` is worth: images a second of the loader alone, and of the network's steps.

    python benchmarks/cache.py [--images 64] [--workers 0] [--threads 1]

JPEG photos of 1 to 2 megapixels are made by enlarging crops of scikit-image's photos. The loader's
figures are of epochs without a network; the last line is of training steps on a batch that is there
already. An epoch is bound by the network if the loader, on the cores that it has, is the faster of
the two.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image

from edgewise.data.dataset import Dataset, load_dataset
from edgewise.measure.latency import machine
from edgewise.training.batches import cache_of, recipe_batches
from edgewise.training.defaults import fit
from edgewise.training.learner import Learner
from edgewise.training.recipe import CACHES, Recipe
from edgewise.training.start import preprocess_of, resolve

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
REPEATS, EPOCHS = 3, 2


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0, help="0: in this process")
    parser.add_argument("--threads", type=int, default=1, help="of the training step")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EDGEWISE_CACHE"] = folder
        photos = write_photos(Path(folder) / "photos", options.images)
        dataset = load_dataset(photos, max(1, options.workers))
        recipe = resolve(
            Recipe(
                data=str(photos),
                model="mobilenet_v3_small",
                pretrained=False,
                imgsz=128,
                workers=options.workers,
                device="cpu",
            )
        )
        recipe = fit(recipe, dataset)
        here = machine()
        print(
            f"{len(dataset.splits['train'])} JPEG photos of 1-2 megapixels, {options.workers} "
            f"workers, {here}, torch {torch.__version__}"
        )
        for cache in CACHES:
            print(f"loader, cache {cache:4}: {loader_speed(replace(recipe, cache=cache), dataset)}")
        print(f"training step     : {step_speed(recipe, dataset)}")


def write_photos(root: Path, count: int) -> Path:
    """JPEG files of 1 to 2 megapixels, in a folder for each of four classes."""
    random = np.random.default_rng(0)
    for name in PHOTOS:
        (root / name).mkdir(parents=True)
        photo = Image.fromarray(getattr(skimage.data, name)())
        for number in range(count // len(PHOTOS)):
            part = random.uniform(0.6, 1)
            width, height = (int(part * side) for side in photo.size)
            left = int(random.integers(photo.width - width + 1))
            top = int(random.integers(photo.height - height + 1))
            scale = np.sqrt(random.uniform(1e6, 2e6) / (width * height))
            size = round(width * scale), round(height * scale)
            crop = photo.crop((left, top, left + width, top + height)).resize(size)
            crop.save(root / name / f"{number}.jpg", quality=90)
    return root


def loader_speed(recipe: Recipe, dataset: Dataset) -> str:
    """Of whole epochs; the time that the cache takes to be made is said beside it."""
    samples, preprocess = dataset.splits["train"], preprocess_of(recipe)
    started = time.perf_counter()
    cache = cache_of(recipe, preprocess, dataset)
    made = f", made in {time.perf_counter() - started:.1f} s" if cache else ""

    def epochs(number: int) -> int:
        some = range(EPOCHS * number, EPOCHS * (number + 1))
        batches = recipe_batches(recipe, preprocess, samples, some, cache=cache)
        return sum(len(labels) for _, labels in batches)

    return images_per_second(epochs) + made


def step_speed(recipe: Recipe, dataset: Dataset) -> str:
    """Of steps on one batch."""
    images = list(dataset.counts()["train"].values())
    learner = Learner(recipe, preprocess_of(recipe), images, 10)
    learner.begin_epoch(0)
    size = recipe.train_imgsz
    pixels = torch.randint(0, 256, (recipe.batch, size, size, 3), dtype=torch.uint8)
    labels = torch.arange(recipe.batch) % len(dataset.classes)

    def steps(number: int) -> int:
        for step in range(5):
            learner.step(pixels, labels, 5 * number + step)
        return 5 * recipe.batch

    return images_per_second(steps)


def images_per_second(work: Callable[[int], int]) -> str:
    """The median of a few runs, with their range."""
    work(0)
    speeds = []
    for number in range(1, REPEATS + 1):
        started = time.perf_counter()
        speeds.append(work(number) / (time.perf_counter() - started))
    speeds.sort()
    return f"{speeds[len(speeds) // 2]:6.0f} images/s ({speeds[0]:.0f} to {speeds[-1]:.0f})"


if __name__ == "__main__":
    sys.exit(main())
