"""The files of a trained run as they would be shipped: exported, checked, timed on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.data.dataset import Sample
from edgewise.deploy.artifact import Artifact
from edgewise.deploy.export import export
from edgewise.deploy.predictor import open_predictor, ways
from edgewise.deploy.verify import verify
from edgewise.errors import EdgewiseError
from edgewise.run_folder import Run
from edgewise.search.budget import Budget, Spent
from edgewise.search.decisions import Numbers
from edgewise.search.device import Device, Measured, TimedFile
from edgewise.search.survey import READERS
from edgewise.training.evaluate import predict_samples
from edgewise.training.metrics import top_k_accuracy, wilson

FORMAT = "onnx"
SECONDS = 2.0  # of timed calls of each file: these figures are the ones that count
BATCH = 32


def ship(
    run: Run, precisions: Sequence[str], device: Device, runtimes: Sequence[str], budget: Budget
) -> list[Numbers]:
    """Exports a run in each precision and measures each file in each runtime that reads it.

    Returns:
        For each file and runtime: folder, precision, runtime, spent (as `Spent`), low_ms, high_ms,
        used (parts of the budget), fits, and what `verify` saw on the images that the search
        selects by: accuracy, low, high, images, agreement, float_layers. A file that is wrong or
        can't be run has its "failure" and no "spent".

    Raises:
        UsageError: what writes the files is not installed.
        EdgewiseError: no file could be written, or the device went away.
    """
    artifacts = {precision: export(run.root, FORMAT, precision) for precision in precisions}
    seen = {item.precision: item for item in verify(run).artifacts}
    files = [
        TimedFile.of(artifact, f"{precision} {runtime}", runtime)
        for precision, artifact in artifacts.items()
        for runtime in READERS
        if runtime in runtimes
    ]
    measured = device.measure(files, SECONDS)
    found = []
    for file in files:
        precision, _, runtime = file.key.partition(" ")
        checked = seen[precision]
        numbers: Numbers = {
            "folder": str(artifacts[precision].folder),
            "precision": precision,
            "runtime": runtime,
            "accuracy": checked.accuracy,
            "low": checked.accuracy_low,
            "high": checked.accuracy_high,
            "accuracy_model": checked.accuracy_model,
            "images": checked.images,
            "agreement": checked.agreement,
            "float_layers": list(checked.float_layers),
            "failure": wrong(checked.failures, precision),
        }
        found.append(numbers | costs(measured[file.key], artifacts[precision], budget))
    return found


def wrong(failures: Sequence[str], precision: str) -> str:
    """Why a file may not be shipped. What int8 loses of the accuracy is weighed, not forbidden."""
    lost = [text for text in failures if "accuracy" in text and precision == "int8"]
    return "; ".join(text for text in failures if text not in lost)


def costs(measured: Measured, artifact: Artifact, budget: Budget) -> Numbers:
    """What an artefact costs on the device, and whether that is within the budget."""
    if measured.timing is None:
        return {"failure": measured.failure, "fits": False}
    latency = measured.timing.latency
    spent = Spent(
        latency.median_ms,
        latency.p90_ms,
        latency.p99_ms,
        artifact.bytes,
        measured.memory_bytes,
    )
    return {
        "spent": asdict(spent),
        "low_ms": measured.timing.low_ms,
        "high_ms": measured.timing.high_ms,
        "runs": latency.runs,
        "used": budget.parts(spent),
        "fits": budget.holds(spent),
    }


def best_file(files: Sequence[Numbers]) -> Numbers | None:
    """The most accurate of those that fit, and of equals the fastest; None if none fits."""
    fitting = [file for file in files if file["fits"] and not file["failure"]]
    return max(
        fitting, key=lambda file: (file["accuracy"], -file["spent"]["median_ms"]), default=None
    )


def accuracy_on(folder: Path, runtime: str, samples: Sequence[Sample], workers: int) -> Numbers:
    """What a shipped file answers to samples: here, in its runtime, or in another that reads it.

    The device may have a runtime that this machine has not. "tested_in" says which it was.

    Raises:
        EdgewiseError: there are none.
    """
    if not samples:
        raise EdgewiseError("there is no image to test on")
    predictor: Any = open_predictor(folder, runtime if runtime in ways(folder) else "")
    probabilities = predict_samples(
        predictor.probabilities, samples, predictor.preprocess, BATCH, workers
    )
    labels = np.array([sample.label for sample in samples])
    accuracy = top_k_accuracy(labels, probabilities, 1)
    low, high = wilson(round(accuracy * len(samples)), len(samples))
    return {
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "images": len(samples),
        "tested_in": predictor.runtime,
    }
