"""A picture of training images as the network will see them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edgewise.data.dataset import Dataset, Sample
from edgewise.data.decode import ImageError, decode, read_limited
from edgewise.data.labelled import Labelled
from edgewise.data.loader import evaluation_batches
from edgewise.data.scan import Scan, scan
from edgewise.data.split import Photo, assign, to_carve
from edgewise.errors import UsageError
from edgewise.files import write_bytes
from edgewise.training.batches import recipe_batches
from edgewise.training.defaults import FEW_IMAGES, fit
from edgewise.training.mixing import Mixing
from edgewise.training.recipe import Recipe
from edgewise.training.start import preprocess_of, resolve

SMALLEST_TILE = 128  # pixels: smaller images are enlarged by a whole factor
MARGIN, LINE = 6, 18  # pixels
FONT_SIZE = 13


def write_preview(recipe: Recipe, out: Path, images: int = 6, forms: int = 6) -> list[Path]:
    """Draws some training images as a PNG file: as they are evaluated, and augmented.

    The pixels come from the code that trains: the same batches, augmentation and mixing, at the
    strength of the recipe's last epoch.

    Args:
        recipe: with its data; weights are not needed.
        out: the file to write.
        images: rows, of as many classes as there are.
        forms: columns of augmented images.

    Returns:
        The images that are shown.

    Raises:
        UsageError: there is nothing to train on, or the recipe is no good.
        EdgewiseError: the file can't be written.
    """
    found = scan(Path(recipe.data))
    shown = [image for image in found.images if image.split in (None, "train")]
    recipe = replace(recipe, workers=0, stages=1, batch=0, accumulate=1)
    recipe = resolve(recipe, fetch=False)
    chosen = _choose(shown, images)
    recipe = fit(recipe, _unchecked(found, shown))
    # A label here is the number of the row: so the order of a batch can be undone.
    samples = [Sample(image.path, row, "") for row, image in enumerate(chosen)]
    names = [image.label for image in chosen]
    preprocess = preprocess_of(recipe)
    plain = [pixels for pixels, _ in evaluation_batches(samples, preprocess, batch=1, workers=0)]
    rows = [[(pixels[0].numpy(), name)] for pixels, name in zip(plain, names, strict=True)]
    for form in range(forms):
        pixels, shares = _augmented(recipe, samples, form)
        for row in range(len(samples)):
            rows[row].append((pixels[row], _caption(shares[row], names)))
    buffer = io.BytesIO()
    _draw(rows, recipe).save(buffer, "PNG")
    write_bytes(out, buffer.getvalue())
    return [image.path for image in chosen]


def _unchecked(found: Scan, images: Sequence[Labelled]) -> Dataset:
    """The training images as they are named, for what only their number decides."""
    carve = to_carve({image.split for image in found.images})
    if carve and len(images) < 2 * FEW_IMAGES:  # of more, enough are left in any case
        images = _left_in_train(images, carve)
    label_of = {name: label for label, name in enumerate(found.classes)}
    samples = tuple(Sample(image.path, label_of[image.label], "") for image in images)
    return Dataset(found.root, found.classes, {"train": samples}, ())


def _left_in_train(images: Sequence[Labelled], carve: dict[str, float]) -> list[Labelled]:
    """Those that training takes neither as validation nor as test; all of them are read."""
    readable, photos = [], []
    for image in images:
        with suppress(ImageError):
            sha256 = hashlib.sha256(read_limited(image.path)).hexdigest()
            photos.append(Photo(image.path, image.label, image.split, sha256))
            readable.append(image)
    splits = assign(photos, carve)
    return [image for image, split in zip(readable, splits, strict=True) if split == "train"]


def _choose(images: Sequence[Labelled], count: int) -> list[Labelled]:
    """Usable images, one of each class, then another of each, always the same ones."""
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    seen: dict[str, int] = {}
    turns = []
    for index in order:
        label = images[index].label
        seen[label] = seen.get(label, 0) + 1
        turns.append((seen[label], label, index))
    chosen: list[Labelled] = []
    for _, _, index in sorted(turns):
        try:
            decode(images[index].path)
        except ImageError:
            continue
        chosen.append(images[index])
        if len(chosen) == count:
            break
    if not chosen:
        raise UsageError("no training image can be read; `edgewise doctor` says why")
    return sorted(chosen, key=lambda image: image.label)


def _augmented(
    recipe: Recipe, samples: Sequence[Sample], epoch: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Each sample once, in order: uint8 (N, H, W, 3), and the part of each sample in it (N, N)."""
    # On a CPU, since they are looked at and not learned from.
    whole = replace(recipe, batch=max(2, len(samples)), device="cpu")
    epochs = range(epoch, epoch + 1)
    ((pixels, order),) = recipe_batches(whole, preprocess_of(recipe), samples, epochs)
    shares = torch.eye(len(samples))[order]
    if recipe.mixup or recipe.cutmix:
        random = np.random.default_rng((recipe.seed, epoch))
        images = pixels.permute(0, 3, 1, 2).float()
        # Mixing is linear, so it may come before normalisation as well as after it.
        images, shares = Mixing(recipe.mixup, recipe.cutmix).mix(
            images, order, len(samples), random
        )
        pixels = images.permute(0, 2, 3, 1).round().to(torch.uint8)
    back = order.argsort()
    return pixels[back].numpy(), shares[back].numpy()


def _caption(shares: NDArray[np.float32], names: Sequence[str]) -> str:
    """The class, or a line for each with its part: 70% rose, 30% daisy."""
    parts: dict[str, float] = {}
    for share, name in zip(shares.tolist(), names, strict=True):
        parts[name] = parts.get(name, 0.0) + share
    told = [(name, share) for name, share in parts.items() if share > 0.005]
    if len(told) == 1:
        return told[0][0]
    told.sort(key=lambda part: -part[1])
    return "\n".join(f"{share:.0%} {name}" for name, share in told[:2])


def _draw(rows: Sequence[Sequence[tuple[NDArray[np.uint8], str]]], recipe: Recipe) -> Image.Image:
    side = rows[0][0][0].shape[0]
    factor = -(-SMALLEST_TILE // side)
    tile = side * factor
    lines = max(caption.count("\n") + 1 for row in rows for _, caption in row)
    wide, tall = tile + MARGIN, tile + lines * LINE
    columns = len(rows[0])
    sheet = Image.new(
        "RGB", (columns * wide + 3 * MARGIN, len(rows) * tall + LINE + MARGIN), "white"
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    draw.text((MARGIN, 3), "as evaluated", "black", font)
    settings = (
        f"as trained on: {rows[0][1][0].shape[0]} px, {recipe.policy}"
        + (f" {recipe.magnitude}" if recipe.policy == "randaugment" else "")
        + f", crop_scale {recipe.crop_scale:g}, flip {'on' if recipe.flip else 'off'}"
        + "".join(
            f", {name} {value:g}"
            for name in ("jitter", "erase", "mixup", "cutmix")
            if (value := getattr(recipe, name))
        )
    )
    draw.text((wide + 2 * MARGIN, 3), settings, "black", font)
    for y, row in enumerate(rows):
        for x, (pixels, caption) in enumerate(row):
            left = x * wide + (MARGIN if x == 0 else 2 * MARGIN)
            top = LINE + y * tall
            image = Image.fromarray(pixels).resize((tile, tile), Image.Resampling.NEAREST)
            sheet.paste(image, (left, top))
            for line, text in enumerate(caption.split("\n")):
                place = (left, top + tile + 2 + line * LINE)
                draw.text(place, _fitted(text, tile, font), "black", font)
    return sheet


def _fitted(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
