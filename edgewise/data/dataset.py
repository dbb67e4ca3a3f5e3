"""A data set: every image looked at once, the good ones split, the bad ones listed with reasons."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewise.data.check import check_images
from edgewise.data.decode import ImageError, read_limited
from edgewise.data.labelled import relative
from edgewise.data.scan import scan
from edgewise.data.split import (
    SPLITS,
    Photo,
    assign,
    copies_across_labels,
    copies_across_splits,
    side,
    to_carve,
)
from edgewise.errors import UsageError, some
from edgewise.files import read_json, write_json, write_text
from edgewise.run_folder import Run


@dataclass(frozen=True)
class Sample:
    """A usable image: its absolute path, the index of its class, the SHA-256 of its bytes.

    That is "" where nobody asks whether they are still the same.
    """

    path: Path
    label: int
    sha256: str

    def read(self) -> bytes:
        """Its bytes: those that were checked and labelled.

        Raises:
            ImageError: it can't be read any more, or holds other bytes.
        """
        data = read_limited(self.path)
        if self.sha256 and hashlib.sha256(data).hexdigest() != self.sha256:
            raise ImageError("it holds other bytes than when the run began")
        return data


@dataclass(frozen=True)
class Quarantined:
    """A labelled file that is left out, with the split it would be in and the reason.

    The file itself is neither moved nor changed.
    """

    path: Path
    label: int
    split: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Labelled images, split.

    Attributes:
        root: what the paths in files are relative to; absolute.
        classes: the class names; a label is an index into them.
        splits: the samples of "train", "val" and "test", each in the order of their paths.
        quarantined: the labelled files that are left out, with reasons.
        warnings: what a person should know before they trust a number from this data.
    """

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, tuple[Sample, ...]]
    quarantined: tuple[Quarantined, ...]
    warnings: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """A SHA-256 over all contents with their class names: equal data, equal fingerprint."""
        lines = sorted(
            f"{sample.sha256} {self.classes[sample.label]}\n"
            for samples in self.splits.values()
            for sample in samples
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def counts(self) -> dict[str, dict[str, int]]:
        """The number of samples of each class in each split."""
        result = {}
        for split, samples in self.splits.items():
            of_label = Counter(sample.label for sample in samples)
            result[split] = {name: of_label[label] for label, name in enumerate(self.classes)}
        return result

    def relative(self, path: Path) -> str:
        """A path as files and messages show it: relative to the root if it is below it."""
        return relative(path, self.root)


def load_dataset(path: Path, workers: int) -> Dataset:
    """Finds, checks (each image is read and decoded once) and splits the images of `path`.

    Args:
        path: a folder or a file; see `scan`.
        workers: threads to decode with.

    Raises:
        UsageError: there is too little here to train a classifier on.
    """
    found = scan(path)
    checks = check_images([image.path for image in found.images], workers)
    carve = to_carve({image.split for image in found.images})
    label_of = {name: label for label, name in enumerate(found.classes)}

    photos, quarantined = [], []
    for image, check in zip(found.images, checks, strict=True):
        if check.reason:
            split = side(check.sha256, carve) if image.split in (None, "train") else image.split
            quarantined.append(Quarantined(image.path, label_of[image.label], split, check.reason))
        else:
            photos.append(Photo(image.path, image.label, image.split, check.sha256))
    _check_enough(found.classes, photos, quarantined)

    copies = copies_across_splits(photos)
    for copy, kept in copies.items():
        reason = f"the same bytes as {kept.path}, which is in {kept.split} and stays there"
        quarantined.append(
            Quarantined(copy.path, label_of[copy.label], copy.split or "train", reason)
        )
    left = [photo for photo in photos if photo not in copies]
    splits: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    for photo, split in zip(left, assign(left, carve), strict=True):
        splits[split].append(Sample(photo.path, label_of[photo.label], photo.sha256))

    dataset = Dataset(
        root=found.root,
        classes=found.classes,
        splits={split: tuple(samples) for split, samples in splits.items()},
        quarantined=tuple(sorted(quarantined, key=lambda item: item.path.as_posix())),
        warnings=(
            *found.damage,
            *found.warnings,
            *_copy_warnings(copies, copies_across_labels(photos)),
            *_absence_warnings(found.classes, splits),
        ),
    )
    return _check_trainable(path, dataset)


def _check_enough(
    classes: Sequence[str], photos: Sequence[Photo], quarantined: Sequence[Quarantined]
) -> None:
    of_class: dict[str, dict[str, Path]] = {name: {} for name in classes}
    for photo in photos:
        of_class[photo.label][photo.sha256] = photo.path
    for label, (name, contents) in enumerate(of_class.items()):
        if len(contents) >= 2:
            continue
        has = f"only the usable image {some(contents.values())}" if contents else "no usable image"
        bad = [f"{item.path} ({item.reason})" for item in quarantined if item.label == label]
        raise UsageError(
            f"class '{name}' has {has}; it needs two that differ, one to learn from and one to "
            "check with. Add images of it, or leave the class out."
            + (f" Not usable: {some(bad)}" if bad else "")
        )


def _check_trainable(path: Path, dataset: Dataset) -> Dataset:
    for name, count in dataset.counts()["train"].items():
        if not count:
            raise UsageError(
                f"class '{name}' of {path} has no usable image left in train; add one "
                "(copies of images in val or test don't count)"
            )
    if not dataset.splits["val"]:
        raise UsageError(f"no image in the split val of {path} is usable; training needs some")
    return dataset


def _copy_warnings(
    across_splits: dict[Photo, Photo], across_labels: dict[Photo, Photo]
) -> Iterable[str]:
    for copies, what in (
        (across_splits, "in two splits, and left out of the one nearer to training"),
        (across_labels, "under two labels, one of which is wrong"),
    ):
        if copies:
            pairs = some([f"{copy.path} = {other.path}" for copy, other in copies.items()])
            yield f"{len(copies):,} images are {what}: {pairs}"


def _absence_warnings(classes: Sequence[str], splits: dict[str, list[Sample]]) -> Iterable[str]:
    for split in ("val", "test"):
        present = {sample.label for sample in splits[split]}
        absent = [name for label, name in enumerate(classes) if label not in present]
        if present and absent:
            yield f"these classes have no image in {split}: {some(absent)}"


def describe(dataset: Dataset) -> str:
    """What a person wants to see before training begins: a line of counts, then the warnings."""
    parts = ", ".join(f"{len(samples):,} {split}" for split, samples in dataset.splits.items())
    total = sum(len(samples) for samples in dataset.splits.values())
    lines = [f"{total:,} images of {len(dataset.classes)} classes ({parts}) in {dataset.root}"]
    if dataset.quarantined:
        left_out = [f"{dataset.relative(bad.path)} ({bad.reason})" for bad in dataset.quarantined]
        lines.append(f"{len(left_out):,} files left out: {some(left_out)}")
    lines += [f"warning: {warning}" for warning in dataset.warnings]
    return "\n".join(lines)


def write_dataset(dataset: Dataset, run: Run) -> None:
    """Writes `data.json`, `split.csv` and `quarantine.csv` into a run folder.

    Raises:
        EdgewiseError: a file can't be written.
    """
    samples = [
        (dataset.relative(sample.path), dataset.classes[sample.label], split, sample.sha256)
        for split in SPLITS
        for sample in dataset.splits[split]
    ]
    quarantined = [
        (dataset.relative(bad.path), dataset.classes[bad.label], bad.split, bad.reason)
        for bad in dataset.quarantined
    ]
    _write_csv(run.split, ("path", "label", "split", "sha256"), samples)
    _write_csv(run.quarantine, ("path", "label", "split", "reason"), quarantined)
    value = {
        "root": str(dataset.root),
        "fingerprint": dataset.fingerprint,
        "classes": list(dataset.classes),
        "counts": dataset.counts(),
        "quarantined": len(dataset.quarantined),
        "warnings": list(dataset.warnings),
    }
    write_json(run.data, value)


class ImagesGoneError(UsageError):
    """The folder of a run's images is not there any more, or this user may not look there."""


def read_dataset(run: Run) -> Dataset:
    """Reads back what `write_dataset` wrote, without looking at the images.

    Raises:
        ImagesGoneError: the images' folder is gone, or is in one that this user may not enter.
        UsageError: a file is missing or edited into nonsense.
    """
    value = read_json(run.data)
    try:
        root, classes = Path(value["root"]), tuple(value["classes"])
        warnings = tuple(value["warnings"])
    except (KeyError, TypeError) as error:
        raise UsageError(f"{run.data} was edited: it lacks {error}") from None
    try:
        there = root.is_dir()
    except OSError as error:
        raise ImagesGoneError(
            f"can't read the images of this run: {root}: {error.strerror} (named in {run.data})"
        ) from None
    if not there:
        raise ImagesGoneError(f"the images of this run are gone: {root} (named in {run.data})")
    label_of = {name: label for label, name in enumerate(classes)}
    splits: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    for path, label, split, sha256 in _read_csv(run.split, label_of):
        splits[split].append(Sample(root / path, label_of[label], sha256))
    quarantined = tuple(
        Quarantined(root / path, label_of[label], split, reason)
        for path, label, split, reason in _read_csv(run.quarantine, label_of)
    )
    samples = {split: tuple(members) for split, members in splits.items()}
    return Dataset(root, classes, samples, quarantined, warnings)


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _read_csv(path: Path, label_of: dict[str, int]) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"can't read {path}: {error}") from None
    for line, row in enumerate(rows, start=2):
        if len(row) != 4 or row[1] not in label_of or row[2] not in SPLITS:
            raise UsageError(f"{path}, line {line}, was edited: expected path,label,split,...")
    return rows
