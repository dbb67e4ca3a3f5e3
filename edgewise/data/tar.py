"""WebDataset shards: tar files in which the members of a sample follow each other.

`000012.jpg` and `000012.cls` are one sample, with the key 000012: the name up to its first dot.
"""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from edgewise.data.containers import ContainerError
from edgewise.errors import UsageError

BLOCK = 512  # bytes: headers and contents begin at multiples of it
LABEL_KEYS = ("label", "cls", "class")  # of a .json
LONGEST_LABEL = 2**20  # bytes


@dataclass(frozen=True)
class TarSample:
    """A sample: its key, its image's member name, its label (an index or a name)."""

    key: str
    image: str
    label: int | str


class TarShard:
    """A tar file, indexed by one pass over its headers.

    Attributes:
        damage: how a shard that is cut off ends, "" for a whole one.

    Raises:
        UsageError: it is no tar file, or has two members of one name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members: dict[str, tuple[int, int]] = {}  # name: offset and size of the contents
        self.size = path.stat().st_size
        try:
            with tarfile.open(path, "r:") as tar:
                end = self._index(tar)
        except (tarfile.ReadError, OSError) as error:
            raise UsageError(
                f"{path} is not a tar file, or is cut off in its first header ({error}). Put the "
                "whole file back; a compressed one is not read, so unpack it to a plain .tar."
            ) from None
        with path.open("rb") as file:
            file.seek(end)
            whole = file.read(BLOCK) == bytes(BLOCK)  # the mark of the end
        self.damage = "" if whole else self._damage()

    def read(self, inside: str, most: int) -> bytes:
        """The contents of a member; see `Container.read`."""
        if inside not in self.members:
            raise ContainerError(self.damage or f"{self.path.name} has no such member")
        offset, size = self.members[inside]
        if offset + size > self.size:
            raise ContainerError(self.damage)
        if size > most:
            raise ContainerError(f"{size:,} bytes is over the limit of {most:,}")
        with self.path.open("rb") as file:  # no handle is kept: forked processes would share it
            file.seek(offset)
            return file.read(size)

    def samples(self, suffixes: frozenset[str]) -> tuple[list[TarSample], list[str]]:
        """The samples with a label, and the keys of those without an image.

        Of a shard that is cut off, the last sample is among them if its label can be read: its
        image can't be.

        Args:
            suffixes: those of images, such as ".jpg".

        Raises:
            UsageError: a sample has no label or a wrong one; the message names shard and sample.
        """
        samples, without = [], []
        groups = self._groups()
        with self.path.open("rb") as file:
            for number, (key, members) in enumerate(groups.items(), start=1):
                image = next((name for end, name in members.items() if f".{end}" in suffixes), None)
                may_be_cut = bool(self.damage) and number == len(groups)
                label = self._label(file, key, members, may_be_cut) if image else None
                if image and label is not None:
                    samples.append(TarSample(key, image, label))
                elif not may_be_cut:
                    without.append(key)
        return samples, without

    def _index(self, tar: tarfile.TarFile) -> int:
        """Fills `members`; returns where the next header should be."""
        end = 0
        try:
            for info in tar:
                size = info.size if info.isreg() else 0
                end = info.offset_data + -(-size // BLOCK) * BLOCK
                # "./a.jpg" and "/a.jpg" are a.jpg: a name must never lead out of the container.
                name = "/".join(part for part in PurePosixPath(info.name).parts if part != "/")
                if not info.isreg() or info.issparse():
                    continue
                if name in self.members:
                    raise UsageError(f"{self.path} has two members called {name}; keep one of them")
                self.members[name] = (info.offset_data, info.size)
        except tarfile.ReadError:
            pass  # the end isn't where it should be, which `__init__` finds
        return end

    def _groups(self) -> dict[str, dict[str, str]]:
        """Each key's members: the name by its ending, such as "jpg" or "seg.png"."""
        groups: dict[str, dict[str, str]] = {}
        for name in self.members:
            folder, _, last = name.rpartition("/")
            stem, dot, ending = last.partition(".")
            if stem and dot and "__MACOSX" not in folder:
                groups.setdefault(f"{folder}/{stem}".lstrip("/"), {})[ending.lower()] = name
        return groups

    def _damage(self) -> str:
        groups = self._groups()
        endings = set(next(iter(groups.values()), ()))  # what a whole sample has
        whole = [
            key
            for key, members in groups.items()
            if endings <= set(members)
            and all(sum(self.members[name]) <= self.size for name in members.values())
        ]
        last = f"the last whole one is {whole[-1]}" if whole else "none is whole"
        return (
            f"{self.path} is cut off after {self.size:,} bytes, and the samples at its end are "
            f"lost: {last}"
        )

    def _label(
        self, file: BinaryIO, key: str, members: dict[str, str], may_be_cut: bool
    ) -> int | str | None:
        where = f"{self.path}, sample {key}"
        for ending in ("cls", "json"):
            if ending not in members:
                continue
            offset, size = self.members[members[ending]]
            if offset + size > self.size:
                return None
            if size > LONGEST_LABEL:
                raise UsageError(f"{where}: a .{ending} of {size:,} bytes is no label")
            file.seek(offset)
            return _parse(file.read(size), ending, where)
        if may_be_cut:
            return None
        raise UsageError(
            f"{where} has no label: it needs a {key}.cls with a number or a name, or a {key}.json "
            'such as {"label": "daisy"}'
        )


def _parse(data: bytes, ending: str, where: str) -> int | str:
    try:
        text = data.decode("utf-8").strip()
        value: Any = text
        if ending == "json":
            value = json.loads(text)
            value = next(value[name] for name in LABEL_KEYS if name in value)
        elif text.lstrip("-").isdecimal():
            value = int(text)
    except (ValueError, TypeError, StopIteration):
        raise UsageError(f"{where}: the .{ending} holds no label: {data[:60]!r}") from None
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise UsageError(f"{where}: the label is neither a number nor a name: {value!r}")
    return value
