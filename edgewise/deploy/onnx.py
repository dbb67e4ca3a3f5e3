"""ONNX: a model as one self-contained file, and such a file in ONNX Runtime."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewise import __version__
from edgewise.deploy.artifact import Info
from edgewise.deploy.onnx_batch import ANY, TRACED, free_batch
from edgewise.errors import EdgewiseError, UsageError, shortened
from edgewise.files import write_bytes
from edgewise.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgewise.deploy.formats import Job
    from edgewise.model import Model

# PyTorch's own choice; ONNX Runtime reads it from 1.17 on. In 18 a GELU is four operators, which
# ONNX Runtime leaves apart: 23.3 ms for 20.8 of ConvNeXt-atto.
OPSET = 20
INPUT, OUTPUT = "pixels", "probabilities"
LARGEST = (1 << 31) - (1 << 24)  # bytes of weights: a protobuf has 2 GiB, operators included
LONGEST_REASON = 160  # characters of ONNX Runtime's own words in our error
_LAST: dict[str, bytes] = {}  # the graph that was made last, by its model's digest
METADATA = "edgewise"  # the metadata_props entry that makes a file ours


def write(job: Job) -> tuple[str, ...]:
    """Writes `Classifier(job.model)`: the same bytes for the same model and versions.

    The graph takes "pixels", uint8 RGB (N, size, size, 3) with any N, normalises them itself and
    gives "probabilities", float32 (N, classes). The file's metadata holds the JSON object
    "edgewise" (version, spec, labels, preprocess) and, for other tools, the JSON list "labels".
    Leaves the network in eval mode. Returns the layers of an int8 file that compute in float.

    Raises:
        UsageError: a layer to keep in float that the network has not.
        EdgewiseError: the weights are more than an ONNX file holds; the file can't be written, and
            what was there before is unchanged. For int8: there are no images to calibrate on, or
            the network gives no finite numbers on them.
    """
    proto, kept = job_graph(job)
    write_bytes(job.path, to_bytes(proto))
    return kept


def job_graph(job: Job, fuses: bool = False) -> tuple[Any, tuple[str, ...]]:
    """The graph for a job, and if it is in int8 the layers of it that are in float.

    Args:
        job: whose model and precision count.
        fuses: of an int8 graph, see `edgewise.deploy.quantize.Calibrated`.
    """
    proto = graph_of(job.model)
    if job.precision != "int8":
        return proto, ()
    from edgewise.deploy.quantize_keep import int8_graph

    assert job.calibration is not None  # `export` sees to it
    quantized, kept = int8_graph(
        proto,
        job.calibration,
        job.keep_float,
        job.checked,
        fuses,
        job.model.int8_ranges,
        job.most_changed,
    )
    if kept.note:
        job.notes.append(kept.note)
    return quantized, kept.layers


def graph_of(model: Model) -> Any:
    """The graph of `write` as an `onnx.ModelProto`.

    The last one is remembered: a model is mostly exported in fp32 and then in int8, and to trace it
    takes longer than most else.
    """
    import onnx

    digest = _digest(model)
    if digest not in _LAST:
        graph = to_bytes(_trace(model))
        _LAST.clear()
        _LAST[digest] = graph
    return onnx.load_from_string(_LAST[digest])


def _digest(model: Model) -> str:
    """Of the weights, and of all else that a graph is made by."""
    whole = hashlib.sha256(repr((model, model.network.spec)).encode())
    for name, values in model.network.state_dict().items():
        whole.update(name.encode())
        whole.update(values.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()


def _trace(model: Model) -> Any:
    import onnx
    import torch

    from edgewise.model import Classifier

    weights = sum(value.nbytes for value in model.network.state_dict().values())
    if weights > LARGEST:
        raise EdgewiseError(
            f"{model.network.spec.name} has {weights / 1e9:.1f} GB of weights, and an ONNX file, "
            "of which the formats onnx, openvino and tensorrt are made, holds 2 GB. Export it with "
            "--format torch-export, or take a smaller network."
        )
    size = model.preprocess.size
    example = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    proto = to_onnx(Classifier(model).eval(), (example,), INPUT, OUTPUT, any_batch=True)
    _strip_traces(proto.graph)
    onnx.helper.set_model_props(proto, metadata_of(model))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def to_bytes(proto: Any) -> bytes:
    """The bytes of a graph, the same for the same graph."""
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def to_onnx(
    module: nn.Module, example: tuple[Tensor], input: str, output: str, any_batch: bool = False
) -> Any:
    """The module as an `onnx.ModelProto` of the shapes of `example`, or of any first dimension.

    Raises:
        EdgewiseError: torch and onnxscript are too far apart in age to work together.
    """
    if not any_batch:
        return _exported(module, example, input, output)
    many = (example[0][:1].expand(TRACED, *example[0].shape[1:]),)
    proto = free_batch(_exported(module, many, input, output))
    return proto or _exported(module, many, input, output, any_batch=True)


def _exported(
    module: nn.Module, example: tuple[Tensor], input: str, output: str, any_batch: bool = False
) -> Any:
    import torch

    try:
        with quiet():
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                input_names=[input],
                output_names=[output],
                dynamic_shapes=({0: torch.export.Dim(ANY)},) if any_batch else None,
                optimize=True,  # folds batch norm; torch 2.6 does it only when asked
                verbose=False,
            )
    except ImportError as error:
        raise EdgewiseError(
            f"torch {torch.__version__} can't export with the onnxscript that is installed "
            f"({shortened(error)}). Upgrade it: pip install --upgrade onnxscript"
        ) from error
    assert program is not None
    return program.model_proto


def metadata_of(model: Model) -> dict[str, str]:
    """What a file says of itself: text for each name, as `write` has it."""
    ours = {
        "version": __version__,
        "spec": model.network.spec.name,
        "labels": model.labels,
        "preprocess": model.preprocess.to_json(),
    }
    return {
        METADATA: json.dumps(ours, ensure_ascii=False),
        "labels": json.dumps(model.labels, ensure_ascii=False),
    }


def _strip_traces(graph: Any) -> None:
    """Drops the exporter's notes: source lines and paths of the machine that exported."""
    del graph.metadata_props[:]
    for part in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        for item in part:
            del item.metadata_props[:]


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters warn of their own deprecations and log every step; neither is for our user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


class OnnxEngine:
    """ONNX Runtime on the CPU; needs no PyTorch."""

    def __init__(self, path: Path, info: Info | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised as well
        try:
            self.session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
            entries = self.session.get_modelmeta().custom_metadata_map
        except Exception as error:  # its exceptions have no common class but this
            raise UsageError(
                f"{path} can't be read as ONNX: it is not an ONNX file, is cut off, or is of a "
                f"version that this onnxruntime doesn't know. Export it again with edgewise. "
                f"({_shortened(error)})"
            ) from error
        inputs = [(item.name, item.shape[1:]) for item in self.session.get_inputs()]
        outputs = [(item.name, item.shape[1:]) for item in self.session.get_outputs()]
        self.info = read_info(path, entries.get(METADATA), inputs, outputs, info)
        self.runtime = f"onnxruntime {onnxruntime.__version__}"

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        (answer,) = self.session.run([OUTPUT], {INPUT: inputs})
        return np.asarray(answer)


def open_engine(path: Path, info: Info | None) -> OnnxEngine:
    """An ONNX file in ONNX Runtime.

    Raises:
        UsageError: it is not ONNX, is cut off, or was not exported by edgewise.
    """
    return OnnxEngine(path, info)


def read_info(
    path: Path,
    entry: str | None,
    inputs: list[tuple[str, list[int]]],
    outputs: list[tuple[str, list[int]]],
    beside: Info | None,
) -> Info:
    """What an exported file is, from its metadata as a runtime reads it.

    Args:
        path: of the file, for the errors.
        entry: the text of its `METADATA`; None if it has none.
        inputs: the graph's, each with its name and its shape without the batch.
        outputs: likewise.
        beside: what the artefact says that the file is in; None for a file on its own.

    Raises:
        UsageError: edgewise did not export it, or the metadata and the graph don't go together.
    """
    if entry is None:
        raise UsageError(
            f"{path} was not exported by edgewise: it has no '{METADATA}' metadata, so its "
            "labels and preprocessing are not known. Make one with: edgewise export"
        )
    try:
        ours = json.loads(entry)
        labels, preprocess = tuple(ours["labels"]), Preprocess.from_json(ours["preprocess"])
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise UsageError(
            f"{path}: its '{METADATA}' metadata is damaged ({error}). Export it again."
        ) from error
    size = preprocess.size
    if inputs != [(INPUT, [size, size, 3])] or outputs != [(OUTPUT, [len(labels)])]:
        raise UsageError(
            f"{path}: its metadata ({len(labels)} labels, {size} pixels) don't fit "
            f"its graph (inputs {inputs}, outputs {outputs}). Export it again."
        )
    if beside is None:
        return Info(path.name, "onnx", "fp32", labels, preprocess)
    return replace(beside, labels=labels, preprocess=preprocess)


def _shortened(error: Exception) -> str:
    """The end of the first line: ONNX Runtime puts its C++ signatures before the reason."""
    line = str(error).strip().partition("\n")[0]
    return line if len(line) <= LONGEST_REASON else f"... {line[-LONGEST_REASON:]}"
