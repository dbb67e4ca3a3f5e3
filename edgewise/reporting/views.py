"""The record, arranged for a reader: what is worst or largest first, and the long tail folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from edgewise.reporting.pictures import thumbnails
from edgewise.reporting.record import Json, Record
from edgewise.training.metrics import wilson

T = TypeVar("T")

LONGEST_TABLE = 20  # rows; more are folded
LARGEST_MATRIX = 20  # classes; with more, a matrix can't be read and the worst pairs are listed
MOST_MISTAKES = 24
MOST_PAIRS, OF_A_PAIR = 6, 3  # confused pairs that are pictured; pictures of either side
EXAMPLES = 6  # pictures of a class
MOST_EXAMPLES = 120  # pictures in all: about half a megabyte
CLASSES_SHOWN = 10  # classes whose pictures aren't folded
SPLIT_NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class Folded(Generic[T]):
    """A list whose `rest` the reader unfolds."""

    shown: tuple[T, ...]
    rest: tuple[T, ...] = ()


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy on the images that could be read, with its 95% interval."""

    correct: int
    images: int

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's; in [0, 1]."""
        return wilson(self.correct, self.images)


@dataclass(frozen=True)
class ClassCount:
    """The number of images of one class, by split."""

    label: str
    images: dict[str, int]

    @property
    def total(self) -> int:
        """In all splits."""
        return sum(self.images.values())


@dataclass(frozen=True)
class Pair:
    """How often one class was taken for another."""

    label: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class PicturedPair:
    """A confused pair: some pictures of it, and training pictures of what was said instead.

    Each is (path, data URI or None).
    """

    pair: Pair
    mistaken: tuple[tuple[str, str | None], ...]
    predicted: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class Cell:
    """One field of the confusion matrix; `share` is of its row."""

    count: int
    share: float


@dataclass(frozen=True)
class Mistake:
    """A wrong answer with its picture, a data URI or None."""

    path: str
    label: str
    predicted: str
    probability: float
    probability_label: float
    picture: str | None


@dataclass(frozen=True)
class Examples:
    """A few pictures of a class: (path, data URI or None)."""

    label: str
    pictures: tuple[tuple[str, str | None], ...]


def fold(items: Sequence[T], most: int = LONGEST_TABLE) -> Folded[T]:
    """All of a short list; of a long one the first `most`. A rest of one or two isn't worth it."""
    if len(items) <= most + 2:
        return Folded(tuple(items))
    return Folded(tuple(items[:most]), tuple(items[most:]))


def accuracy(evaluation: Json) -> Accuracy:
    """The diagonal of the confusion matrix, and how many images there were."""
    correct = sum(row[i] for i, row in enumerate(evaluation["confusion"]))
    return Accuracy(correct, evaluation["images"])


def held_to(record: Record) -> Json | None:
    """The verified artefact that tells how good the PyTorch model is: one that was run on images.

    An int8 one where the network learned int8, for the others are held to it without the rounding.
    None if there is none, as when all were converted for other machines.
    """
    artifacts = record.verification["artifacts"] if record.verification else ()
    measured = [item for item in artifacts if item["accuracy_model"] is not None]
    int8 = [item for item in measured if item["precision"] == "int8" and record.learned_int8]
    return next(iter(int8 or measured), None)


def arithmetic(record: Record, held_to: Json | None) -> str:
    """In what the model computes that `held_to` is held to; "" where there is but one way."""
    if not record.learned_int8 or not held_to:
        return ""
    return " in int8" if held_to["precision"] == "int8" else " in float"


def class_counts(record: Record) -> list[ClassCount]:
    """The smallest class first: that is the one to worry about."""
    counts = record.counts()
    rows = (
        ClassCount(label, {split: counts.get(split, {}).get(label, 0) for split in SPLIT_NAMES})
        for label in (record.data["classes"] if record.data else ())
    )
    return sorted(rows, key=lambda row: (row.total, row.label))


def per_class(evaluation: Json) -> list[Json]:
    """Precision, recall and F1, the lowest F1 first; classes without images last."""
    return sorted(evaluation["per_class"], key=lambda c: (not c["support"], c["f1"], c["label"]))


def matrix(evaluation: Json) -> list[list[Cell]]:
    """The confusion matrix: a row is a true class, a column an answer."""
    rows = evaluation["confusion"]
    return [[Cell(n, n / max(1, sum(row))) for n in row] for row in rows]


def confused_pairs(evaluation: Json, most: int = LONGEST_TABLE) -> list[Pair]:
    """The pairs of classes that were mixed up most often."""
    classes = evaluation["classes"]
    pairs = [
        Pair(classes[i], classes[j], count, count / sum(row))
        for i, row in enumerate(evaluation["confusion"])
        for j, count in enumerate(row)
        if count and i != j
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share, pair.label))[:most]


def pictured_pairs(record: Record) -> list[PicturedPair]:
    """The most confused pairs, so that one sees whether they look alike."""
    if not record.evaluation:
        return []
    found = []
    wrong = worst_first(record)
    for pair in confused_pairs(record.evaluation, MOST_PAIRS):
        mistaken = [
            row["path"]
            for row in wrong
            if (row["label"], row["predicted"]) == (pair.label, pair.predicted)
        ]
        predicted = [
            row["path"]
            for row in record.images
            if (row["split"], row["label"]) == ("train", pair.predicted)
        ]
        found.append((pair, mistaken[:OF_A_PAIR], predicted[:OF_A_PAIR]))
    pictures = thumbnails(
        record.picture(path) for _, *sides in found for side in sides for path in side
    )
    return [
        PicturedPair(
            pair,
            *(tuple((path, pictures[record.picture(path)]) for path in side) for side in sides),
        )
        for pair, *sides in found
    ]


def worst_first(record: Record) -> list[dict[str, str]]:
    """The rows of the wrong answers, the highest loss first: least probability for the truth."""
    wrong = [row for row in record.predictions if row["label"] != row["predicted"]]
    return sorted(wrong, key=lambda r: (float(r["probability_label"]), -float(r["probability"])))


def mistakes(record: Record) -> list[Mistake]:
    """The wrong answers with the highest loss."""
    wrong = worst_first(record)[:MOST_MISTAKES]
    pictures = thumbnails(record.picture(row["path"]) for row in wrong)
    return [
        Mistake(
            path=row["path"],
            label=row["label"],
            predicted=row["predicted"],
            probability=float(row["probability"]),
            probability_label=float(row["probability_label"]),
            picture=pictures[record.picture(row["path"])],
        )
        for row in wrong
    ]


def examples(record: Record) -> Folded[Examples]:
    """Training pictures of each class: the first ones of split.csv, at most `MOST_EXAMPLES`."""
    paths: dict[str, list[str]] = {}
    for row in record.images:
        if row["split"] == "train":
            paths.setdefault(row["label"], []).append(row["path"])
    each = min(EXAMPLES, max(1, MOST_EXAMPLES // max(1, len(paths))))
    chosen = {label: paths[label][:each] for label in sorted(paths)[: MOST_EXAMPLES // each]}
    pictures: dict[Path, str | None] = thumbnails(
        record.picture(path) for some in chosen.values() for path in some
    )
    return fold(
        [
            Examples(label, tuple((path, pictures[record.picture(path)]) for path in some))
            for label, some in chosen.items()
        ],
        CLASSES_SHOWN,
    )
