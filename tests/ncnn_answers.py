"""What ncnn answers, to be called in a process of its own: it crashed on some networks."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from small import pictures, small_model
from torch import nn

from edgewise.deploy.artifact import Info
from edgewise.deploy.engine import EnginePredictor
from edgewise.deploy.formats import FORMATS, Job
from edgewise.deploy.ncnn import open_engine, write
from edgewise.deploy.pytorch import TorchPredictor
from edgewise.layers import GRN
from edgewise.model import Model

LABELS = ("café", "犬", "cat")
FORMAT = FORMATS["ncnn"]
Answers = NDArray[np.float32]


def both(name: str, sizes: tuple[int, ...], precision: str = "fp32") -> tuple[Answers, Answers]:
    """ncnn's and PyTorch's probabilities of four pictures at each size, by a small network."""
    pairs = [_both(name, size, precision) for size in sizes]
    return np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])


def _both(name: str, size: int, precision: str) -> tuple[Answers, Answers]:
    model = small_model(name, LABELS, size)
    for module in model.network.modules():
        if isinstance(module, GRN):  # zeros at first, which would hide it
            nn.init.normal_(module.weight)
    with TemporaryDirectory() as folder:
        path = written(model, Path(folder), precision)
        exported = EnginePredictor(open_engine(path, info_of(model, precision)))
        answers = exported.probabilities(pictures(model))
    return answers, TorchPredictor(model).probabilities(pictures(model))


def written(model: Model, folder: Path, precision: str = "fp32") -> Path:
    """The .param file of the model, in a folder that is there."""
    path = folder / FORMAT.file
    write(Job(model, precision, path))
    return path


def info_of(model: Model, precision: str) -> Info:
    """What an artefact would say of that file."""
    return Info(
        FORMAT.file,
        FORMAT.name,
        precision,
        model.labels,
        model.preprocess,
        input=FORMAT.input,
        output=FORMAT.output,
        batch=FORMAT.batch,
    )
