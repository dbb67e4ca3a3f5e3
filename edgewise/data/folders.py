"""What lies in a folder of images: all that people see there, but our own runs and searches.

Whoever works from inside of the data has them there: `cd photos; edgewise train .` makes
photos/runs/NAME. A plot in it is no image to learn from, and `runs` is no class.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from edgewise.data.decode import IMAGE_SUFFIXES
from edgewise.data.labelled import is_hidden
from edgewise.errors import UsageError
from edgewise.run_folder import Run

DECISIONS = "decisions.jsonl"  # of a search
PLOT = b"Software\0Matplotlib"  # in the first bytes of a PNG file


def children(folder: Path) -> list[Path]:
    """The files and folders in a folder, in natural order, without hidden ones.

    Raises:
        UsageError: it can't be read.
    """
    try:
        found = sorted(folder.iterdir(), key=lambda child: natural(child.name))
    except OSError as error:
        raise UsageError(f"can't read the folder {folder}: {error.strerror}") from None
    return [child for child in found if not is_hidden(child.name)]


def natural(name: str) -> tuple[list[str | int], str]:
    """A key that sorts as a person would: by letters without case, and by numbers as numbers."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if part.isdecimal() else part.casefold() for part in parts], name


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, in natural order, without hidden ones."""
    return [child for child in children(folder) if child.is_dir()]


def images_below(folder: Path) -> Iterator[Path]:
    """The image files at any depth in a folder that is no run or search, nor in one."""
    for images, _ in walk(folder):
        yield from images


def walk(folder: Path) -> Iterator[tuple[list[Path], list[Path]]]:
    """Of a folder and each below it: the image files in it, and whether it is a run or a search.

    A run or a search is passed over as a whole: it is given as the second list. So are plots that
    lie directly beside one. A link that leads back is not followed.
    """
    seen: set[str] = set()
    below = [folder]
    while below:
        current = below.pop()
        if (real := os.path.realpath(current)) in seen:
            continue
        seen.add(real)
        if is_result(current):
            yield [], [current]
            continue
        found = children(current)
        inner = [child for child in found if child.is_dir()]
        images = [child for child in found if is_image(child) and not child.is_dir()]
        if any(map(is_result, inner)):
            images = [image for image in images if not _is_plot(image)]
        below += reversed(inner)  # the first comes next
        yield images, []


def is_image(file: Path) -> bool:
    """Whether the name says so."""
    return file.suffix.lower() in IMAGE_SUFFIXES


def is_result(folder: Path) -> bool:
    """Whether it is a run or a search.

    A recipe alone doesn't tell: photos of a dish may lie beside a recipe.json, too.
    """
    run = Run(folder)
    return (run.recipe.is_file() and run.split.is_file()) or (folder / DECISIONS).is_file()


def only_results(folder: Path) -> bool:
    """Whether there are runs or searches at any depth in a folder, and no images but theirs."""
    found = False
    for images, results in walk(folder):
        if images:
            return False
        found = found or bool(results)
    return found


def left_out(folder: Path) -> str:
    """The warning that runs or searches in a folder are."""
    return f"not used: what edgewise made in {folder}"


def _is_plot(file: Path) -> bool:
    with file.open("rb") as start:
        return PLOT in start.read(1 << 10)
