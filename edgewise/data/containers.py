"""Images inside of larger files: tar shards, Parquet and Arrow tables, NumPy archives.

Such an image has a location that reads as a path: `shards/train-000000.tar/000012.jpg` is a member,
`photos.parquet/000012` and `digits.npz/x_train/000012` are rows, counted from 0. Nothing is
unpacked; a container is indexed once in a process, and processes that are forked later share that.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from edgewise.errors import EdgewiseError, UsageError
from edgewise.files import is_folder

# What opens each kind: a module beside this one and its class, imported when it is needed.
KINDS = {
    ".tar": ("tar", "TarShard"),
    ".parquet": ("tables", "ParquetRows"),
    ".arrow": ("tables", "ArrowRows"),
    ".npz": ("arrays", "Arrays"),
}


class ContainerError(EdgewiseError):
    """An image can't be had from its container; the message is a short reason."""


class Container(Protocol):
    """An open container.

    Attributes:
        damage: what is missing at its end, as a sentence that names it; "" if it is whole.
    """

    damage: str

    def read(self, inside: str, most: int) -> bytes | Path:
        """The bytes of an image file, or the file itself where the container only names it.

        Args:
            inside: the location below the container, such as "000012.jpg".
            most: bytes that are read at most.

        Raises:
            ContainerError: there is no such image, it was cut off, or it is over the limit.
        """


def container_of(path: Path) -> tuple[Path, str] | None:
    """The container that a location leads into, and the rest; None for an ordinary file."""
    for parent in path.parents:
        if parent.suffix.lower() in KINDS and not is_folder(parent):
            return parent, path.relative_to(parent).as_posix()
    return None


def open_container(path: Path) -> Container:
    """A container, indexed if this process hasn't done so.

    Raises:
        UsageError: no such file, it is damaged, or the package that reads it is not installed.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from None
    return _open(path, found.st_mtime_ns, found.st_size)


@cache
def _open(path: Path, mtime: int, size: int) -> Container:
    """Keyed by time and size too: a file that is replaced is another one."""
    module, name = KINDS[path.suffix.lower()]
    kind = getattr(import_module(f"edgewise.data.{module}"), name)
    return cast(Container, kind(path))


def open_all(paths: Iterable[Path]) -> list[Container]:
    """Opens every container that these locations lead into, before processes are forked that read.

    Raises:
        UsageError: one can't be opened; see `open_container`.
    """
    inside = (container_of(path) for path in paths)
    return [open_container(path) for path in dict.fromkeys(found[0] for found in inside if found)]


def check_whole(paths: Iterable[Path]) -> None:
    """Whether every container that these locations lead into is there to its end.

    Raises:
        EdgewiseError: one is gone, damaged or cut off; the message names it and the last sample.
    """
    for container in open_all(paths):
        if container.damage:
            raise EdgewiseError(f"{container.damage}. Put the whole file back.")


def row_number(inside: str, rows: int) -> int:
    """A location's last part as the number of a row.

    Raises:
        ContainerError: it is none, or there are fewer rows.
    """
    if not inside.isdecimal() or int(inside) >= rows:
        raise ContainerError(f"no row '{inside}': there are {rows:,}, from 0")
    return int(inside)


def row_names(rows: int) -> list[str]:
    """The names of rows: numbers with zeros in front, so that they sort as they lie."""
    width = len(str(max(rows - 1, 0)))
    return [f"{row:0{width}}" for row in range(rows)]
