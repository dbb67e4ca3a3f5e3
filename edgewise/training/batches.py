"""The training images of a run, batch by batch."""

from __future__ import annotations

from dataclasses import replace

from edgewise.data.augment import Augment
from edgewise.data.dataset import Dataset
from edgewise.data.loader import Batches, training_batches
from edgewise.preprocess import Preprocess
from edgewise.training.progressive import at_epoch
from edgewise.training.recipe import Recipe


def epoch_batches(
    recipe: Recipe,
    preprocess: Preprocess,
    dataset: Dataset,
    epoch: int,
    start: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Batches:
    """One epoch as the recipe has it.

    Args:
        recipe: with nothing left open.
        preprocess: of its model.
        dataset: the images.
        epoch: from 0.
        start: how many batches of it are done already.
        share: (rank, processes), of several that share each batch.
    """
    now = at_epoch(recipe, epoch)
    return training_batches(
        dataset.splits["train"],
        replace(preprocess, size=now.train_imgsz or preprocess.size),
        Augment(now.flip, now.policy, now.magnitude or 0, (now.crop_scale, 1.0), now.erase),
        batch=now.batch,
        workers=now.workers or 0,
        seed=now.seed,
        epoch=epoch,
        start=start,
        share=share,
    )
