"""A labelled image before anybody has looked at it, and the names that splits go by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def is_hidden(name: str) -> bool:
    """Whether people don't see a file or folder of that name, or don't know what it is."""
    return name.startswith(".") or name == "__MACOSX"  # what macOS leaves in a zip


def relative(path: Path, root: Path) -> str:
    """A path as files and messages show it: relative to the root if it is below it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A file that says it is an image, its class, and its split where the layout gives one.

    There may be very many, so it holds little.

    Attributes:
        location: the path, as text. It may lead into a container, as in
            `shards/train-000000.tar/000012.jpg`.
        label: the name of its class.
        split: "train", "val", "test" or None.
    """

    location: str
    label: str
    split: str | None

    @property
    def path(self) -> Path:
        """The location as a path."""
        return Path(self.location)
