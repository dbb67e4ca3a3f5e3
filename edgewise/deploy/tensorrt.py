"""TensorRT: the graph, and a script that builds the engine of it on the device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgewise.deploy import onnx, tensorrt_build
from edgewise.deploy.artifact import BUILD, README
from edgewise.deploy.onnx_half import in_half
from edgewise.files import write_bytes, write_text

if TYPE_CHECKING:
    from edgewise.deploy.formats import Job

TEXT = """\
# {name} for TensorRT, {precision}

An engine fits one kind of GPU and one version of TensorRT, so it is built where it runs. Copy this
folder to the device and run

    python3 build.py

It calls trtexec (TensorRT 10 or later), which writes model.engine, then holds the engine to the
inputs and answers in golden.npz; it needs NumPy for that. `python3 build.py 64` makes an engine
that takes up to 64 images at once instead of {largest}.

Input: "pixels", uint8 RGB (N, {size}, {size}, 3), resized and cropped as preprocess.json says; it
is normalised inside. Output: "probabilities", float32 (N, {classes}), a column for each line of
labels.txt. {types}
"""
TYPES = {
    "fp32": "All arithmetic is float32, not TF32: `--noTF32` in build.py is what makes it so.",
    "fp16": "The graph itself is float16 but for the normalisation, means, norms and softmax.",
}


def write(job: Job) -> None:
    """Writes `model.trt.onnx`, `build.py`, which makes an engine of it, and `README.md`.

    The graph is that of the format "onnx". In "fp16" its convolutions and products are float16:
    TensorRT 11 takes the precision from the graph alone and has no flags for it.

    Raises:
        EdgewiseError: a weight is too large for float16, or a file can't be written.
    """
    graph = onnx.graph_of(job.model)
    if job.precision == "fp16":
        graph = in_half(graph)
    write_bytes(job.path, onnx.to_bytes(graph))
    write_bytes(job.path.with_name(BUILD), Path(tensorrt_build.__file__).read_bytes())
    readme = TEXT.format(
        name=job.model.network.spec.name,
        precision=job.precision,
        largest=tensorrt_build.LARGEST_BATCH,
        size=job.model.preprocess.size,
        classes=len(job.model.labels),
        types=TYPES[job.precision],
    )
    write_text(job.path.with_name(README), readme)
