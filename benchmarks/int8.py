"""How much of a network's answers int8 keeps: real weights, crops of real photos.

python benchmarks/int8.py [--crops 400] [--calibrate 128]

The crops of the calibration and those that are compared are of the same eight photos, never the
same crop. Prints a line for each network, runtime and way of choosing what stays in float.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from pictures import write_photos
from PIL import Image

from edgewise.deploy.artifact import Info
from edgewise.deploy.engine import EnginePredictor
from edgewise.deploy.formats import FORMATS, Job
from edgewise.deploy.pytorch import TorchPredictor
from edgewise.measure.latency import benchmark
from edgewise.model import Model
from edgewise.weights.pretrained import load_pretrained

NETWORKS = ("efficientnet_lite0", "mobilenet_v2")
CLEAR = 0.02  # a top class that leads by less is a tie
HEADER = f"{'network':20}{'format':10}{'precision':10}{'keep float':12}{'agree':>8}{'clear':>8}"


def crops(model: Model, count: int) -> NDArray[np.uint8]:
    """uint8 (count, size, size, 3), one photo after the other in turn."""
    with TemporaryDirectory() as folder:
        paths = sorted(write_photos(Path(folder), count).rglob("*.jpg"), key=lambda p: int(p.stem))
        return np.stack([model.preprocess.pixels(Image.open(path)) for path in paths])


def lines(name: str, calibrate: int, compared: int) -> Iterator[str]:
    """The table's lines for a network."""
    model = load_pretrained(name)
    pixels = crops(model, calibrate + compared)
    seen, held = pixels[:calibrate], pixels[calibrate:]
    exact = TorchPredictor(model).probabilities(held)
    for format in ("onnx", "openvino"):
        for precision, keep in (("fp32", None), ("int8", ()), ("int8", None)):
            row = _row(model, format, precision, keep, seen, held, exact)
            how = "-" if precision == "fp32" else "auto" if keep is None else "none"
            yield f"{name:20}{format:10}{precision:10}{how:12}{row}"


def _row(
    model: Model,
    format: str,
    precision: str,
    keep: tuple[str, ...] | None,
    seen: NDArray[np.uint8],
    held: NDArray[np.uint8],
    exact: NDArray[np.float32],
) -> str:
    chosen = FORMATS[format]
    with TemporaryDirectory() as folder:
        path = Path(folder, chosen.file)
        kept = chosen.write(Job(model, precision, path, seen, keep))
        info = Info(chosen.file, format, precision, model.labels, model.preprocess)
        predictor = EnginePredictor(chosen.readers[0].open(path, info))
        answers = np.concatenate(
            [predictor.probabilities(held[at : at + 16]) for at in range(0, len(held), 16)]
        )
        latency = benchmark(lambda: predictor.probabilities(held[:1]), 1.0)
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
    same = exact.argmax(1) == answers.argmax(1)
    ends = np.sort(exact, 1)
    clear = ends[:, -1] - ends[:, -2] > CLEAR
    largest = np.abs(exact - answers).max()
    return (
        f"{same.mean():8.1%}{same[clear].mean():8.1%}{largest:8.3f}"
        f"{latency.median_ms:8.2f}{size:7.1f}{len(kept):6d}"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--calibrate", type=int, default=128)
    parser.add_argument("--crops", type=int, default=400)
    given = parser.parse_args()
    print(f"{HEADER}{'largest':>8}{'ms':>8}{'MB':>7}{'float':>6}", flush=True)
    for name in given.networks:
        for line in lines(name, given.calibrate, given.crops):
            print(line, flush=True)


if __name__ == "__main__":
    main()
