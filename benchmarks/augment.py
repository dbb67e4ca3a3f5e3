"""What augmentation costs a worker, beside the decoding, and beside torchvision's.

    python benchmarks/augment.py                      # photos of 500 x 375
    python benchmarks/augment.py --photo 4000x3000

JPEG photos (enlarged crops of scikit-image's) become views of 224 px, in one process: a random crop
and a flip alone, then with each kind of operation, and with all of them. torchvision's transforms
do the same to the same files, decoded by Pillow; but its erasing fills with black, and ours with
noise. "beside a GPU" is what is left to a worker where a GPU does all but the crop and the flip.
All take turns, and the median round counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from pictures import PHOTO_SIZE, write_photos
from PIL import Image

from edgewise.data.augment import Augment
from edgewise.data.decode import Encoded
from edgewise.libraries import import_library
from edgewise.measure.latency import machine
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

RULE = Preprocess(224, 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD)
PLAIN = Augment(policy="none", scale=(0.08, 1.0))
KINDS: dict[str, dict[str, Any]] = {
    "crop and flip": {},
    "jitter 0.4": {"jitter": 0.4},
    "RandAugment 9": {"policy": "randaugment", "magnitude": 9},
    "erasing": {"erase": 1.0},
    "all of them": {"policy": "randaugment", "magnitude": 9, "jitter": 0.4, "erase": 1.0},
}
IMAGES, ROUNDS = 16, 7


def our_view(augment: Augment, path: Path, *, random: np.random.Generator) -> object:
    """As our workers make it."""
    return torch.from_numpy(augment.pixels(Encoded(path.read_bytes()), RULE, random))


def our_plan(augment: Augment, path: Path, *, random: np.random.Generator) -> object:
    """As our workers leave it to a GPU."""
    pixels, changes = augment.planned(Encoded(path.read_bytes()), RULE, random)
    return torch.from_numpy(pixels), changes


def their_transform(settings: dict[str, Any]) -> Any:
    """torchvision's of the same kinds, from a Pillow image to a uint8 tensor."""
    v2 = import_module("torchvision.transforms.v2")

    jitter, erase = settings.get("jitter", 0.0), settings.get("erase", 0.0)
    return v2.Compose(
        [
            v2.RandomResizedCrop(RULE.size, (0.08, 1.0)),
            v2.RandomHorizontalFlip(),
            *([v2.ColorJitter(jitter, jitter, jitter)] if jitter else []),
            *([v2.RandAugment(2, settings["magnitude"])] if "magnitude" in settings else []),
            v2.PILToTensor(),
            *([v2.RandomErasing(erase)] if erase else []),
        ]
    )


def their_view(transform: Any, path: Path) -> object:
    """As a data set of torchvision's makes it."""
    with Image.open(path) as image:
        return transform(image.convert("RGB"))


def main() -> None:
    """Prints the milliseconds of a view, and what the operations add to the crop."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photo", default="x".join(map(str, PHOTO_SIZE)), help="WIDTHxHEIGHT")
    options = parser.parse_args()
    width, _, height = options.photo.partition("x")
    import_library("torchvision")
    torch.set_num_threads(1)
    ways: dict[tuple[str, str], Callable[[Path], object]] = {}
    random = np.random.default_rng(0)
    for kind, settings in KINDS.items():
        augment = replace(PLAIN, **settings)
        ways[kind, "ours"] = partial(our_view, augment, random=random)
        ways[kind, "plan"] = partial(our_plan, augment, random=random)
        ways[kind, "torchvision"] = partial(their_view, their_transform(settings))
    spent: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        root = write_photos(Path(folder), IMAGES, (int(width), int(height)))
        files = sorted(root.rglob("*.jpg"))
        for _ in range(ROUNDS + 1):  # the first warms up
            for way, view in ways.items():
                began = time.perf_counter()
                for path in files:
                    view(path)
                spent[way].append(1000 * (time.perf_counter() - began) / len(files))
    print(f"ms for a view of {RULE.size} px from {options.photo} JPEG, {machine()}")
    ms = {way: median(each[1:]) for way, each in spent.items()}
    for kind in KINDS:
        one, other = ms[kind, "ours"], ms[kind, "torchvision"]
        added = one - ms["crop and flip", "ours"]
        print(
            f"{kind:14} ours {one:6.2f} (adds {added:5.2f}: {added / one:4.0%}; "
            f"beside a GPU {ms[kind, 'plan']:6.2f}), "
            f"torchvision {other:6.2f}: {other / one:4.2f} times as long"
        )


if __name__ == "__main__":
    main()
