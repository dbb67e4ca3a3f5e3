"""What a recipe leaves open, chosen by the data that it is for."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import nn

from edgewise.data.dataset import Dataset
from edgewise.errors import UsageError
from edgewise.families import variant
from edgewise.measure.count import count
from edgewise.spec import Spec
from edgewise.training.recipe import Recipe
from edgewise.weights.folder import load_model
from edgewise.weights.pretrained import resolve as resolve_name

EPOCHS = 10
LEAST_STEPS = 400  # of the optimiser: a small set is seen more often, until it has been learned
# What a set of so many images or more learns in. 16 at once learned more in the same time than 32
# did from 300 pictures: see docs/training.md.
BATCHES = {512: 32, 128: 16, 0: 8}
FEW_IMAGES = 1_000
MAGNITUDE, LIGHT_MAGNITUDE = 5, 2
RATE, PRETRAINED_RATE = 1e-3, 5e-4  # of AdamW
JITTER = 0.4
UNEVEN = 5.0
NORM_NEEDS = 16  # images at once; with fewer, their statistics are too noisy to learn
CONVNEXT_DECAY = 0.9
TRAIN_PART = (0.8, 0.9)  # of the size that is deployed
FIRST_OFF = {"first_imgsz": "null", "first_magnitude": 0, "first_mixup": 0, "first_dropout": 0}
MULTIPLES = (32, 16, 8)  # pixels: whole pixels after the network's strides, if it can be


def fit(recipe: Recipe, dataset: Dataset, processes: int = 1) -> Recipe:
    """The recipe with what is open chosen; everything else in it is resolved already.

    - Small sets get small batches, more epochs and little augmentation.
    - Pretrained weights learn gently, so that they keep what they know, and in changing light, as
      that of later photos is: measured on pictures drawn by another hand, see docs/training.md.
      A model folder's are such weights, unless they are fresh.
    - A random crop is enlarged, so things look larger in training than they do later; a smaller
      training size makes up for it, and is faster (FixRes, arXiv 1906.06423).
    - Pretrained batch norm keeps its statistics if too few images go through at once.
    - The blocks of a pretrained ConvNeXt learn the slower, the nearer they are to the input
      (arXiv 2201.03545, appendix A.2).
    - Uneven classes count as if they were even, and epochs are judged by macro-F1.

    Raises:
        UsageError: a setting doesn't suit this data or the others, or images would be too small
            for the network; the message says which.
    """
    images = len(dataset.splits["train"])
    counts = dataset.counts()["train"].values()
    batch = recipe.batch or _batch(images)
    if batch > images:
        raise UsageError(
            f"a batch of {batch} is larger than the training images ({images:,}). Give --batch of "
            f"{images} at most, or --batch auto."
        )
    if processes > 1 and batch < 2 * processes:
        raise UsageError(
            f"{batch} images in a batch are too few for {processes} processes: each needs two or "
            "more. Use a larger --batch, or fewer processes."
        )
    steps = math.ceil(images / batch)
    epochs = recipe.epochs or max(EPOCHS, math.ceil(LEAST_STEPS / steps), recipe.stages)
    spec, pretrained = _beginning(recipe)
    size = recipe.imgsz or 0
    freeze = pretrained and batch < NORM_NEEDS * recipe.accumulate * processes
    uneven = max(counts) > UNEVEN * min(counts)
    balance = uneven if recipe.balance is None else recipe.balance
    light = LIGHT_MAGNITUDE if images < FEW_IMAGES else MAGNITUDE
    convnext = spec.name.startswith("convnext")
    chosen = replace(
        recipe,
        batch=batch,
        epochs=epochs,
        lr=recipe.lr or (PRETRAINED_RATE if pretrained else RATE),
        head_epochs=min(recipe.head_epochs, epochs - 1) if pretrained else 0,
        train_imgsz=recipe.train_imgsz or (_train_size(size) if pretrained else size),
        freeze_norm=freeze if recipe.freeze_norm is None else recipe.freeze_norm,
        layer_decay=recipe.layer_decay or (CONVNEXT_DECAY if pretrained and convnext else 1.0),
        magnitude=light if recipe.magnitude is None else recipe.magnitude,
        jitter=(JITTER if pretrained else 0.0) if recipe.jitter is None else recipe.jitter,
        balance=balance,
        select=recipe.select or ("macro-f1" if balance else "accuracy"),
    )
    check(chosen)
    for side in (chosen.imgsz, chosen.train_imgsz, chosen.first_imgsz):
        if side:
            count(spec, side)
    return chosen


def check(recipe: Recipe) -> None:
    """Whether the settings suit each other, as far as they are chosen.

    Raises:
        UsageError: two don't; the message says which.
    """
    if 0 < recipe.epochs < recipe.stages:
        raise UsageError(
            f"{recipe.stages} stages need at least as many epochs, not {recipe.epochs}"
        )
    if 0 < recipe.batch < recipe.accumulate * 2:
        most = recipe.batch // 2
        fewer = f"accumulate={most}{' or less' if most > 1 else ''}, or " if most else ""
        raise UsageError(
            f"a batch of {recipe.batch} can't be computed in {recipe.accumulate} parts: batch norm "
            f"needs two images or more in each. Give {fewer}--batch {2 * recipe.accumulate} or "
            "more."
        )


def check_first_stage(recipe: Recipe) -> None:
    """Whether what is set for the first stage does something; see `progressive.at_epoch`.

    It is asked of new recipes only: one of a run may have been put into a single stage since.

    Raises:
        UsageError: something does nothing; the message says what it needs.
    """
    for settings, needed, is_there in (
        (tuple(FIRST_OFF), "stages=4 or so", recipe.stages > 1),
        (("first_mixup",), "mixup or cutmix", bool(recipe.mixup or recipe.cutmix)),
        (("first_dropout",), "dropout", recipe.dropout is not None),
    ):
        idle = [setting for setting in settings if getattr(recipe, setting)]
        if idle and not is_there:
            off = " ".join(f"{setting}={FIRST_OFF[setting]}" for setting in idle)
            raise UsageError(
                f"without {needed} nothing comes of {' and '.join(idle)}. Set both, or {off}."
            )


def has_learned(network: nn.Module) -> bool:
    """Whether weights are not fresh.

    Each bias, norm and layer scale begins as one number throughout, and a step of training gives
    every channel its own.
    """
    vectors = (parameter for parameter in network.parameters() if parameter.ndim == 1)
    return any(bool(vector.min() != vector.max()) for vector in vectors)


def _beginning(recipe: Recipe) -> tuple[Spec, bool]:
    """The network, and whether its first weights have learned something."""
    if recipe.folder:
        network = load_model(recipe.folder).network
        return network.spec, has_learned(network)
    name, width, *_ = resolve_name(recipe.model)
    return variant(name).spec(width), bool(recipe.pretrained)


def _batch(images: int) -> int:
    batch = next(batch for least, batch in BATCHES.items() if images >= least)
    return max(2, min(batch, images))


def _train_size(size: int) -> int:
    low, high = TRAIN_PART
    for multiple in MULTIPLES:
        fitting = [s for s in range(multiple, size, multiple) if low * size <= s <= high * size]
        if fitting:
            return fitting[-1]
    return size
