"""Builds a TensorRT engine of the model beside this file, and checks its answers.

    python3 build.py [LARGEST_BATCH]

Run it on the device that the engine is for: an engine fits one kind of GPU and one version of
TensorRT. It needs trtexec, of TensorRT 10 or later, and NumPy. It writes model.engine.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ONNX, ENGINE = HERE / "model.trt.onnx", HERE / "model.engine"
LARGEST_BATCH = 16
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-2}  # of a probability


def flags(precision: str, size: int, largest: int) -> "list[str]":
    """What trtexec is told to build; the types are those of the graph."""
    shapes = [f"--{name}Shapes=pixels:{n}x{size}x{size}x3" for name, n in batches(largest)]
    exact = ["--noTF32"] if precision == "fp32" else []
    return [f"--onnx={ONNX}", "--stronglyTyped", *shapes, *exact, f"--saveEngine={ENGINE}"]


def batches(largest: int) -> "list[tuple[str, int]]":
    """The fewest images at once, the number that it is made fast for, and the most."""
    return [("min", 1), ("opt", 1), ("max", largest)]


def largest_difference(trtexec: str, most: int) -> float:
    """Between two probabilities: the engine's to the golden inputs, and those of the model."""
    with np.load(HERE / "golden.npz") as golden:
        pixels, expected = golden["pixels"][:most], golden["probabilities"][:most]
    shape = "x".join(str(side) for side in pixels.shape)
    with tempfile.TemporaryDirectory() as folder:
        inputs, answers = Path(folder, "pixels.raw"), Path(folder, "answers.json")
        inputs.write_bytes(pixels.tobytes())
        run(
            trtexec,
            f"--loadEngine={ENGINE}",
            f"--shapes=pixels:{shape}",
            f"--loadInputs=pixels:{inputs}",
            f"--exportOutput={answers}",
        )
        text = re.sub(r"-?\b(nan|inf)\b", "NaN", answers.read_text())  # C++'s words are not JSON
        found = {item["name"]: item["values"] for item in json.loads(text)}
    got = np.array(found["probabilities"], np.float32).reshape(expected.shape)
    return float(np.nan_to_num(np.abs(got - expected), nan=1.0).max())


def run(*command: str) -> None:
    """Ends the program where the command fails."""
    print(" ".join(command), flush=True)
    if status := subprocess.run(command, check=False).returncode:
        sys.exit(f"{Path(command[0]).name} ended with {status}; its own words are above")


def main() -> None:
    """The engine, then its check: the exit status is 1 if an answer is wrong."""
    trtexec = shutil.which("trtexec") or shutil.which("/usr/src/tensorrt/bin/trtexec")
    if not trtexec:
        sys.exit("no trtexec: install TensorRT 10 or later, and put its bin folder on the PATH")
    precision = json.loads((HERE / "artifact.json").read_text())["precision"]
    size = json.loads((HERE / "preprocess.json").read_text())["size"]
    largest = int(sys.argv[1]) if len(sys.argv) > 1 else LARGEST_BATCH
    run(trtexec, *flags(precision, size, largest))
    difference = largest_difference(trtexec, largest)
    print(f"largest difference of a probability from the model's own: {difference:.1e}")
    if difference > TOLERANCE[precision]:
        sys.exit(f"FAIL: over {TOLERANCE[precision]:.0e}. Don't ship {ENGINE.name}.")
    print(f"PASS: {ENGINE}")


if __name__ == "__main__":
    main()
