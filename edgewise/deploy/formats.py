"""The one table of export formats: the command line, its help and the docs are made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgewise.errors import UsageError, unknown

if TYPE_CHECKING:
    from edgewise.deploy.predictor import Predictor
    from edgewise.model import Model


@dataclass(frozen=True)
class Format:
    """A kind of file that a model can be exported to.

    Attributes:
        name: what `--format` takes.
        suffix: how its files end; no two formats share one.
        summary: one line for people: what runs it.
        extra: the extra of `pip install 'edgewise[...]'` that it needs.
        export: writes a model to a file of this format.
        open: reads such a file back in its own runtime.
    """

    name: str
    suffix: str
    summary: str
    extra: str
    export: Callable[[Model, Path], None]
    open: Callable[[Path], Predictor]


# The runtimes are imported when they are used: the table itself costs nothing to read.
def _export_onnx(model: Model, path: Path) -> None:
    from edgewise.deploy.onnx import export

    export(model, path)


def _open_onnx(path: Path) -> Predictor:
    from edgewise.deploy.onnx import OnnxPredictor

    return OnnxPredictor(path)


FORMATS = {
    format.name: format
    for format in (
        Format("onnx", ".onnx", "ONNX, run by ONNX Runtime", "onnx", _export_onnx, _open_onnx),
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
