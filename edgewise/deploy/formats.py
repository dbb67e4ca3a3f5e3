"""The one table of export formats: the command line, its help, the docs and the tests read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgewise.deploy.artifact import MOST_CHANGED, NORMALISED, PIXELS, PROBABILITIES
from edgewise.errors import EdgewiseError, UsageError, missing_package, shortened, unknown
from edgewise.libraries import first_missing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgewise.deploy.artifact import Info
    from edgewise.deploy.engine import Engine
    from edgewise.model import Model

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True)
class Job:
    """What to write.

    Attributes:
        model: in eval mode.
        precision: one of the format's.
        path: of the file that the runtime loads; others may go beside it.
        calibration: uint8 (N, size, size, 3) of training images, for int8; else None.
        keep_float: layers, or modules of layers, that int8 leaves in float; None: those that it
            would cost too much, as far as the format can tell.
        checked: uint8 (N, size, size, 3) that the model has not learned from, on which it is seen
            what int8 costs; None where there are none.
        notes: what a person should know of the file that was written; `write` adds to it.
        most_changed: where keep_float is None, the share of images that int8 may give another top
            class.
    """

    model: Model
    precision: str
    path: Path
    calibration: NDArray[np.uint8] | None = None
    keep_float: tuple[str, ...] | None = None
    checked: NDArray[np.uint8] | None = None
    notes: list[str] = field(default_factory=list)
    most_changed: float = MOST_CHANGED


@dataclass(frozen=True)
class Reader:
    """A runtime that answers from an exported file.

    Attributes:
        name: as `edgewise bench` calls it.
        extra: the extra of `pip install 'edgewise[...]'` that it needs.
        package: the distribution.
        module: of `edgewise.deploy`; its `open_engine(path, info)` loads a file.
    """

    name: str
    extra: str
    package: str
    module: str

    def version(self) -> str | None:
        """As installed; None if it is not."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None

    def open(self, path: Path, info: Info | None) -> Engine:
        """An engine for a file; `info` is None for one that says itself what it is.

        Raises:
            UsageError: the runtime is not installed, or can't read the file.
            EdgewiseError: what is installed can't be loaded.
        """
        if self.version() is None:
            raise missing_package(self.package, self.extra)
        open_engine: Callable[[Path, Info | None], Engine]
        with _loading(self.package):
            open_engine = import_module(f"edgewise.deploy.{self.module}").open_engine
            return open_engine(path, info)


@dataclass(frozen=True)
class Format:
    """A kind of file that a model can be exported to.

    Attributes:
        name: what `--format` takes.
        file: what the file that the runtime loads is called; no two formats share its suffix.
        summary: one line for people: what runs it, and where.
        extra: the extra of `pip install 'edgewise[...]'` that it needs.
        packages: the distributions that write it.
        precisions: those that it can be written in.
        module: of `edgewise.deploy`; its `write(job)` writes the file.
        readers: the runtimes that read it here; the first is the one that `verify` asks. None if it
            can only be run elsewhere.
        input: see `edgewise.deploy.artifact.Info`.
        output: likewise.
        batch: likewise.
        keeps_float: whether layers of an int8 file can be left in float by name.
    """

    name: str
    file: str
    summary: str
    extra: str
    packages: tuple[str, ...]
    precisions: tuple[str, ...]
    module: str
    readers: tuple[Reader, ...] = ()
    input: str = PIXELS
    output: str = PROBABILITIES
    batch: int = 0
    keeps_float: bool = False

    @property
    def suffix(self) -> str:
        """How its files end."""
        return self.file.removeprefix("model")

    def missing(self) -> str:
        """The first of its packages that is not installed; "" if all are."""
        return first_missing(self.packages)

    def runs_here(self) -> bool:
        """Whether a runtime that reads it is installed."""
        return any(reader.version() for reader in self.readers)

    def not_here(self) -> str:
        """What to install to run it here; "" if it runs here, or can't at all."""
        if not self.readers or self.runs_here():
            return ""
        return str(missing_package(self.readers[0].package, self.readers[0].extra))

    def write(self, job: Job) -> tuple[str, ...]:
        """Writes a file; returns the layers of an int8 one that were left in float.

        Raises:
            UsageError: a package is missing, or the format has no such precision.
            EdgewiseError: the network can't be expressed in it (the message names layer and
                operator), the disk is full, or what is installed can't be loaded.
        """
        if missing := self.missing():
            raise missing_package(missing, self.extra)
        self.check(job.precision, job.keep_float or ())
        write: Callable[[Job], tuple[str, ...] | None]
        with _loading(*self.packages):
            write = import_module(f"edgewise.deploy.{self.module}").write
            return write(job) or ()

    def check(self, precision: str, keep_float: Sequence[str] = ()) -> None:
        """Whether the format has a precision, and can leave layers of int8 in float.

        Raises:
            UsageError: it has not, or can't.
        """
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        if precision not in self.precisions:
            raise UsageError(
                f"{self.name} has no {precision} here; it has {', '.join(self.precisions)}"
            )
        if precision == "int8" and keep_float and not self.keeps_float:
            able = " and ".join(format.name for format in FORMATS.values() if format.keeps_float)
            raise UsageError(
                f"{self.name} can't leave layers in float ({', '.join(keep_float)}); {able} can"
            )


@contextmanager
def _loading(*packages: str) -> Iterator[None]:
    """Raises EdgewiseError where one of the packages is there and fails to load: half an install, a
    library of the system that is gone.
    """
    try:
        yield
    except ImportError as error:
        which = ", ".join(packages or ("torch",))
        raise EdgewiseError(
            f"{'one of ' if len(packages) > 1 else ''}{which} is installed but can't be loaded "
            f"({shortened(error)}). Install it again."
        ) from error


ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
ONNX_RUNTIME = Reader("onnxruntime", "onnx", "onnxruntime", "onnx")
OPENVINO = Reader("openvino", "openvino", "openvino", "openvino")
LITERT_PACKAGES = ("litert-torch", "ai-edge-litert", "ai-edge-quantizer", *ONNX_PACKAGES)

FORMATS = {
    format.name: format
    for format in (
        Format(
            "onnx",
            "model.onnx",
            "ONNX Runtime, on anything; OpenVINO, TensorRT and browsers read it too",
            "onnx",
            ONNX_PACKAGES,
            ("fp32", "int8"),
            "onnx",
            (ONNX_RUNTIME, OPENVINO),
            keeps_float=True,
        ),
        Format(
            "openvino",
            "model.xml",
            "OpenVINO, on Intel and ARM processors",
            "openvino",
            ("openvino", *ONNX_PACKAGES),
            ("fp32", "fp16", "bf16", "int8"),
            "openvino",
            (OPENVINO,),
            keeps_float=True,
        ),
        Format(
            "ncnn",
            "model.ncnn.param",
            "ncnn, on phones and small boards; its float32 input is normalised by whoever runs it",
            "ncnn",
            ("pnnx",),
            ("fp32", "fp16", "bf16"),
            "ncnn",
            (Reader("ncnn", "ncnn", "ncnn", "ncnn"),),
            input=NORMALISED,
            batch=1,
        ),
        Format(
            "coreml",
            "model.mlpackage",
            "Core ML, on iPhones and Macs; converted anywhere, run only there",
            "coreml",
            ("coremltools",),
            ("fp32", "fp16"),
            "coreml",
            batch=1,
        ),
        Format(
            "tensorrt",
            "model.trt.onnx",
            "TensorRT, on NVIDIA's GPUs; its engine is built there, by the build.py beside it",
            "onnx",
            ONNX_PACKAGES,
            ("fp32", "fp16"),
            "tensorrt",
        ),
        Format(
            "litert",
            "model.tflite",
            "LiteRT (TensorFlow Lite), on phones, boards and browsers",
            "litert",
            LITERT_PACKAGES,
            ("fp32", "fp16", "int8"),
            "litert",
            (Reader("litert", "litert", "ai-edge-litert", "litert"),),
            batch=1,
        ),
        Format(
            "executorch",
            "model.pte",
            "ExecuTorch with XNNPACK, on phones and boards",
            "executorch",
            ("executorch", "torchao", *ONNX_PACKAGES),
            ("fp32", "int8"),
            "executorch",
            (Reader("executorch", "executorch", "executorch", "executorch"),),
            batch=1,
        ),
        Format(
            "torch-export",
            "model.pt2",
            "PyTorch's own graph, for PyTorch without this package and for its compilers",
            "",
            (),
            ("fp32", "bf16"),
            "torch_export",
            (Reader("torch", "", "torch", "torch_export"),),
        ),
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
    if fit := _fitting(path):
        return max(fit, key=lambda format: len(format.suffix))  # .trt.onnx ends in .onnx too
    suffixes = ", ".join(format.suffix for format in FORMATS.values())
    raise UsageError(
        f"{path} is not an exported model: its name should end in {suffixes}. "
        "Give a model name, a run folder, a model folder or an exported file."
    )


def is_exported(path: Path) -> bool:
    """Whether a name has the suffix of a format."""
    return bool(_fitting(path))


def _fitting(path: Path) -> list[Format]:
    return [format for format in FORMATS.values() if path.name.lower().endswith(format.suffix)]
