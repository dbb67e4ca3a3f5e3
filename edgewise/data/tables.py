"""Parquet and Arrow tables with an image in each row, as Hugging Face writes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from edgewise.data.containers import ContainerError, row_number
from edgewise.errors import UsageError, missing_package

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise missing_package("pyarrow", "data") from error

IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img"), ("label", "labels")
MANIFEST_COLUMNS = ("path", "label")
LARGEST_GROUP = 2**30  # bytes of a Parquet row group, which has to be read as a whole
GROUPS_KEPT = 4  # in a process
END = b"\xff\xff\xff\xff\0\0\0\0"  # of an Arrow stream
_LOCK = Lock()  # threads that want the same row group read it once


@dataclass(frozen=True)
class Columns:
    """Which columns hold what.

    Attributes:
        image: structs of bytes and path, or bytes; "" in a manifest.
        label: numbers or names.
        split: "train", "val" or "test"; "" if there is no such column.
        names: of the classes, where the schema says what the numbers stand for.
    """

    image: str
    label: str
    split: str
    names: tuple[str, ...] | None

    @classmethod
    def of(cls, schema: pa.Schema, path: Path) -> Columns:
        """The columns of a table.

        Raises:
            UsageError: it has no images or no labels.
        """
        features = _features(schema)
        class_labels = [name for name, kind in features.items() if "names" in kind]
        image = next((name for name in IMAGE_COLUMNS if name in schema.names), "")
        label = next((name for name in LABEL_COLUMNS if name in schema.names), "")
        if not label and len(class_labels) == 1:
            label = class_labels[0]
        if not label or not (image or "path" in schema.names):
            raise UsageError(
                f"{path} has the columns {', '.join(schema.names)[:200]}: training needs 'label', "
                "and 'image' (with the bytes of an image file) or 'path'"
            )
        names = tuple(features[label]["names"]) if label in class_labels else None
        return cls(image, label, "split" if "split" in schema.names else "", names)


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What the package `datasets` notes of the columns."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: kind for name, kind in noted.items() if isinstance(kind, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


class ParquetRows:
    """A Parquet file. To read a row its row group is decoded, and the last few are kept.

    Raises:
        UsageError: it is no whole Parquet file, or its row groups are too large to read at random.
    """

    damage = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with pq.ParquetFile(path) as file:
                self.schema, meta = file.schema_arrow, file.metadata
                groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"{path} is not a Parquet file, or is cut off: {error}") from None
        self.columns = Columns.of(self.schema, path)
        self.ends = np.cumsum([group.num_rows for group in groups], dtype=np.int64)
        self.rows = int(self.ends[-1]) if groups else 0
        largest = max((group.total_byte_size for group in groups), default=0)
        if self.columns.image and largest > LARGEST_GROUP:
            raise UsageError(
                f"{path} has row groups of up to {largest:,} bytes, each of which is read whole. "
                "Write it again with smaller ones, such as row_group_size=100."
            )

    def column(self, name: str) -> list[Any]:
        """All values of a column; not for images."""
        with pq.ParquetFile(self.path) as file:
            values: list[Any] = file.read([name], use_threads=False).column(0).to_pylist()
        return values

    def read(self, inside: str, most: int) -> bytes | Path:
        """The image of a row; see `Container.read`."""
        row = row_number(inside, self.rows)
        group = int(np.searchsorted(self.ends, row, side="right"))
        first = int(self.ends[group - 1]) if group else 0
        try:
            with _LOCK:
                column = _row_group(self.path, self.path.stat().st_mtime_ns, group, self)
        except (pa.ArrowException, OSError) as error:
            raise ContainerError(f"row group {group} of {self.path} is damaged: {error}") from None
        return _image(column[row - first], self.path, most)


@lru_cache(maxsize=GROUPS_KEPT)
def _row_group(path: Path, mtime: int, group: int, rows: ParquetRows) -> pa.ChunkedArray:
    # Without threads of its own Arrow can be used in a process that was forked.
    with pq.ParquetFile(path, pre_buffer=False) as file:
        return file.read_row_group(group, [rows.columns.image], use_threads=False).column(0)


class ArrowRows:
    """An Arrow file of `datasets`' `save_to_disk`, mapped into memory.

    Raises:
        UsageError: it is no whole Arrow stream; the message says after which row it ends.
    """

    damage = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        batches: list[pa.RecordBatch] = []
        try:
            with pa.ipc.open_stream(pa.memory_map(str(path))) as stream:
                self.schema = stream.schema
                batches.extend(stream)
            with path.open("rb") as file:
                file.seek(-len(END), 2)
                if file.read() != END:  # the reader takes a cut between two batches for the end
                    raise OSError("its mark of the end is missing")
        except (pa.ArrowException, OSError) as error:
            rows = sum(len(batch) for batch in batches)
            raise UsageError(
                f"{path} is not an Arrow stream, or is cut off after row {rows:,}: {error}"
            ) from None
        self.table = pa.Table.from_batches(batches, self.schema)
        self.rows = len(self.table)
        self.columns = Columns.of(self.schema, path)

    def column(self, name: str) -> list[Any]:
        """All values of a column; not for images."""
        values: list[Any] = self.table.column(name).to_pylist()
        return values

    def read(self, inside: str, most: int) -> bytes | Path:
        """The image of a row; see `Container.read`."""
        row = row_number(inside, self.rows)
        return _image(self.table.column(self.columns.image)[row], self.path, most)


def _image(value: Any, path: Path, most: int) -> bytes | Path:
    """A cell of the image column: its bytes, or the file that it names."""
    cell = value.as_py()
    if isinstance(cell, dict):
        cell = cell.get("bytes") or (path.parent / cell["path"] if cell.get("path") else None)
    if not isinstance(cell, bytes | Path):
        raise ContainerError("there is no image in this row")
    if isinstance(cell, bytes) and len(cell) > most:
        raise ContainerError(f"{len(cell):,} bytes is over the limit of {most:,}")
    return cell
