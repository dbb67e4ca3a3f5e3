"""`edgewise run` against what a good engineer does by hand with timm: same data, time and latency.

    python benchmarks/run_by_hand.py --budget 4 8 --minutes 4     # 3 seeds each: an hour
    python benchmarks/run_by_hand.py --quick                      # to see that it works

By hand: every network whose pretrained weights can be had here is exported from timm to ONNX at
224 px and timed in ONNX Runtime on one thread, and at smaller sizes if none fits; the one with the
best published accuracy that fits (in float32, or else in ONNX Runtime's own static int8, per
channel) is fine-tuned as timm's script does, for as many epochs as the time allows, exported,
quantised if it must be, and tested in ONNX Runtime. The engineer is given more than the script:
the faster memory layout, the crop that was the best in `train_accuracy.py`, and all measuring for
free. Ours has its survey of the device in the cache, and searches, trains, exports and tests within
the time.

Rows are added to `run_by_hand.csv` run by run. What is in it is not run again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `edgewise run` does; for both

import numpy as np
import torch
from bench import RESULTS, read_csv, write_csv
from pictures import TASKS, Task, without_copies, write_task
from PIL import Image
from torch import nn
from train_accuracy import TIMM_SETTINGS, Job, fine_tune, timm_network

from edgewise.deploy.onnx import to_onnx
from edgewise.errors import EdgewiseError
from edgewise.measure.store import machine_fingerprint
from edgewise.search.decisions import Decisions
from edgewise.search.device import TimedFile, open_device
from edgewise.search.entrants import SIZES, entrants

SETTINGS = TIMM_SETTINGS[-1]
CALIBRATION = 64
WAYS = ("edgewise", "by hand")


@dataclass(frozen=True)
class Pick:
    """What the engineer trains."""

    model: str
    imgsz: int
    int8: bool


def pick(budget_ms: float, classes: int, folder: Path) -> Pick:
    """The best published network that fits, at the largest of the usual sizes at which one does."""
    names = [e.model for e in sorted(entrants(), key=lambda e: -e.top1) if e.pretrained]
    device = open_device("local", 1)
    random = np.random.default_rng(0)
    for imgsz in reversed(SIZES):
        for model in names:
            network = timm_network(model)
            network.reset_classifier(classes)  # type: ignore[operator]
            whole = export(network, imgsz, folder / f"{model}-{imgsz}.onnx")
            noise = random.standard_normal((4, 1, 3, imgsz, imgsz)).astype(np.float32)
            small = quantise(whole, list(noise))
            files = [TimedFile(str(path), path, "onnxruntime") for path in (whole, small)]
            seen = device.measure(files)
            for file, int8 in zip(files, (False, True), strict=True):
                timing = seen[file.key].timing
                if timing and timing.latency.median_ms <= budget_ms:
                    return Pick(model, imgsz, int8)
    raise EdgewiseError(f"nothing fits {budget_ms:g} ms by hand")


def export(network: nn.Module, imgsz: int, path: Path) -> Path:
    """timm's network as a plain ONNX file of float images and logits."""
    proto = to_onnx(network.eval(), (torch.zeros(1, 3, imgsz, imgsz),), "images", "logits")
    path.write_bytes(proto.SerializeToString())
    return path


def quantise(path: Path, images: Sequence[np.ndarray]) -> Path:
    """ONNX Runtime's own static quantization, as its documentation recommends for CNNs on a CPU."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {"images": image}

    prepared, made = path.with_suffix(".prepared.onnx"), path.with_suffix(".int8.onnx")
    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(made),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
    )
    return made


def pictures_of(
    folder: Path, imgsz: int, config: dict[str, Any]
) -> tuple[list[np.ndarray], list[int]]:
    """Normalised float32 (1, 3, imgsz, imgsz) pictures of a folder of classes; their labels."""
    side = (imgsz, imgsz)
    mean, std = (np.array(config[name], np.float32) for name in ("mean", "std"))
    images, labels = [], []
    for label, own in enumerate(sorted(folder.iterdir())):
        for path in sorted(own.iterdir()):
            picture = Image.open(path).convert("RGB").resize(side, Image.Resampling.BICUBIC)
            values = (np.asarray(picture, np.float32) / 255 - mean) / std
            images.append(values.transpose(2, 0, 1)[None].astype(np.float32))
            labels.append(label)
    return images, labels


def by_hand(data: Path, chosen: Pick, task: Task, minutes: float, seed: int) -> dict[str, Any]:
    """One afternoon of the engineer's."""
    import onnxruntime
    from timm.data import resolve_data_config

    began = time.perf_counter()
    job = Job("timm", str(data), task.flip, 2, chosen.imgsz, seed, {}, SETTINGS)
    _, trial = fine_tune(job, timm_network(chosen.model))
    epoch = trial.epoch_seconds[-1]
    spent = time.perf_counter() - began
    epochs = max(1, int((60 * minutes - (trial.seconds - sum(trial.epoch_seconds))) / epoch))
    job = replace(job, epochs=epochs, tests={"float": str(data / "test")})
    network = timm_network(chosen.model)
    network, outcome = fine_tune(job, network)
    config = resolve_data_config({}, model=network)
    with TemporaryDirectory() as folder:
        path = export(network.float(), chosen.imgsz, Path(folder) / "model.onnx")
        if chosen.int8:
            images, _ = pictures_of(data / "train", chosen.imgsz, config)
            order = np.random.default_rng(seed).permutation(len(images))[:CALIBRATION]
            path = quantise(path, [images[i] for i in order])
        seconds = time.perf_counter() - began - spent
        session = onnxruntime.InferenceSession(str(path))
        images, labels = pictures_of(data / "test", chosen.imgsz, config)
        right = [
            int(np.argmax(session.run(None, {"images": image})[0])) == label
            for image, label in zip(images, labels, strict=True)
        ]
        seen = open_device("local", 1).measure([TimedFile("it", path, "onnxruntime")])["it"]
        assert seen.timing, seen.failure
        return {
            "model": chosen.model,
            "imgsz": chosen.imgsz,
            "file": "int8 onnxruntime" if chosen.int8 else "fp32 onnxruntime",
            "minutes": round(seconds / 60, 2),
            "median_ms": round(seen.timing.latency.median_ms, 3),
            "size_mb": round(path.stat().st_size / 1e6, 2),
            "accuracy_in_float": round(outcome.tested["float"], 4),
            "accuracy": round(float(np.mean(right)), 4),
        }


def ours(data: Path, budget_ms: float, task: Task, minutes: float, seed: int) -> dict[str, Any]:
    """`edgewise run`, as it comes."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "edgewise", "run", str(data)]
        command += ["--budget", f"latency={budget_ms}ms", "--time", f"{60 * minutes:.0f}s"]
        command += ["--name", "it", "--seed", str(seed), *([] if task.flip else ["--no-flip"])]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode not in (0, 3):
            raise EdgewiseError(f"edgewise run failed: {done.stderr[-2000:]}")
        made = Decisions(Path(folder) / "runs" / "it" / "decisions.jsonl").made
    test, trial = made["test"], made["train"]["trial"]
    model, _, imgsz = trial.rpartition("-")
    return {
        "model": model,
        "imgsz": imgsz,
        "file": f"{test['precision']} {test['runtime']}",
        "minutes": round(seconds / 60, 2),
        "median_ms": round(test["spent"]["median_ms"], 3),
        "size_mb": round(test["spent"]["size_bytes"] / 1e6, 2),
        "accuracy_in_float": "",
        "accuracy": round(test["accuracy"], 4),
    }


def main() -> None:
    """Runs what is missing, adds it to the file and prints it."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed, a few digits")
    parser.add_argument("--budget", nargs="+", type=float, default=[4.0, 8.0], help="in ms")
    parser.add_argument("--minutes", type=float, default=4.0, help="wall time of each")
    parser.add_argument("--data", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    quick: bool = arguments.quick
    folder: Path = arguments.results / "quick" if quick else arguments.results
    path = folder / "run_by_hand.csv"
    for name in ["mnist"] if quick else arguments.data:
        task = TASKS[name]
        pools = task.pools()
        if quick:
            pools = {label: (learned, tested[:5]) for label, (learned, tested) in pools.items()}
        for budget in arguments.budget:
            chosen: Pick | None = None
            for seed in range(1 if quick else arguments.seeds):
                for way in WAYS:
                    key = {
                        "machine": machine_fingerprint(),
                        "torch": torch.__version__,
                        "data": name,
                        "budget_ms": budget,
                        "given_minutes": arguments.minutes,
                        "way": way,
                        "seed": seed,
                    }
                    rows: list[dict[str, Any]] = [*read_csv(path)]
                    wanted = {column: str(value) for column, value in key.items()}
                    if any(wanted.items() <= row.items() for row in rows):
                        continue
                    with TemporaryDirectory() as made:
                        data = without_copies(write_task(task, pools, Path(made) / "data", seed))
                        if way == "edgewise":
                            row = ours(data, budget, task, arguments.minutes, seed)
                        else:
                            chosen = chosen or pick(budget, len(pools), Path(made))
                            row = by_hand(data, chosen, task, arguments.minutes, seed)
                    folder.mkdir(parents=True, exist_ok=True)
                    write_csv(path, [*rows, {**key, **row}], list({**key, **row}))
                    print(key | row, flush=True)


if __name__ == "__main__":
    try:
        main()
    except EdgewiseError as error:
        sys.exit(f"error: {error}")
