"""The files of a trained run as they would be shipped: exported, checked, timed on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.data.dataset import Sample
from edgewise.deploy.artifact import Artifact
from edgewise.deploy.decoded import decoded_once
from edgewise.deploy.export import export
from edgewise.deploy.predictor import open_predictor, ways
from edgewise.deploy.verification import Seen
from edgewise.deploy.verify import verify
from edgewise.errors import CantWrite, EdgewiseError, reason
from edgewise.files import of_disk
from edgewise.run_folder import Run
from edgewise.search.budget import Budget, Spent
from edgewise.search.decisions import Numbers
from edgewise.search.device import Device, Measured, TimedFile
from edgewise.search.ways import Way
from edgewise.training.evaluate import predict_samples
from edgewise.training.metrics import top_k_accuracy, wilson

SECONDS = 2.0  # of timed calls of each file: these figures are the ones that count
BATCH = 32
# Of a file that can't be written; it has its "failure" as well.
NOT_MADE: Numbers = {
    **dict.fromkeys(("accuracy", "low", "high", "accuracy_model", "agreement")),
    "folder": "",
    "images": 0,
    "float_layers": [],
    "fits": False,
}


def ship(
    run: Run,
    ways: Sequence[Way],
    device: Device,
    budget: Budget,
    keep_float: tuple[str, ...] | None = None,
) -> list[Numbers]:
    """Exports a run as each way asks, and measures each file in each of its runtimes.

    Args:
        run: a trained one.
        ways: to ship it.
        device: where files are timed.
        budget: that is to be met.
        keep_float: see `edgewise.deploy.export.export`.

    Returns:
        For each way: format, precision, runtime, folder, spent (as `Spent`), low_ms, high_ms, used
        (parts of the budget), fits, and what `verify` saw on the images that the search selects by:
        accuracy, low, high, images, agreement, float_layers. A file that can't be made, is wrong or
        can't be run has its "failure" and no "spent".

    Raises:
        CantWrite: the disk is full or can't be written.
        EdgewiseError: the device or the run's images went away.
    """
    made = {way.name: way for way in ways}
    with decoded_once():
        exported = {name: _exported(run, way, keep_float) for name, way in made.items()}
        artifacts = {name: item for name, item in exported.items() if isinstance(item, Artifact)}
        seen = _verified(run, list(artifacts)) if artifacts else {}
    files = [
        TimedFile.of(artifacts[way.name], str(way), way.runtime)
        for way in ways
        if way.name in artifacts
    ]
    measured = device.measure(files, SECONDS)
    found: list[Numbers] = []
    for way in ways:
        if artifact := artifacts.get(way.name):
            numbers = _checked(artifact, seen[way.name])
            numbers |= costs(measured[str(way)], artifact, budget)
        else:
            numbers = {**NOT_MADE, "failure": exported[way.name]}
        found.append({**asdict(way), **numbers})
    return found


def _exported(run: Run, way: Way, keep_float: tuple[str, ...] | None) -> Artifact | str:
    """The file, or why there is none.

    Raises:
        CantWrite: there is no place for it.
    """
    try:
        return export(run.root, way.format, way.precision, keep_float=keep_float)
    except Exception as error:  # every converter has its own kinds
        if of_disk(error):
            raise CantWrite(reason(error)) from error
        return reason(error)


def _verified(run: Run, names: Sequence[str]) -> dict[str, Seen]:
    """What `verify` saw of each of these files.

    Raises:
        EdgewiseError: the images went away.
    """
    verification = verify(run, names)
    if verification.gone:
        raise EdgewiseError(f"{verification.gone}. Bring them back.")
    return {item.name: item for item in verification.artifacts}


def _checked(artifact: Artifact, seen: Seen) -> Numbers:
    return {
        "folder": str(artifact.folder),
        "accuracy": seen.accuracy,
        "low": seen.accuracy_low,
        "high": seen.accuracy_high,
        "accuracy_model": seen.accuracy_model,
        "images": seen.images,
        "agreement": seen.agreement,
        "float_layers": list(seen.float_layers),
        "failure": wrong(seen.failures, seen.precision),
    }


def wrong(failures: Sequence[str], precision: str) -> str:
    """Why a file may not be shipped. What few bits cost in accuracy is weighed, not forbidden."""
    lost = f"{precision} loses "  # points of accuracy, as `verify` begins to say it
    return "; ".join(text for text in failures if precision == "fp32" or not text.startswith(lost))


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
    """The first of `best_first`; None if none fits."""
    return next(iter(best_first(files)), None)


def best_first(files: Sequence[Numbers]) -> list[Numbers]:
    """Those that fit: what learned from all images first, then the most accurate; then the fastest.

    Of the first no accuracy is known until the test.
    """
    fitting = [file for file in files if file["fits"] and not file["failure"]]
    return sorted(
        fitting,
        key=lambda file: (
            -math.inf if file["accuracy"] is None else -file["accuracy"],
            file["spent"]["median_ms"],
        ),
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
