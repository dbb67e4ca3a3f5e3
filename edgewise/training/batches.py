"""The training images, epoch by epoch, as a recipe wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial

import torch

from edgewise.data.augment import Augment
from edgewise.data.cache import ImageCache, cache_side, open_cache
from edgewise.data.dataset import Dataset, Sample
from edgewise.data.loader import Batches, View, training_batches
from edgewise.preprocess import Preprocess
from edgewise.training.device import pick_device
from edgewise.training.progressive import at_epoch
from edgewise.training.recipe import Recipe
from edgewise.weights.hub import cache_folder


def recipe_batches(
    recipe: Recipe,
    preprocess: Preprocess,
    samples: Sequence[Sample],
    epochs: range,
    start: int = 0,
    share: tuple[int, int] = (0, 1),
    cache: ImageCache | None = None,
) -> Batches:
    """The batches of some epochs, each at its own size and strength of augmentation.

    Where a GPU of NVIDIA's learns they are on it, and it augments them.

    Args:
        recipe: with nothing left open.
        preprocess: of the recipe.
        samples: the images to train on.
        epochs: which, from 0.
        start: how many batches of the first of them are done already.
        share: (rank, processes); see `training_batches`.
        cache: the samples, decoded already.
    """
    return training_batches(
        samples,
        partial(_view, recipe, preprocess),
        batch=recipe.batch,
        workers=recipe.workers or 0,
        seed=recipe.seed,
        epochs=epochs,
        start=start,
        share=share,
        cache=cache,
        device=_place(recipe),
    )


def _place(recipe: Recipe) -> torch.device | None:
    """Where augmentation is done: the GPU that learns, as its workers are soon the limit; else
    None, the workers.
    """
    device = pick_device(recipe.device)
    return device if device.type == "cuda" else None


@lru_cache(maxsize=2)  # it is asked for every image
def _view(recipe: Recipe, preprocess: Preprocess, epoch: int) -> View:
    now = at_epoch(recipe, epoch)
    return View(
        replace(preprocess, size=now.train_imgsz or preprocess.size),
        Augment(
            now.flip,
            now.policy,
            now.magnitude or 0,
            (now.crop_scale, 1.0),
            now.erase,
            now.jitter or 0.0,
        ),
    )


def cache_of(recipe: Recipe, preprocess: Preprocess, dataset: Dataset) -> ImageCache | None:
    """The cache of the training images that a recipe asks for, made if there is none yet.

    Raises:
        EdgewiseError: there is too little room for it, or an image can't be read any more.
    """
    if recipe.cache == "none":
        return None
    folder = cache_folder() / "images" if recipe.cache == "disk" else None
    largest = max(recipe.train_imgsz or preprocess.size, recipe.first_imgsz or 0)
    side, samples = cache_side(largest, recipe.crop_scale), dataset.splits["train"]
    return open_cache(samples, side, preprocess.interpolation, folder, recipe.workers or 1)
