"""Progressive learning: small images and weak regularisation first, then more of both.

EfficientNetV2 (arXiv 2104.00298, section 4 and table 6): each stage of the training has an image
size, and a RandAugment magnitude, mixup and dropout that suit it.
"""

from __future__ import annotations

from dataclasses import replace

from edgewise.training.recipe import Recipe

MULTIPLE = 8  # pixels: an image size between the first and the last is rounded to it


def at_epoch(recipe: Recipe, epoch: int) -> Recipe:
    """The resolved recipe as it is in an epoch, from 0: the values of that epoch's stage.

    The stages are as long as each other, and the values go from the first stage's to the recipe's
    own in equal steps.
    """
    if recipe.stages == 1:
        return recipe
    stage = min(epoch * recipe.stages // recipe.epochs, recipe.stages - 1)
    done = stage / (recipe.stages - 1)

    def between(first: float, last: float) -> float:
        return first + done * (last - first)

    size = recipe.train_imgsz
    if size and recipe.first_imgsz and done < 1:
        size = round(between(recipe.first_imgsz, size) / MULTIPLE) * MULTIPLE
    return replace(
        recipe,
        train_imgsz=size,
        magnitude=round(between(recipe.first_magnitude, recipe.magnitude or 0)),
        mixup=between(recipe.first_mixup, recipe.mixup) if recipe.mixup else 0.0,
        cutmix=between(recipe.first_mixup, recipe.cutmix) if recipe.cutmix else 0.0,
        dropout=None if recipe.dropout is None else between(recipe.first_dropout, recipe.dropout),
    )
