"""A small model in an export format, and what PyTorch says to the same pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from photos import picture
from small import small_model

from edgewise.deploy.artifact import Info
from edgewise.deploy.engine import EnginePredictor
from edgewise.deploy.formats import FORMATS, Job
from edgewise.model import Model

# All kinds of block: h-swish and squeeze-excite, attention, "SAME" padding, layer norm and GRN.
# benchmarks/formats.py has one of each family.
NETWORKS = (
    "mobilenet_v3_small",
    "mobilenet_v4_hybrid_medium",
    "efficientnet_lite0",
    "convnext_v2_atto",
)
SIZE = 48


def model_of(name: str) -> Model:
    return small_model(name, tuple("abcdef"), SIZE)


def pictures(model: Model, first: int, count: int) -> NDArray[np.uint8]:
    """uint8 (count, SIZE, SIZE, 3)."""
    images = [picture(seed) for seed in range(first, first + count)]
    return np.stack([model.preprocess.pixels(image) for image in images])


def right_answer(
    model: Model, pixels: NDArray[np.uint8], dtype: torch.dtype = torch.float32
) -> NDArray[np.float32]:
    """Normalised by hand, then the network itself."""
    rule = model.preprocess
    images = (pixels - np.array(rule.mean)) / np.array(rule.std)
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(dtype)
    with torch.no_grad():
        logits = model.network.to(dtype)(inputs).double().numpy()
    model.network.float()
    powers = np.exp(logits - logits.max(1, keepdims=True))
    answer: NDArray[np.float32] = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    return answer


def job_of(model: Model, format: str, precision: str, folder: Path) -> Job:
    """What to write, calibrated on sixteen pictures."""
    calibration = pictures(model, 100, 16) if precision == "int8" else None
    return Job(model, precision, folder / FORMATS[format].file, calibration)


def opened(job: Job, format: str) -> EnginePredictor:
    """What was written, in its runtime."""
    chosen, model = FORMATS[format], job.model
    info = Info(
        chosen.file,
        format,
        job.precision,
        model.labels,
        model.preprocess,
        chosen.input,
        chosen.output,
        chosen.batch,
    )
    return EnginePredictor(chosen.readers[0].open(job.path, info))


def written(name: str, format: str, precision: str, folder: Path) -> tuple[Job, EnginePredictor]:
    """A network of `NETWORKS`, written and opened."""
    job = job_of(model_of(name), format, precision, folder)
    FORMATS[format].write(job)
    return job, opened(job, format)
