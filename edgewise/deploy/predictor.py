"""One way to ask any model, whatever it is stored as: uint8 pixels in, probabilities out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgewise.deploy.artifact import MAIN, MAIN_INT8, Artifact, Info
from edgewise.deploy.engine import EnginePredictor
from edgewise.deploy.formats import Reader, format_of, is_exported
from edgewise.errors import UsageError, missing_package
from edgewise.files import read_json, sha256_file
from edgewise.run_folder import Run
from edgewise.shell import command_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgewise.model import Model
    from edgewise.preprocess import Preprocess


class Predictor(Protocol):
    """A model that is ready to answer.

    Attributes:
        labels: a name for each column of the answer.
        preprocess: how an image becomes its input (`preprocess.pixels`).
        runtime: what computes the answer, with its version.
    """

    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def preprocess(self) -> Preprocess: ...
    @property
    def runtime(self) -> str: ...

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB (N, size, size, 3) -> float32 (N, classes), each row summing to 1."""


def open_predictor(source: str | Path, runtime: str = "") -> Predictor:
    """A predictor for a model name, a run folder, a model folder or an exported file.

    Args:
        source: what is to answer; an exported file or its folder is one of these.
        runtime: which of `ways(source)`; "" for the first.

    Raises:
        UsageError: `source` is none of these, can't be read as what it is, or is not for `runtime`.
    """
    known = ways(source)
    if runtime and runtime not in known:
        raise UsageError(f"{source} can be run by {', '.join(known)} here, not by {runtime}.")
    return known[runtime or next(iter(known))].open()


@dataclass(frozen=True)
class Way:
    """A runtime that can answer here: its version, and what loads the model into it."""

    version: str
    open: Callable[[], Predictor]


def ways(source: str | Path) -> dict[str, Way]:
    """What can answer for `source` here, by the names of `edgewise bench`.

    An exported file, or its folder, has a way for each installed runtime that reads it. All else
    has PyTorch, and a run has the ways of its `main_artifact`, if that was verified as it now is
    and can be read here.

    Raises:
        UsageError: `source` is an exported file that nothing which is installed can read.
    """
    path = Path(source)
    if Artifact.is_artifact(path):
        path = Artifact.read(path).path
        if not path.exists():
            raise UsageError(f"{path} is missing. Export it again.")
    if path.is_file() or (path.is_dir() and is_exported(path)):  # an .mlpackage is a folder
        return _of_file(path)
    known = {"torch": Way(metadata.version("torch"), lambda: _in_pytorch(source))}
    if Run.is_run(path) and (of_run := verified_artifact(Run(path))):
        with suppress(UsageError):  # its runtime is not installed, or what is beside it is damaged
            known |= _of_file(of_run)
    return known


def _of_file(path: Path) -> dict[str, Way]:
    beside = path.parent if Artifact.is_artifact(path.parent) else None
    info = Artifact.read(beside).info if beside else None
    readers = format_of(path).readers
    if not readers:
        raise UsageError(f"{path} can't be run on this machine, only where its runtime is.")
    versions = ((reader, reader.version()) for reader in readers)
    here = {
        reader.name: Way(version, partial(_open, reader, path, info))
        for reader, version in versions
        if version
    }
    if not here:
        raise missing_package(readers[0].package, readers[0].extra)
    return here


def _open(reader: Reader, path: Path, info: Info | None) -> Predictor:
    return EnginePredictor(reader.open(path, info))


def _in_pytorch(source: str | Path) -> Predictor:
    model = open_classifier(source)
    from edgewise.deploy.pytorch import TorchPredictor
    from edgewise.training.rounding import as_learned

    return TorchPredictor(as_learned(model))


def main_artifact(run: Run) -> Path:
    """The folder of the ONNX file that computes as the run's network learned to: in int8, or not.

    It is there once it was exported.
    """
    from edgewise.weights.folder import learned_int8

    return run.exports / (MAIN_INT8 if learned_int8(run.model) else MAIN)


def verified_artifact(run: Run) -> Path | None:
    """The file in `main_artifact`, if `verify` has passed it and it and the model are unchanged."""
    if not run.verification.is_file():
        return None
    try:
        seen = read_json(run.verification)
        found = next(item for item in seen["artifacts"] if item["name"] == main_artifact(run).name)
        path = run.root / found["file"]
        digests = ((path, found["sha256"]), (run.weights, seen["model_sha256"]))
        passed = found["status"] == "passed"
    except (UsageError, KeyError, TypeError, StopIteration):  # edited: nothing is known then
        return None
    unchanged = all(file.is_file() and sha256_file(file) == digest for file, digest in digests)
    return path if passed and unchanged else None


def open_classifier(source: str | Path) -> Model:
    """`open_model` of one that can answer for pictures.

    Raises:
        UsageError: as there; or it takes no RGB images, or has no classes.
    """
    model = open_model(source)
    if (channels := model.network.spec.in_chans) != 3:
        raise UsageError(
            f"{source} takes images of {channels} channels, not of 3. Make one that does: "
            f"edgewise.create_model('{source}', in_chans=3)"
        )
    if not model.labels:
        raise UsageError(
            f"{source} has no classifier, so it knows no classes. "
            f"Train from it first: {command_line('train', 'photos/', '--model', source)}"
        )
    return model


def open_model(source: str | Path) -> Model:
    """The PyTorch model of a model name (with its ImageNet weights), a run or a model folder.

    Raises:
        UsageError: `source` is none of these, or can't be read as what it is.
    """
    from edgewise.weights.folder import load_model
    from edgewise.weights.pretrained import ALIASES, load_pretrained, resolve

    path = Path(source)
    if path.is_dir():
        return load_model(Run(path).trained().model if Run.is_run(path) else path)
    if path.exists():
        raise UsageError(f"{path} is a file. Give a model name, a run folder or a model folder.")
    network = str(source).partition(".")[0]  # timm's names have their tag after a dot
    if path.name != str(source) or (path.suffix and network not in ALIASES):
        raise UsageError(
            f"no such file or folder: {source}. "
            "Give a model name, a run folder, a model folder or an exported file."
        )
    name, width, _, tag = resolve(str(source))
    model = load_pretrained(name, tag, width)
    if not model.labels:
        raise UsageError(
            f"the weights '{tag}' of {name} learned without labels and know no classes. "
            f"Train from them first: {command_line('train', 'photos/', '--model', source)}"
        )
    return model
