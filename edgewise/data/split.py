"""A stratified train/val/test split by the content of each image.

The SHA-256 of a file, read as a number in [0, 1), decides its side. So a file stays where it is
when others are added, removed or renamed, on every machine and without a seed, and byte-identical
copies are never on two sides. The fractions hold on average: a class of 40 has 6 images in val give
or take 2.3, since giving each exactly its part would move images whenever others are added.

The price is paid by tiny classes: each has at least one image in val (and in test, from three on),
which is the one with the lowest number if chance gave none. Adding photos to such a class can move
that one image back; at fractions of 0.15 this concerns classes below about 30 images.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")
FRACTIONS = {"val": 0.15, "test": 0.15}  # the rest is train


@dataclass(frozen=True)
class Photo:
    """A readable image: where it is, its class, the split that the layout gave it, its content."""

    path: Path
    label: str
    split: str | None
    sha256: str


def to_carve(given: Collection[str | None]) -> dict[str, float]:
    """The parts to take out of train by hash: those that the layout doesn't give.

    A layout with a val but no test gets none: its training images stay as they are.
    """
    if "val" in given:
        return {}
    if "test" in given:
        return {"val": FRACTIONS["val"]}
    return FRACTIONS


def side(sha256: str, carve: dict[str, float]) -> str:
    """The split of one content by its number alone."""
    edge = 0.0
    for split, fraction in carve.items():
        edge += fraction
        if _number(sha256) < edge:
            return split
    return "train"


def split_class(hashes: Iterable[str], carve: dict[str, float]) -> dict[str, str]:
    """The split of each content of one class: `side`, but no part is left without an image.

    Train comes first, then val, then test, if there are too few for all.
    """
    ordered = sorted(set(hashes))  # hex digits of one length sort as the numbers do
    result = dict.fromkeys(ordered, "train")
    parts = list(carve)[: len(ordered) - 1]
    start, edge = 0, 0.0
    for index, split in enumerate(parts):
        edge += carve[split]
        chance = bisect_left(ordered, edge, key=_number)
        most = len(ordered) - (len(parts) - index)  # leaves one for each later part and for train
        end = min(max(chance, start + 1), most)
        result.update(dict.fromkeys(ordered[start:end], split))
        start = end
    return result


def assign(photos: Sequence[Photo], carve: dict[str, float]) -> list[str]:
    """The split of each photo: the given one, with what is missing carved out of train."""
    hashes: dict[str, set[str]] = defaultdict(set)
    for photo in photos:
        if photo.split in (None, "train"):
            hashes[photo.label].add(photo.sha256)
    carved: dict[str, str] = {}
    for members in hashes.values():
        for sha256, split in split_class(members, carve).items():
            carved.setdefault(sha256, split)  # one content under two labels stays on one side
    return [
        carved[photo.sha256] if photo.split in (None, "train") else photo.split for photo in photos
    ]


def copies_across_splits(photos: Sequence[Photo]) -> dict[Photo, Photo]:
    """Copies that a given split puts on two sides: the one to leave out -> the one to keep.

    The copy nearer to training is left out, so that no evaluation is on images trained on.
    """
    keep: dict[str, Photo] = {}
    for photo in sorted(photos, key=_distance_from_training, reverse=True):
        keep.setdefault(photo.sha256, photo)
    return {
        photo: keep[photo.sha256] for photo in photos if photo.split != keep[photo.sha256].split
    }


def copies_across_labels(photos: Sequence[Photo]) -> dict[Photo, Photo]:
    """Copies that have another label than the first of their content -> that first one."""
    first: dict[str, Photo] = {}
    for photo in photos:
        first.setdefault(photo.sha256, photo)
    return {
        photo: first[photo.sha256] for photo in photos if photo.label != first[photo.sha256].label
    }


def _distance_from_training(photo: Photo) -> int:
    return SPLITS.index(photo.split or "train")


def _number(sha256: str) -> float:
    return int(sha256, 16) / 2**256
