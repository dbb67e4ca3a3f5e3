"""What a search is asked for, as `search.json` keeps it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from edgewise.files import read_json, write_json
from edgewise.validation import from_plain, record

# OpenVINO's own files are only measured in what ONNX has not: by default they add nothing.
FORMATS = ("onnx", "openvino")
PRECISIONS = ("fp32", "int8")


def _as_stored(value: object) -> object:
    """A path as text and a list as a tuple: as JSON has them, so that equal requests are equal."""
    if isinstance(value, PathLike):
        return str(value)
    return tuple(value) if isinstance(value, list) else value


Text = Annotated[str, BeforeValidator(_as_stored)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_stored)]


@record()
class Request:
    """What to search for.

    Attributes:
        data: folder or file of labelled images.
        budget: as a person writes it, see `Budget.parse`.
        minutes: for all of it, on this machine.
        device: where files are timed: "local", "ssh:user@host".
        threads: that a call may use there.
        precisions: of the files that may be shipped.
        models: networks that may take part; none for all that can be had.
        seed: the same seed on the same machine gives the same trainings.
        flip: whether mirrored images are of the same class.
        workers: processes that decode; None for one a core.
        train_device: what training uses, see `edgewise train --device`.
        formats: of the files that may be shipped, as far as they have the precisions.

    Raises:
        UsageError: one is of the wrong type or out of range; the message names it.
    """

    data: Text
    budget: str
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    device: str = "local"
    threads: int = 1
    precisions: Names = PRECISIONS
    models: Names = ()
    seed: int = 0
    flip: bool = True
    workers: Annotated[int, Field(ge=0)] | None = None
    train_device: str = "auto"
    formats: Names = FORMATS  # of which an older search had no choice

    def write(self, path: Path) -> None:
        """Writes it as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Request:
        """The inverse of `write`.

        Raises:
            UsageError: there is none, or it is damaged.
        """
        return from_plain(cls, read_json(path), f"{path} is not what a search was asked for")


# Folders of runs, in that of the search.
TRIALS, FINAL, DISTILLED, SHRUNK, AGAIN = RUNS = (
    "trials",
    "final",
    "distilled",
    "shrunk",
    "again",
)


@dataclass(frozen=True)
class SearchFolder:
    """Paths in the folder of one search."""

    root: Path

    @property
    def request(self) -> Path:
        """What was asked for."""
        return self.root / "search.json"

    @property
    def decisions(self) -> Path:
        """Every decision with its numbers, a line each."""
        return self.root / "decisions.jsonl"

    @property
    def trials(self) -> Path:
        """The short trainings, a run folder each."""
        return self.root / TRIALS

    @property
    def final(self) -> Path:
        """The long training: a run folder with the exported files."""
        return self.root / FINAL

    @property
    def distilled(self) -> Path:
        """The same network once more, from a better one's answers: a run folder."""
        return self.root / DISTILLED

    @property
    def shrunk(self) -> Path:
        """What compression made: a run folder each."""
        return self.root / SHRUNK

    @property
    def again(self) -> Path:
        """The long training again, from all images but the test's: run folders."""
        return self.root / AGAIN

    @property
    def report(self) -> Path:
        """The report."""
        return self.root / "report.html"

    def place(self, path: Path) -> str:
        """A path in the folder as the log keeps it: from there on, so that all can be moved."""
        return path.relative_to(self.root).as_posix()

    def at(self, place: str) -> Path:
        """The inverse. An older log has the path from where the search was started."""
        parts = Path(place).parts
        start = max((i for i, part in enumerate(parts) if part in RUNS), default=0)
        return self.root.joinpath(*parts[start:])

    @staticmethod
    def is_search(path: Path) -> bool:
        """Whether a folder is one of a search."""
        return (path / "search.json").is_file()
