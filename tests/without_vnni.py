"""int8 graphs on an emulated processor that adds two products in 16 bits; also the script for it.

    qemu-x86_64 -cpu Haswell python tests/without_vnni.py FOLDER

answers each .npy in FOLDER by the .onnx file of its name, and writes an .npz with the answers.
"""

from __future__ import annotations

import os
import platform
import shutil
import site
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PROCESSOR = "Haswell"  # AVX2 and no VNNI
EMULATOR = shutil.which("qemu-x86_64") if platform.machine() == "x86_64" else None


def answers_of_runtimes(path: Path) -> list[NDArray[np.float32]]:
    """Of ONNX Runtime and OpenVINO, with one thread, to the .npy file beside a graph."""
    import onnxruntime

    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    x = np.load(path.with_suffix(".npy"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    first = session.run(None, {session.get_inputs()[0].name: x})[0]
    return [np.asarray(first), np.array(compiled(x)[0])]


def answer_without_vnni(folder: Path) -> None:
    """Runs this script there."""
    assert EMULATOR
    python = str(Path(sys.executable).resolve())
    done = subprocess.run(
        [EMULATOR, "-cpu", PROCESSOR, python, __file__, str(folder)],
        # The emulated interpreter doesn't know of the virtual environment.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(site.getsitepackages())},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


if __name__ == "__main__":
    for graph in sorted(Path(sys.argv[1]).glob("*.onnx")):
        np.savez(graph.with_suffix(".npz"), *answers_of_runtimes(graph))
