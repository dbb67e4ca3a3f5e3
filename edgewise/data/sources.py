"""Finds the labelled images inside of containers: which rows and members there are, and as what."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgewise.data.containers import KINDS, open_container, row_names
from edgewise.data.decode import IMAGE_SUFFIXES
from edgewise.data.folders import folders, images_below, only_results
from edgewise.data.labelled import SPLIT_NAMES, Labelled, is_hidden
from edgewise.errors import UsageError, unknown
from edgewise.files import read_json

if TYPE_CHECKING:
    from edgewise.data.arrays import Arrays
    from edgewise.data.tables import ArrowRows, ParquetRows
    from edgewise.data.tar import TarShard

LABEL_FILES = ("classes.txt", "classes.json")
SAVED = ("dataset_dict.json", "state.json")  # what `datasets`' `save_to_disk` leaves
NOT_LABELLED = (None, -1, "")
PREFIX = re.compile(rf"({'|'.join(SPLIT_NAMES)})(?![a-z])", re.IGNORECASE)


@dataclass
class Found:
    """The labelled images of containers.

    Attributes:
        images: with the labels' names.
        warnings: what was passed over, and why.
        damage: what is missing of containers that were cut off.
    """

    images: list[Labelled] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


def containers_below(root: Path) -> list[tuple[Path, str | None]] | None:
    """The containers that a folder consists of, each with its split; None if it is another folder.

    They lie in the folder itself, in `data/` or in a folder for each split. Where other folders lie
    beside these, or folders of images in one for a split, it has a folder per class, and a
    container in it is a stray.

    Raises:
        UsageError: they are of several kinds, or only some have a split.
    """
    if any((root / name).is_file() for name in SAVED):
        return _saved(root)
    below = folders(root)
    others = [folder for folder in below if folder.name.lower() not in (*SPLIT_NAMES, "data")]
    if not all(map(only_results, others)):
        return None
    below = [folder for folder in below if folder not in others]
    if any(_has_class_folders(folder) for folder in below if folder.name.lower() in SPLIT_NAMES):
        return None
    found = [
        (file, SPLIT_NAMES.get(folder.name.lower()) or _split_of(file.name))
        for folder in (root, *sorted(below))
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in KINDS and file.is_file() and not is_hidden(file.name)
    ]
    kinds = sorted({file.suffix.lower() for file, _ in found})
    if len(kinds) > 1:
        raise UsageError(f"{root} has files of several kinds ({', '.join(kinds)}); keep one kind")
    if kinds == [".arrow"]:
        raise UsageError(f"{root} has .arrow files but no {SAVED[1]}: save it with `save_to_disk`")
    bare = [file.name for file, split in found if split is None]
    if bare and len(bare) < len(found):
        raise UsageError(
            f"{root}: {bare[0]} has no split, but others have. Begin each name with train-, val- "
            "or test-, or put each into a folder with that name."
        )
    return found or None


def _has_class_folders(split: Path) -> bool:
    return any(any(images_below(folder)) for folder in folders(split))


def _split_of(name: str) -> str | None:
    match = PREFIX.match(name)
    return SPLIT_NAMES[match[1].lower()] if match else None


def _saved(root: Path) -> list[tuple[Path, str | None]]:
    """The Arrow files of a saved `Dataset` or `DatasetDict`."""
    if not (root / SAVED[0]).is_file():
        names = [entry["filename"] for entry in _entry(root / SAVED[1], "_data_files")]
        return [(root / name, None) for name in names]
    files: list[tuple[Path, str | None]] = []
    for name in _entry(root / SAVED[0], "splits"):
        if name.lower() not in SPLIT_NAMES:
            raise UsageError(f"{root} has the split '{name}'; call it train, validation or test")
        files += [(file, SPLIT_NAMES[name.lower()]) for file, _ in _saved(root / name)]
    return files


def _entry(file: Path, key: str) -> list[Any]:
    value = read_json(file)
    if not isinstance(value, dict) or not isinstance(value.get(key), list):
        raise UsageError(f"{file} was edited: it has no list called {key}")
    return cast(list[Any], value[key])


def scan_containers(files: Sequence[tuple[Path, str | None]], names: Sequence[str] | None) -> Found:
    """The labelled images of containers of one kind.

    Args:
        files: each container with its split.
        names: of the label file, which the numbers in containers are indices into.

    Raises:
        UsageError: a container can't be read, or has labels that are not among the names.
    """
    found = Found()
    for path, split in files:
        kind = path.suffix.lower()
        if kind == ".tar":
            _scan_shard(path, split, names, found)
        elif kind == ".npz":
            _scan_arrays(path, split, names, found)
        else:
            _scan_rows(path, split, names, found)
    if not found.images:
        raise UsageError(f"no labelled images in {files[0][0].parent}")
    return found


def _scan_shard(path: Path, split: str | None, names: Sequence[str] | None, found: Found) -> None:
    shard = cast("TarShard", open_container(path))
    samples, without = shard.samples(IMAGE_SUFFIXES)
    if not samples and shard.damage:
        raise UsageError(f"{shard.damage}. Put the whole file back.")
    if shard.damage:
        found.damage.append(shard.damage)
    if without:
        found.warnings.append(
            f"not used: {len(without):,} samples of {path} without an image, such as {without[0]}"
        )
    labels = [sample.label for sample in samples]
    for sample, label in zip(samples, named(labels, names, path), strict=True):
        found.images.append(Labelled(f"{path}/{sample.image}", label, split))


def _scan_rows(path: Path, split: str | None, names: Sequence[str] | None, found: Found) -> None:
    table = cast("ParquetRows | ArrowRows", open_container(path))
    columns = table.columns
    labels = table.column(columns.label)
    splits = table.column(columns.split) if columns.split else []
    if not any(splits):  # a column that is empty says nothing
        splits = [split] * table.rows
    bare = [row for row, own in enumerate(splits) if own in (None, "")]
    if bare and any(splits):
        raise UsageError(f"{path}, row {bare[0]}: no split; give one to every row or to none")
    rows = [row for row, label in enumerate(labels) if label not in NOT_LABELLED]
    if len(rows) < table.rows:
        found.warnings.append(
            f"not used: {table.rows - len(rows):,} rows of {path} without a label"
        )
    places = [f"{path}/{name}" for name in row_names(table.rows)]
    if not columns.image:
        places = [str(path.parent / str(name)) for name in table.column("path")]
    known = columns.names or names
    for row, label in zip(rows, named([labels[row] for row in rows], known, path), strict=True):
        if splits[row] and str(splits[row]).lower() not in SPLIT_NAMES:
            raise UsageError(
                f"{path}, row {row}: unknown split '{splits[row]}'; use train, val or test"
            )
        given = SPLIT_NAMES[str(splits[row]).lower()] if splits[row] else None
        found.images.append(Labelled(places[row], label, given))
    twice = [place for place, count in Counter(places).items() if count > 1]
    if twice:
        raise UsageError(f"{path} lists {twice[0]} more than once; keep one of them")


def _scan_arrays(path: Path, split: str | None, names: Sequence[str] | None, found: Found) -> None:
    arrays = cast("Arrays", open_container(path))
    for own, images, labels in arrays.pairs:
        values = arrays.labels(images, labels)
        places = [f"{path}/{images}/{name}" for name in row_names(len(values))]
        for place, label in zip(places, named(values, arrays.names() or names, path), strict=True):
            found.images.append(Labelled(place, label, own or split))


def named(labels: Sequence[Any], names: Sequence[str] | None, path: Path) -> Iterator[str]:
    """The class name of each label: a number is an index into the names, if there are any.

    Raises:
        UsageError: a label is neither number nor name, or there are fewer names; `path` is named.
    """
    for label in labels:
        if not isinstance(label, int | str) or isinstance(label, bool):
            raise UsageError(f"{path} has a label that is neither a number nor a name: {label!r}")
        if isinstance(label, str):
            yield unicodedata.normalize("NFC", label)
        elif names is None:
            yield str(label)
        elif 0 <= label < len(names):
            yield names[label]
        else:
            raise UsageError(
                f"{path} has the label {label}, but there are {len(names):,} class names, for 0 to "
                f"{len(names) - 1}"
            )


def read_label_file(folder: Path) -> tuple[Path, list[str]] | None:
    """The class names in `classes.txt` (one a line) or `classes.json` (a list) of a folder, if any.

    Raises:
        UsageError: it can't be read, or a name is there twice.
    """
    file = next((folder / name for name in LABEL_FILES if (folder / name).is_file()), None)
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8-sig")
        names = json.loads(text) if file.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"can't read the class names in {file}: {error}") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(f'{file} must hold a list of names, such as ["daisy", "rose"]')
    names = [unicodedata.normalize("NFC", name.strip()) for name in names if name.strip()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not names:
        raise UsageError(f"{file} has '{twice[0]}' twice" if twice else f"{file} has no names")
    return file, names


def check_labels(labels: Sequence[str], file: Path, names: Sequence[str]) -> None:
    """Whether all labels are in the label file.

    Raises:
        UsageError: some are not; they are named, with the nearest that are.
    """
    wrong = [label for label in labels if label not in names]
    if wrong:
        nearest = "; ".join(str(unknown("label", label, names)) for label in wrong[:3])
        more = f" And {len(wrong) - 3:,} more." if len(wrong) > 3 else ""
        raise UsageError(f"{file} doesn't have every label of the images: {nearest}{more}")
