"""OpenVINO: its own two files, and those or ONNX files in its runtime on the CPU."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy import onnx
from edgewise.deploy.artifact import Info
from edgewise.deploy.onnx import INPUT, METADATA, OUTPUT, read_info
from edgewise.deploy.onnx_pixels import in_rows
from edgewise.deploy.quantize_entry import in_openvino
from edgewise.errors import CantWrite, UsageError, shortened
from edgewise.files import write_bytes
from edgewise.libraries import openvino_core

if TYPE_CHECKING:
    from openvino import Dimension

    from edgewise.deploy.formats import Job

PRECISION = "INFERENCE_PRECISION_HINT"
PLACE = ["framework", METADATA]  # where OpenVINO keeps an ONNX file's metadata, and we ours


def write(job: Job) -> tuple[str, ...]:
    """Writes `model.xml` and `model.bin`.

    In "fp16" the weights are stored in half the bytes; "bf16" asks the runtime for bfloat16 sums,
    which a processor must have. Returns the layers of an "int8" file that compute in float.

    Raises:
        UsageError, EdgewiseError: as `edgewise.deploy.onnx.write`.
    """
    import openvino

    with TemporaryDirectory() as folder:
        source = Path(folder, "model.onnx")
        proto, kept = job_graph(job)
        write_bytes(source, onnx.to_bytes(own_graph(proto)))
        model = openvino.convert_model(source)
        for port, name in ((model.inputs[0], INPUT), (model.outputs[0], OUTPUT)):
            port.get_tensor().set_names({name})
        try:
            openvino.save_model(model, job.path, compress_to_fp16=job.precision == "fp16")
        except RuntimeError as error:  # a full disk, in the words of C++
            raise CantWrite(
                f"can't write {job.path} ({shortened(error)}). Free some space or choose another "
                "folder; what was there before is unchanged."
            ) from error
    return kept


def job_graph(job: Job) -> tuple[Any, tuple[str, ...]]:
    """As that of the format "onnx", but as OpenVINO is fastest at it.

    In int8 a layer and what follows it are one kernel of its; blocks are `rewritten`.
    """
    from edgewise.deploy.openvino_blocks import rewritten

    model = replace(job.model, network=rewritten(job.model.network))
    return onnx.job_graph(replace(job, model=model), fuses=True)


def own_graph(proto: Any) -> Any:
    """What a graph of `job_graph` becomes for OpenVINO alone: with its pixels read faster."""
    ready = in_openvino(proto)
    return ready if ready is not proto else in_rows(proto)


class OpenVinoEngine:
    """OpenVINO on the CPU; needs no PyTorch."""

    def __init__(self, path: Path, info: Info | None) -> None:
        import openvino

        # Said for each: left alone, it takes bfloat16 wherever the processor is faster at it.
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            PRECISION: "bf16" if info is not None and info.bf16 else "f32",
        }

        core = openvino_core()

        @cache
        def compiled(single: bool) -> Any:
            # With a free batch it does not plan its memory: a third slower on a small network.
            free = core.read_model(path)
            if single:
                free.reshape([1, *_sides(free.inputs[0].partial_shape)])
            return core.compile_model(free, "CPU", settings)

        self.compiled = compiled
        try:
            model = core.read_model(path)
            one = compiled(single=True)
            entry = str(model.get_rt_info(PLACE).value) if model.has_rt_info(PLACE) else None
            inputs = [(port.any_name, _sides(port.partial_shape)) for port in model.inputs]
            outputs = [(port.any_name, _sides(port.partial_shape)) for port in model.outputs]
        except (RuntimeError, UnicodeDecodeError, IndexError) as error:
            kind = "ONNX" if path.suffix == ".onnx" else "an OpenVINO model"
            reason = str(error).strip().rpartition("\n")[2]
            raise UsageError(f"{path} can't be read as {kind} by OpenVINO ({reason})") from error
        self.info = read_info(path, entry, inputs, outputs, info)
        self.runtime = f"openvino {openvino.__version__.partition('-')[0]}"
        half = one.get_property(PRECISION) == openvino.Type.bf16
        if self.info.precision == "bf16" and not half:
            self.runtime += " in float32, as this processor has no bfloat16"

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        return np.array(self.compiled(single=len(inputs) == 1)({INPUT: inputs})[OUTPUT])


def open_engine(path: Path, info: Info | None) -> OpenVinoEngine:
    """An OpenVINO or ONNX file in OpenVINO.

    Raises:
        UsageError: it is neither, is cut off, or was not exported by edgewise.
    """
    return OpenVinoEngine(path, info)


def _sides(shape: list[Dimension]) -> list[int]:
    """All but the batch, of a fixed shape."""
    return [side.get_length() for side in list(shape)[1:]]
