"""An artefact: a folder with a model for one runtime, and all that it takes to use and to check it.

model.onnx         the file that the runtime loads, or several
preprocess.json    labels, the rule from an image to the input, and how the file was made
golden.npz         inputs with their answers, see `edgewise.deploy.golden`
predict.py         answers for photos on the device, without edgewise: on_device.py
MANIFEST.sha256    of all of these
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from edgewise.errors import UsageError
from edgewise.files import (
    MANIFEST,
    changed_files,
    claimed_name,
    files_below,
    read_json,
    read_labels,
    sha256_file,
    unlisted_files,
    unwritten,
    write_json,
    write_labels,
    write_manifest,
)
from edgewise.preprocess import Preprocess
from edgewise.validation import from_plain, one_of, record

INFO, PREPROCESS, LABELS, GOLDEN = "artifact.json", "preprocess.json", "labels.txt", "golden.npz"
PREDICT = "predict.py"  # of a format that Python can run
README, BUILD = "README.md", "build.py"  # of a format that is finished on the device
ENGINE = "model.engine"  # what BUILD makes there
OURS = (INFO, PREPROCESS, LABELS, GOLDEN, PREDICT, README, BUILD, MANIFEST)
MAIN = "onnx-fp32"  # the artefact that stands for a run where one is wanted,
MAIN_INT8 = "onnx-int8"  # and for one whose network learned to compute in int8
PIXELS, NORMALISED = "pixels", "normalised"
PROBABILITIES, LOGITS = "probabilities", "logits"
MOST_CHANGED = 0.02  # of the top classes, by int8, unless another part is asked for


def _plain_name(value: str) -> str:
    if not value or Path(value).name != value:
        raise ValueError("must be the name of a file in the folder")
    return value


@record()
class Info:
    """What an artefact's text files say.

    Attributes:
        file: the name of the file that the runtime loads.
        format: of it, see `edgewise.deploy.formats`.
        precision: "fp32", "fp16", "bf16" or "int8".
        labels: a name for each column of the answer.
        preprocess: how an image becomes the input.
        input: "pixels" for uint8 (N, size, size, 3), which the file normalises itself;
            "normalised" for float32 (N, 3, size, size) with mean and standard deviation applied.
        output: "probabilities" or "logits", float32 (N, classes).
        batch: images at once: 1, or 0 for any number.
        spec: the name of the network.
        made_with: the distributions that made the file, with their versions.
        float_layers: layers that an int8 file computes in float.
        calibrated_on: images that an int8 file was calibrated on.
        notes: sentences on what the file does otherwise than one may think.
        keep_float: layers that int8 was asked to leave in float; None: as few as keep the answers.
        most_changed: and then, the share of the images whose top class int8 was let change.
        calibrate: the images that int8 was asked to be calibrated on; "" for a run's own.
    """

    file: Annotated[str, AfterValidator(_plain_name)]
    format: str
    precision: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    input: Annotated[str, one_of(PIXELS, NORMALISED)] = PIXELS
    output: Annotated[str, one_of(PROBABILITIES, LOGITS)] = PROBABILITIES
    batch: Annotated[int, one_of(0, 1)] = 0
    spec: str = ""
    made_with: tuple[str, ...] = ()
    float_layers: tuple[str, ...] = ()
    calibrated_on: Annotated[int, Field(ge=0)] = 0
    notes: tuple[str, ...] = ()
    keep_float: tuple[str, ...] | None = None
    most_changed: Annotated[float, Field(ge=0, le=1)] = MOST_CHANGED
    calibrate: str = ""

    @property
    def name(self) -> str:
        """As in "onnx-int8"."""
        return f"{self.format}-{self.precision}"

    @property
    def bf16(self) -> bool:
        """Whether it computes in bfloat16 where the runtime and the processor can.

        What an int8 file leaves in float does: bfloat16 has 8 bits of each number, and int8 has 8
        bits of the largest one of a map.
        """
        return self.precision == "bf16" or bool(self.float_layers)

    def write(self, folder: Path) -> None:
        """Writes the text files.

        Raises:
            EdgewiseError: one can't be written.
        """
        value = asdict(self)
        write_labels(folder / LABELS, value.pop("labels"))
        write_json(folder / PREPROCESS, value.pop("preprocess"))
        write_json(folder / INFO, value)

    @classmethod
    def read(cls, folder: Path) -> Info:
        """The inverse of `write`.

        Raises:
            UsageError: a file is missing, or damaged; or of a format that there is not.
        """
        from edgewise.deploy.formats import format_named  # which takes names from here

        value = read_json(folder / INFO)
        if isinstance(value, dict):
            value["labels"] = read_labels(folder / LABELS)
            value["preprocess"] = read_json(folder / PREPROCESS)
        info = from_plain(cls, value, INFO)
        format_named(info.format).check(info.precision)
        return info


@dataclass(frozen=True)
class Artifact:
    """An artefact's folder, and what it says of itself."""

    folder: Path
    info: Info

    @property
    def path(self) -> Path:
        """The file that the runtime loads."""
        return self.folder / self.info.file

    @property
    def bytes(self) -> int:
        """Of all that the runtime loads."""
        return sum(path.stat().st_size for path in _loaded(self.folder).values())

    @staticmethod
    def is_artifact(folder: Path) -> bool:
        """Whether a folder is one."""
        return (folder / INFO).is_file() and (folder / MANIFEST).is_file()

    @classmethod
    def read(cls, folder: Path) -> Artifact:
        """An artefact, whose files may have changed since; see `changes`.

        Raises:
            UsageError: it is none, or a text file of it is missing or damaged.
        """
        if not cls.is_artifact(folder):
            raise UsageError(f"{folder} is not an exported model: it has no {INFO} and {MANIFEST}")
        try:
            return cls(folder, Info.read(folder))
        except UsageError as error:
            raise UsageError(f"{folder}: {error}") from None


def digest(folder: Path) -> str:
    """The SHA-256 of all that the runtime loads, as 64 hex digits; "" where there is nothing.

    Of one file it is that of its bytes; of several, that of the lines that `sha256sum` prints for
    them, sorted by name.
    """
    digests = {name: sha256_file(path) for name, path in _loaded(folder).items()}
    if len(digests) < 2:
        return "".join(digests.values())
    lines = "".join(f"{value}  {name}\n" for name, value in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _loaded(folder: Path) -> dict[str, Path]:
    """What is in an artefact's folder, by its name there, but for what is ours and hidden files."""
    ours = (*OURS, ENGINE)
    return {name: path for name, path in files_below(folder).items() if path.name not in ours}


def changes(folder: Path) -> list[str]:
    """One line for each file of an artefact that isn't as it was exported, or isn't of the export.

    Raises:
        UsageError: the folder has no manifest.
    """
    added = [name for name in unlisted_files(folder) if name != ENGINE]
    return [*changed_files(folder), *(f"{folder / name} is not in {MANIFEST}" for name in added)]


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """A folder to write an artefact into, which takes the place of `folder` when all went well.

    Whatever goes wrong, `folder` is the whole old artefact, the whole new one or not there. A kill
    leaves hidden folders beside it, which the next call removes. Where `folder` is a link, it stays
    one, and what it leads to is replaced.

    Raises:
        UsageError: `folder` holds something else, or is a file; or another process makes it now.
        CantWrite: the disk is full or can't be written.
        EdgewiseError: another error of the system, of whatever writes into it.
    """
    folder = folder.resolve()
    with claimed_name(folder):
        _check_place(folder)
        staging, old = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "old"))
        try:
            _remove(staging, old)
            staging.mkdir(parents=True)
            yield staging
            files = (path for path in staging.rglob("*") if path.is_file())
            write_manifest(staging, [path.relative_to(staging).as_posix() for path in files])
            if folder.exists():
                folder.replace(old)
            staging.replace(folder)
        except OSError as error:
            raise unwritten(folder, error) from error
        finally:
            _remove(staging, old)


def _remove(*folders: Path) -> None:
    """What can be removed of them; of a link, what it leads to stays."""
    for folder in folders:
        if folder.is_symlink():
            with suppress(OSError):
                folder.unlink()
        shutil.rmtree(folder, ignore_errors=True)


def _check_place(folder: Path) -> None:
    """Raises UsageError where there is something else than an artefact."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file. Move it away, or name another folder.")
    # It is an artefact, or one that lost a file; a model folder has a manifest as well.
    ours = any((folder / name).is_file() for name in (INFO, GOLDEN))
    if folder.exists() and not ours and any(folder.iterdir()):
        raise UsageError(f"{folder} holds something else already. Name another folder.")
