"""The one table of export formats: the command line, its help and the docs are made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgewise.errors import UsageError, unknown

if TYPE_CHECKING:
    from edgewise.deploy.predictor import Predictor
    from edgewise.model import Model


@dataclass(frozen=True)
class Reader:
    """A runtime that answers from an exported file.

    Attributes:
        name: as `edgewise bench` calls it.
        extra: the extra of `pip install 'edgewise[...]'` that it needs.
        package: the distribution.
        open: loads a file.
    """

    name: str
    extra: str
    package: str
    open: Callable[[Path], Predictor]

    def version(self) -> str | None:
        """As installed; None if it is not."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None


@dataclass(frozen=True)
class Format:
    """A kind of file that a model can be exported to.

    Attributes:
        name: what `--format` takes.
        suffix: how its files end; no two formats share one.
        summary: one line for people: what runs it.
        extra: the extra of `pip install 'edgewise[...]'` that it needs.
        export: writes a model to a file of this format.
        readers: the runtimes that read such a file; the first is the one that `verify` asks.
    """

    name: str
    suffix: str
    summary: str
    extra: str
    export: Callable[[Model, Path], None]
    readers: tuple[Reader, ...]


# The runtimes are imported when they are used: the table itself costs nothing to read.
def _export_onnx(model: Model, path: Path) -> None:
    from edgewise.deploy.onnx import export

    export(model, path)


def _open_onnx(path: Path) -> Predictor:
    from edgewise.deploy.onnx import OnnxPredictor

    return OnnxPredictor(path)


def _open_openvino(path: Path) -> Predictor:
    from edgewise.deploy.openvino import OpenVinoPredictor

    return OpenVinoPredictor(path)


READERS = (
    Reader("onnxruntime", "onnx", "onnxruntime", _open_onnx),
    Reader("openvino", "openvino", "openvino", _open_openvino),
)
FORMATS = {
    format.name: format
    for format in (
        Format("onnx", ".onnx", "ONNX, run by ONNX Runtime", "onnx", _export_onnx, READERS),
    )
}


def format_named(name: str) -> Format:
    """The format called `name`.

    Raises:
        UsageError: there is none; the message has the nearest names.
    """
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    return FORMATS[name]


def format_of(path: Path) -> Format:
    """The format of a file, told by its suffix.

    Raises:
        UsageError: no format has this suffix.
    """
    for format in FORMATS.values():
        if path.suffix.lower() == format.suffix:
            return format
    suffixes = ", ".join(format.suffix for format in FORMATS.values())
    raise UsageError(
        f"{path} is not an exported model: its name should end in {suffixes}. "
        "Give a model name, a run folder, a model folder or an exported file."
    )
