"""What the model costs: parameters, multiply-accumulates, bytes and measured milliseconds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from edgewise.deploy.artifact import Artifact
from edgewise.deploy.formats import format_named
from edgewise.deploy.predictor import main_artifact, open_predictor
from edgewise.errors import UsageError
from edgewise.files import read_json, sha256_file, write_json
from edgewise.reporting.record import Json
from edgewise.run_folder import Run


def cost(run: Run) -> Json:
    """The content of cost.json, measured and written if it isn't there or is of another model.

    It is of another if the artefact is, or, where PyTorch was timed, if the weights are: those of a
    run that was still training were timed on a busy machine.

    Latency is that of one image, batch size 1, from uint8 pixels to probabilities, in ONNX Runtime
    if the run's `main_artifact` was exported and that is installed, and in PyTorch if not. Reading
    and resizing a file aren't in it.

    Returns:
        params; macs of one image; input_size in pixels; weights_bytes and weights_sha256;
        artifact_bytes and artifact_sha256 (None if not exported, or lost since); runtime; latency
        (the fields of `edgewise.measure.latency.Latency`); machine (cpu, cores, platform).

    Raises:
        UsageError: the run has no trained model yet, or its model or artefact can't be read.
    """
    artifact, readable = _exported(run)
    sha256 = sha256_file(artifact) if artifact else None
    weights = sha256_file(run.weights) if run.weights.is_file() else None
    if run.cost.is_file():
        known: Json = read_json(run.cost)
        same = known.get("artifact_sha256", "") == sha256
        if str(known.get("runtime")).startswith("torch "):
            same = same and not readable and known.get("weights_sha256", "") == weights
        if same:
            return known

    from edgewise.measure.count import count
    from edgewise.measure.latency import benchmark, machine
    from edgewise.spec import Spec

    predictor = open_predictor(artifact if artifact and readable else run.trained().root)
    size = predictor.preprocess.size
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    counted = count(Spec.from_json(read_json(run.model / "spec.json")), size)
    value = {
        "params": counted.params,
        "macs": counted.macs,
        "input_size": size,
        "weights_bytes": run.weights.stat().st_size,
        "weights_sha256": weights,
        "artifact_bytes": artifact.stat().st_size if artifact else None,
        "artifact_sha256": sha256,
        "runtime": predictor.runtime,
        "latency": asdict(benchmark(lambda: predictor.probabilities(pixels))),
        "machine": machine(),
    }
    write_json(run.cost, value)
    return value


def _exported(run: Run) -> tuple[Path | None, bool]:
    """The file in `main_artifact`, and whether a runtime that reads it is installed here.

    None where it was not exported, was lost or what is beside it is damaged.
    """
    try:
        artifact = Artifact.read(main_artifact(run))
    except UsageError:
        return None, False
    if not artifact.path.is_file():
        return None, False
    return artifact.path, format_named(artifact.info.format).runs_here()
