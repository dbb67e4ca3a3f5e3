"""An ONNX file, whoever made it, as what is timed: its inputs, and the right answers to them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.errors import EdgewiseError, UsageError, missing_package, shortened
from edgewise.files import sha256_file
from edgewise.measure.onnx_shapes import read_graph
from edgewise.measure.store import fingerprint

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIX = ".onnx"
GRAPH, INPUTS, RIGHT = "graph.onnx", "inputs.npy", "right.npy"
IMAGES = 4  # that all runtimes must answer alike
QUANTISED = ("QuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger")


class NoAnswer(EdgewiseError):
    """Nobody can say what the right answers of a file are: a time of it would mean nothing."""


@dataclass(frozen=True)
class FileInput:
    """What one call of a file takes, and what its numbers are.

    Attributes:
        name: of the one input.
        shape: of it.
        type: of its numbers.
        precision: "int8" if the file quantises anything, else that of its weights.
    """

    name: str
    shape: tuple[int, ...]
    type: np.dtype[Any]
    precision: str

    @property
    def imgsz(self) -> int:
        """Height and width of an image in pixels; 0 if it has two, or if the input is none."""
        if len(self.shape) != 4:
            return 0
        height, width = self.shape[1:3] if self.shape[3] in (1, 3, 4) else self.shape[2:]
        return height if height == width else 0


@dataclass(frozen=True)
class FileSubject:
    """A file at one shape of input.

    Attributes:
        path: of the file.
        inputs: (calls, ...) of the input's type.
        right: float32 (images, outputs): the answers of `right_answers`.
    """

    path: Path
    inputs: NDArray[Any]
    right: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one call."""
        return self.inputs.shape[1:]

    @property
    def graph(self) -> str:
        """A fingerprint of the file, its weights and the shape."""
        return file_graph(self.path, self.shape)

    @property
    def bytes(self) -> int:
        """Of the file, and of those with its weights."""
        return sum(path.stat().st_size for path in (self.path, *self._weights))

    def save(self, folder: Path) -> None:
        """Writes it to `folder`, for another process to `open_subject`."""
        shutil.copyfile(self.path, folder / GRAPH)
        for path in self._weights:  # the graph names them by their places beside it
            place = folder / path.relative_to(self.path.parent)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        np.save(folder / INPUTS, self.inputs)
        np.save(folder / RIGHT, self.right)

    @property
    def _weights(self) -> list[Path]:
        return weight_files(self.path)


def file_graph(path: Path, shape: tuple[int, ...]) -> str:
    """A fingerprint of an ONNX file, its weights and the shape of its input."""
    return fingerprint(*map(sha256_file, (path, *weight_files(path))), shape)


def weight_files(path: Path) -> list[Path]:
    """The files beside an ONNX file that hold weights of it: "model.onnx.data" ("external data").

    Raises:
        UsageError: one is not there, or is to be looked for elsewhere.
    """
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    graph = onnx.load(path, load_external_data=False).graph
    places = {
        ExternalDataInfo(tensor).location
        for tensor in _tensors(graph)
        if uses_external_data(tensor)
    }
    for place in map(Path, places):
        if place.is_absolute() or ".." in place.parts:
            raise UsageError(f"{path} looks for weights in {place}, which is not beside it.")
        if not (path.parent / place).is_file():
            raise UsageError(f"no such file: {path.parent / place}, with weights of {path.name}")
    return [path.parent / place for place in sorted(places)]


def _tensors(graph: Any) -> Iterator[Any]:
    """All constants of a graph and of those inside of it."""
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


def read_input(path: Path, imgsz: int | None, batch: int) -> FileInput:
    """What a call takes at that size of image, where the file leaves it free.

    Raises:
        UsageError: onnx is not installed, it is no ONNX file, its size is another, it takes more
            than one input, or a file with its weights is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_package("onnx", "onnx") from error
    graph = read_graph(path, (imgsz, imgsz) if imgsz else None, batch, None)
    weight_files(path)
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise UsageError(f"{path} takes {len(inputs)} inputs; only files with one can be timed.")
    kind = inputs[0].type.tensor_type
    weights = {tensor.data_type for tensor in graph.initializer if tensor.dims}
    half = onnx.TensorProto.FLOAT16 in weights and onnx.TensorProto.FLOAT not in weights
    quantised = any(node.op_type in QUANTISED for node in graph.node)
    return FileInput(
        inputs[0].name,
        tuple(side.dim_value for side in kind.shape.dim),
        onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type),
        "int8" if quantised else "fp16" if half else "fp32",
    )


def make_file_subject(path: Path, imgsz: int | None, batch: int) -> FileSubject:
    """The file with random inputs: normally distributed numbers, or bytes.

    Raises:
        UsageError: as `read_input`.
        NoAnswer: there is nothing to compare with; the message says why.
    """
    taken = read_input(path, imgsz, batch)
    generator = np.random.default_rng(0)
    calls = (max(1, IMAGES // taken.shape[0]), *taken.shape)
    whole = np.issubdtype(taken.type, np.integer)
    random: NDArray[Any] = (
        generator.integers(0, 128 if taken.type == np.int8 else 256, calls)
        if whole
        else generator.standard_normal(calls)
    )
    inputs = random.astype(taken.type)
    right = np.concatenate([right_answers(path, taken.name, call) for call in inputs])
    return FileSubject(path, inputs, right)


def right_answers(path: Path, name: str, images: NDArray[Any]) -> NDArray[np.float32]:
    """(N, outputs): by ONNX's own evaluator, which has no kernels to be fast or wrong in.

    Operators that are not ONNX's it does not have; then ONNX Runtime's plain kernels answer.

    Raises:
        NoAnswer: neither can run it.
    """
    from onnx.reference import ReferenceEvaluator

    reasons = []
    for open_it in (ReferenceEvaluator, _plain_session):
        try:
            evaluator: Any = open_it(str(path))  # both have the same `run`
            answer = np.asarray(evaluator.run(None, {name: images})[0], dtype=np.float32)
            return answer.reshape(len(images), -1)
        except Exception as error:  # each has its own kinds
            reasons.append(shortened(error))
    raise NoAnswer(f"{path}: nobody can say what its right answers are: {'; '.join(reasons)}")


def _plain_session(path: str) -> Any:
    """ONNX Runtime without any optimisation of the graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised as well
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
