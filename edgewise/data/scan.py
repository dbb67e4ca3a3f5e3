"""Finds labelled images: a folder per class (with or without train/ val/ test/ above or in each), a
CSV file, or containers such as tar shards (see `sources`).

Images are not opened here: whether a file really is one is for `dataset` to find out.
"""

from __future__ import annotations

import csv
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgewise.data.containers import KINDS
from edgewise.data.folders import (
    children,
    folders,
    is_image,
    left_out,
    natural,
    only_results,
    walk,
)
from edgewise.data.labelled import SPLIT_NAMES, Labelled
from edgewise.data.sources import (
    Found,
    check_labels,
    containers_below,
    named,
    read_label_file,
    scan_containers,
)
from edgewise.errors import UsageError, some

LAYOUT = """Expected one of:
  photos/daisy/1.jpg, photos/rose/2.jpg, ...                  a folder per class
  photos/train/daisy/1.jpg, photos/val/daisy/2.jpg, ...       the same, split already
  photos.csv with the header path,label or path,label,split
  photos.parquet, photos.npz, or a folder of .tar shards, .parquet files or of `save_to_disk`"""


@dataclass(frozen=True)
class Scan:
    """What was found.

    Attributes:
        root: the folder, or the folder of the file; absolute.
        classes: the class names, in the order of the label file, else in natural order (`img2`
            before `img10`).
        images: in the order of their paths.
        warnings: what was passed over, and why.
        damage: what is missing of files that were cut off.
    """

    root: Path
    classes: tuple[str, ...]
    images: tuple[Labelled, ...]
    warnings: tuple[str, ...]
    damage: tuple[str, ...] = ()


def scan(path: Path, fewest: int = 2) -> Scan:
    """Finds the labelled images of a folder or a file.

    A `classes.txt` or `classes.json` in the folder names all classes and their order.

    Args:
        path: the folder or file.
        fewest: classes; a classifier needs two, what only looks at its images takes one.

    Raises:
        UsageError: there is nothing to train on here, and the message says what was expected; or
            it may not be read.
    """
    try:
        return _scan(path, fewest)
    except PermissionError as error:  # what lies in a folder that this user may not enter
        raise _unreadable(Path(error.filename or path), error) from None


def _scan(path: Path, fewest: int) -> Scan:
    root = path.resolve() if path.is_dir() else path.parent.resolve()
    label_file = read_label_file(root) if path.exists() else None
    names = label_file[1] if label_file else None
    if path.is_dir():
        containers = containers_below(root)
        found = scan_containers(containers, names) if containers else Found(*_scan_folder(root))
        if containers:
            found.warnings += [left_out(folder) for folder in folders(root) if only_results(folder)]
    elif not path.is_file():
        raise UsageError(f"no such folder or file: {path}")
    elif path.suffix.lower() in KINDS:
        found = scan_containers([(root / path.name, None)], names)
    else:
        found = Found(_scan_csv(root / path.name, names))
    images, warnings = found.images, found.warnings
    classes = sorted({image.label for image in images}, key=natural)
    if label_file:
        check_labels(classes, *label_file)
        absent = [name for name in label_file[1] if name not in classes]
        if absent:
            warnings.append(
                f"not a class: {label_file[0]} names {some(absent)}, of which there is no image"
            )
        classes.sort(key=label_file[1].index)
    _check_classes(path, classes, images, fewest)
    _check_file_names(images)
    images.sort(key=lambda image: image.path.as_posix())
    return Scan(root, tuple(classes), tuple(images), tuple(warnings), tuple(found.damage))


def _scan_folder(root: Path) -> tuple[list[Labelled], list[str]]:
    images: list[Labelled] = []
    tops = _tops(root)
    places = [top for top, _ in tops]
    warnings = [
        f"not used: {file.name} in {folder}, since its folders hold images; give the file itself, "
        "or move it away"
        for folder in dict.fromkeys((root, *places))
        for file in children(folder)
        if file.is_file() and (file.suffix.lower() in KINDS or _lists_images(file))
    ]
    if root not in places:
        warnings += [left_out(folder) for folder in folders(root) if folder not in places]
    for top, split in tops:
        stray = [file.name for file in children(top) if is_image(file) and not file.is_dir()]
        below = folders(top)
        if stray and all(map(only_results, below)):
            raise UsageError(
                f"the images of {top} (such as {stray[0]}) are in no class folder. "
                f"Move those of each class into a folder with its name. {LAYOUT}"
            )
        if stray:
            warnings.append(
                f"not used: {len(stray)} images directly in {top}, outside of its class folders, "
                f"such as {stray[0]}"
            )
        for folder in below:
            label = unicodedata.normalize("NFC", folder.name)  # macOS may write é as two letters
            walked = list(walk(folder))
            files = [file for images_there, _ in walked for file in images_there]
            if any(result for _, result in walked):
                warnings.append(left_out(folder))
            elif not files:
                warnings.append(f"not a class: {folder} has no images")
            inner = [split or _split_below(folder, file) for file in files]
            images += [Labelled(str(f), label, s) for f, s in zip(files, inner, strict=True)]
    if root in places:
        images = _split_in_all(root, images)
    if not images:
        raise UsageError(f"no images in {root}. {LAYOUT}")
    return images, warnings


def _tops(root: Path) -> list[tuple[Path, str | None]]:
    """The folders that hold the class folders, each with its split.

    A class may itself be called "train" or "test": such a folder only counts as a split if class
    folders are in it, and if nothing but splits lies beside it.
    """
    below = folders(root)
    splits = [folder for folder in below if folder.name.lower() in SPLIT_NAMES]
    if not splits:
        return [(root, None)]
    others = [folder for folder in below if folder not in splits and not only_results(folder)]
    nested = any(not only_results(inner) for folder in splits for inner in folders(folder))
    if nested and others:
        raise UsageError(
            f"{root} has both splits ({splits[0].name}/) and other folders ({others[0].name}/). "
            f"Move the others away, or put every class folder under train/, val/ and test/."
        )
    return [(root, None)] if others else [(f, SPLIT_NAMES[f.name.lower()]) for f in splits]


def _split_below(folder: Path, file: Path) -> str | None:
    """The split that the first folder in a class folder is named after."""
    return SPLIT_NAMES.get(file.relative_to(folder).parts[0].lower())


def _split_in_all(root: Path, images: list[Labelled]) -> list[Labelled]:
    """The images without their splits, if there is no "train" or no other one.

    A class's photos may have been taken in places called "test".

    Raises:
        UsageError: only some have one.
    """
    found = {image.split for image in images} - {None}
    if len(found) < 2 or "train" not in found:
        return [replace(image, split=None) for image in images]
    if bare := [image.location for image in images if not image.split]:
        raise UsageError(
            f"{root} has class folders with train/ and others in them, but {bare[0]} is in none. "
            "Put every image of a class into one, or train/, val/ and test/ above the classes."
        )
    return images


def _lists_images(file: Path) -> bool:
    """Whether it is a CSV file that `scan` could read, by its first line."""
    if file.suffix.lower() != ".csv":
        return False
    try:
        with file.open("rb") as lines:
            columns = lines.readline(1 << 12).decode("utf-8-sig", "replace").strip().split(",")
    except OSError as error:
        raise _unreadable(file, error) from None
    return {"path", "label"} <= set(columns)


def _unreadable(file: Path, error: OSError) -> UsageError:
    return UsageError(
        f"can't read {file}: {error.strerror or error}. Make it readable, or move it away."
    )


def _scan_csv(file: Path, names: Sequence[str] | None) -> list[Labelled]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, restval="")
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            missing = [name for name in ("path", "label") if name not in reader.fieldnames]
            if missing:
                raise UsageError(
                    f"{file} has no column '{missing[0]}': its first line must be "
                    f"path,label or path,label,split, not {','.join(reader.fieldnames)[:80]}"
                )
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise _unreadable(file, error) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file} is not a CSV file in UTF-8: {error}") from None
    if not rows:
        raise UsageError(
            f"{file} lists no images: it needs a line for each, such as daisy/1.jpg,daisy"
        )
    images = [_from_row(row, file.parent, f"{file}, line {line}") for line, row in rows]
    _check_rows(file, [line for line, _ in rows], images)
    if not names or any(name.isdecimal() for name in names):  # then a number may be a name
        return images
    labels = [int(i.label) if i.label.isdecimal() else i.label for i in images]
    return [
        Labelled(image.location, label, image.split)
        for image, label in zip(images, named(labels, names, file), strict=True)
    ]


def _from_row(row: dict[str, str], root: Path, where: str) -> Labelled:
    path, label, split = (row.get(name, "").strip() for name in ("path", "label", "split"))
    if not path or not label:
        raise UsageError(f"{where}: the {'label' if path else 'path'} is empty")
    if split and split.lower() not in SPLIT_NAMES:
        raise UsageError(f"{where}: unknown split '{split}'; use train, val or test")
    label = unicodedata.normalize("NFC", label)
    return Labelled(str(root / path), label, SPLIT_NAMES[split.lower()] if split else None)


def _check_rows(file: Path, lines: list[int], images: list[Labelled]) -> None:
    given = any(image.split for image in images)
    first: dict[str, int] = {}
    for line, image in zip(lines, images, strict=True):
        if image.location in first:
            raise UsageError(
                f"{file}, line {line}: {image.path.name} is there already, "
                f"in line {first[image.location]}; keep one of them"
            )
        if given and image.split is None:
            raise UsageError(f"{file}, line {line}: no split; give one to every line or to none")
        first[image.location] = line


def _check_classes(path: Path, classes: list[str], images: list[Labelled], fewest: int) -> None:
    for label in classes:
        if label.splitlines() != [label]:
            raise UsageError(
                f"the class name {label!r} of {path} has a line break in it; rename it"
            )
    if len(classes) < fewest:
        raise UsageError(
            f"{path} has only one class, '{classes[0]}'; a classifier needs two or more. {LAYOUT}"
        )
    trained = {image.label for image in images if image.split in (None, "train")}
    if not trained:
        raise UsageError(f"{path} has no images to train on: none are in the split train")
    untrained = [image for image in images if image.label not in trained]
    if untrained:
        raise UsageError(
            f"{path}: class '{untrained[0].label}' is in {untrained[0].split} but not in train "
            f"({untrained[0].path}). Add images of it to train, or remove it; "
            "if it is a spelling of another class, rename it."
        )


def _check_file_names(images: list[Labelled]) -> None:
    """A name that isn't Unicode (from an old archive) can't be written into any report."""
    for image in images:
        try:
            str(image.path).encode("utf-8")
        except UnicodeEncodeError:
            raise UsageError(
                f"a file name is not valid Unicode: {os.fsencode(image.path)!r}. "
                "Rename it; `convmv` does so for a whole folder."
            ) from None
