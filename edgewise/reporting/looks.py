"""Where the network looked: class activation maps over worst mistakes and some right answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from edgewise.data.decode import ImageError, decode
from edgewise.gradcam import grad_cam
from edgewise.reporting.pictures import data_uri, heated
from edgewise.reporting.record import Record
from edgewise.reporting.views import worst_first
from edgewise.training.rounding import as_learned
from edgewise.weights.folder import load_model

MOST_MISTAKES, MOST_RIGHT = 6, 6

Row = dict[str, str]


@dataclass(frozen=True)
class Look:
    """A picture as the network was shown it, and a map of what speaks for each of `classes`.

    `picture` is a data URI, or None if the file can't be read any more; then there are no maps.
    """

    path: str
    classes: tuple[str, ...]
    picture: str | None
    maps: tuple[str, ...]


@dataclass(frozen=True)
class Looks:
    """What was drawn, and how many rows and columns the maps have; None if no file can be read."""

    mistakes: tuple[Look, ...]
    right: tuple[Look, ...]
    cells: tuple[int, int] | None


def looks(record: Record) -> Looks:
    """Grad-CAM of the evaluated model, in int8 if it learned that: a mistake's for the answer and
    for the truth.

    Raises:
        UsageError: the model can't be read.
    """
    mistakes = worst_first(record)[:MOST_MISTAKES]
    right = surest_right(record)[:MOST_RIGHT]
    seen = {row["path"]: tuple(dict.fromkeys((row["predicted"], row["label"]))) for row in mistakes}
    seen |= {row["path"]: (row["label"],) for row in right}
    pictures, maps, cells = _draw(record, seen)

    def drawn(rows: Sequence[Row]) -> tuple[Look, ...]:
        return tuple(
            Look(path, seen[path], pictures.get(path), maps.get(path, ()))
            for path in (row["path"] for row in rows)
        )

    return Looks(drawn(mistakes), drawn(right), cells)


def surest_right(record: Record) -> list[Row]:
    """The right answer given with the most confidence, of each class; the surest class first."""
    right = [row for row in record.predictions if row["label"] == row["predicted"]]
    right.sort(key=lambda row: -float(row["probability"]))
    surest: dict[str, Row] = {}
    for row in right:
        surest.setdefault(row["label"], row)
    return list(surest.values())


def _draw(
    record: Record, seen: dict[str, tuple[str, ...]]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]], tuple[int, int] | None]:
    """The pictures and their maps, of the files that can be read; rows and columns of a map."""
    model = as_learned(load_model(record.run.model))
    pixels = {}
    for path in seen:
        try:
            pixels[path] = model.preprocess.pixels(decode(record.picture(path)))
        except ImageError:
            continue
    jobs = [(path, label) for path in pixels for label in seen[path]]
    if not jobs:
        return {}, {}, None
    heats = grad_cam(
        model,
        np.stack([pixels[path] for path, _ in jobs]),
        [model.labels.index(label) for _, label in jobs],
    )
    images = {path: Image.fromarray(array) for path, array in pixels.items()}
    maps: dict[str, tuple[str, ...]] = {}
    for (path, _), heat in zip(jobs, heats, strict=True):
        maps[path] = (*maps.get(path, ()), data_uri(heated(images[path], heat)))
    rows, columns = heats.shape[1:]
    return {path: data_uri(image) for path, image in images.items()}, maps, (rows, columns)
