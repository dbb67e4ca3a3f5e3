"""Run folders written by hand, as the other verbs would: real pictures, real predictions."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from edgewise.deploy.artifact import MAIN, Info, making
from edgewise.deploy.verification import Seen, Verification
from edgewise.families import variant
from edgewise.model import Model
from edgewise.network import Network, build
from edgewise.preprocess import Preprocess
from edgewise.run_folder import Run
from edgewise.training.recipe import Recipe
from edgewise.weights.folder import save_model

Array = np.ndarray[Any, Any]


NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def write_rows(path: Path, header: str, rows: Iterable[Iterable[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(rows)


@dataclass(frozen=True)
class Made:
    """A run folder and what went into its evaluation."""

    run: Run
    labels: tuple[str, ...]
    truth: Array  # (N,)
    probabilities: Array  # (N, C)

    @property
    def answers(self) -> Array:
        return self.probabilities.argmax(1)


def photo_paths(truth: Array) -> list[str]:
    return [f"class {t}/{i:04}.png" for i, t in enumerate(truth)]


def write_photos(photos: Path, images: Array, truth: Array) -> None:
    """Writes `images`, uint8 (N, H, W) or (N, H, W, 3), as files of the classes `truth` (N,)."""
    for path, image in zip(photo_paths(truth), images, strict=True):
        (photos / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(photos / path)


def make_run(
    root: Path, photos: Path, labels: tuple[str, ...], truth: Array, probabilities: Array
) -> Made:
    """A finished run. `probabilities` (N, C) are its model's answers to all of `photos`."""
    run = Run(root / "runs" / "first")
    paths = photo_paths(truth)

    recipe = Recipe(
        data="photos", pretrained=True, imgsz=64, epochs=8, lr=1e-3, head_epochs=2, workers=2
    )
    recipe.write(_ready(run.recipe))
    write(run.environment, {
        "edgewise": "0.1.0", "python": "3.11.4", "torch": "2.13.0+cpu", "platform": "Linux-6.1",
        "cpu": "AMD EPYC 7B13", "cores": 2, "device": "cpu", "started": "2025-11-21T22:04:11Z",
        "command": "edgewise train photos --epochs 8 --imgsz 64 --name first",
    })  # fmt: skip
    supports = np.bincount(truth, minlength=len(labels))
    halves = {label: int(n) // 2 for label, n in zip(labels, supports, strict=True)}
    write(run.data, {
        "root": str(photos), "fingerprint": hashlib.sha256(truth.tobytes()).hexdigest(),
        "classes": labels, "quarantined": 2,
        "counts": {
            "train": {label: 2 * n + i % 7 for i, (label, n) in enumerate(halves.items())},
            "val": halves,
            "test": dict(zip(labels, supports.tolist(), strict=True)),
        },
    })  # fmt: skip
    write_rows(run.split, "path,label,split,sha256", (
        (path, labels[t], ("train", "test")[2 * i >= len(truth)], f"{i:064x}")
        for i, (path, t) in enumerate(zip(paths, truth, strict=True))
    ))  # fmt: skip
    write_rows(run.quarantine, "path,label,split,reason", [
        ("class 0/holiday.jpg", labels[0], "train", "damaged: image file is truncated"),
        ("class 1/notes.jpg", labels[1], "test", "empty file (0 bytes)"),
    ])  # fmt: skip
    write_rows(
        run.metrics,
        "epoch,phase,lr,train_loss,train_accuracy,val_loss,val_accuracy,"
        "val_macro_f1,score,images_per_second,seconds",
        (
            (e, "head" if e <= 2 else "all", 1e-3 * np.cos(e / 6) ** 2, 0.4 + 1.9 / e,
             0.96 - 0.5 / e, 0.1 + 1.6 / e**1.3, *3 * (0.975 - 0.4 / e**1.5,), 410.0, 21.5)
            for e in range(1, 9)
        ),
    )  # fmt: skip
    preprocess = Preprocess(64, 0.875, "bicubic", (127.0,) * 3, (128.0,) * 3)
    save_model(Model(_network(len(labels)), preprocess, labels), run.model)
    weights = hashlib.sha256(run.weights.read_bytes()).hexdigest()
    info = Info("model.onnx", "onnx", "fp32", labels, preprocess)
    with making(run.exports / MAIN) as folder:
        info.write(folder)
        (folder / info.file).write_bytes(b"not a real one" * 1000)
    artifact = run.exports / MAIN / info.file
    sha256 = hashlib.sha256(artifact.read_bytes()).hexdigest()
    _write_evaluation(run, weights, labels, paths, truth, probabilities)
    seen = Seen(
        name=MAIN, folder=f"export/{MAIN}", file=f"export/{MAIN}/model.onnx", sha256=sha256,
        bytes=13_512_345, format="onnx", precision="fp32", runtime="onnxruntime 1.31.1", golden=16,
        golden_largest_difference=2.1e-7, images=320, largest_difference=3.6e-7, agreement=1.0,
        accuracy=0.971, accuracy_low=0.946, accuracy_high=0.985, accuracy_model=0.971,
        median_ms=3.217, p90_ms=3.94,
    )  # fmt: skip
    write(run.verification, Verification(weights, "val", (), 1e-4, 0.01, (seen,)).to_json())
    write(run.cost, {
        "params": 3_382_000, "macs": 32_700_000, "input_size": 64, "weights_bytes": 13_700_000,
        "artifact_bytes": 13_512_345, "artifact_sha256": sha256, "runtime": "onnxruntime 1.31.1",
        "latency": {"median_ms": 3.217, "p90_ms": 3.94, "p99_ms": 6.1, "runs": 611, "warmup": 12},
        "machine": {"cpu": "AMD EPYC 7B13", "cores": 2, "platform": "Linux-6.1"},
    })  # fmt: skip
    return Made(run, labels, truth, probabilities)


@cache
def _network(classes: int) -> Network:
    """One that can be run, though the answers aren't its own."""
    torch.manual_seed(0)
    return build(variant("mobilenet_v3_small").spec(0.25, classes=classes)).eval()


def _write_evaluation(
    run: Run,
    weights: str,
    labels: tuple[str, ...],
    paths: list[str],
    truth: Array,
    probabilities: Array,
) -> None:
    answers, confidence = probabilities.argmax(1), probabilities.max(1)
    right = answers == truth
    classes = range(len(labels))
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, answers, labels=classes, zero_division=0.0
    )
    bins = [(confidence > i / 10) & (confidence <= (i + 1) / 10) for i in range(10)]
    calibration = [
        {
            "low": i / 10,
            "high": (i + 1) / 10,
            "count": int(inside.sum()),
            "confidence": float(confidence[inside].mean()) if inside.any() else 0.0,
            "accuracy": float(right[inside].mean()) if inside.any() else 0.0,
        }
        for i, inside in enumerate(bins)
    ]
    gaps = [b["count"] * abs(b["confidence"] - b["accuracy"]) for b in calibration]
    top5 = (np.argsort(-probabilities, 1)[:, :5] == truth[:, None]).any(1).mean()
    write(run.evaluation / "test.json", {
        "split": "test", "model_sha256": weights, "images": len(truth), "skipped": [],
        "top1": float(right.mean()),
        "top5": float(top5) if len(labels) > 5 else None,
        "ece": float(sum(gaps) / len(truth)), "classes": labels,
        "confusion": confusion_matrix(truth, answers, labels=classes).tolist(),
        "per_class": [
            {"label": label, "precision": p, "recall": r, "f1": f, "support": int(n)}
            for label, p, r, f, n in zip(labels, precision, recall, f1, support, strict=True)
        ],
        "calibration": calibration,
    })  # fmt: skip
    rows = np.arange(len(truth))
    write_rows(
        run.evaluation / "test.csv",
        "path,label,predicted,probability,probability_label",
        zip(paths, (labels[t] for t in truth), (labels[a] for a in answers), confidence,
            probabilities[rows, truth], strict=True),
    )  # fmt: skip


def _ready(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
