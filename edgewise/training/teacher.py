"""A teacher: a trained network from whose answers another one learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgewise.errors import UsageError
from edgewise.files import sha256_file
from edgewise.libraries import import_library
from edgewise.preprocess import Preprocess
from edgewise.run_folder import Run
from edgewise.training.rounding import as_learned
from edgewise.weights.folder import TENSORS, load_model

TIMM = "timm:"


@dataclass(frozen=True)
class Teacher:
    """A network that is asked and does not change.

    Attributes:
        network: float (N, 3, H, W) -> logits (N, its classes); in evaluation mode.
        preprocess: the rule to its input.
        columns: where the learner's classes are among its own, (classes,).
        sha256: of the file of its weights; "" for timm's own.
    """

    network: nn.Module
    preprocess: Preprocess
    columns: Tensor
    sha256: str

    def logits(self, inputs: Tensor, rule: Preprocess) -> Tensor:
        """(N, classes) in float32, for the very crops and mixtures that the learner sees.

        Args:
            inputs: float (N, 3, H, W), normalised by the learner's `rule`; they are normalised
                anew, and enlarged or reduced to the teacher's own size.
            rule: the learner's.
        """
        mean, std, own_mean, own_std = (
            torch.tensor(values, device=inputs.device).view(3, 1, 1)
            for values in (rule.mean, rule.std, self.preprocess.mean, self.preprocess.std)
        )
        inputs = (inputs * std + (mean - own_mean)) / own_std
        size = self.preprocess.size
        if inputs.shape[-1] != size:
            inputs = F.interpolate(inputs, (size, size), mode="bilinear", antialias=True)
        with torch.no_grad():
            logits: Tensor = self.network(inputs)
        return logits.float()[:, self.columns]


def load_teacher(source: str, classes: Sequence[str], device: torch.device) -> Teacher:
    """The teacher of a recipe.

    Args:
        source: a run folder, a model folder, `timm:NAME` (timm's pretrained weights) or
            `timm:NAME:FILE` (a checkpoint that timm's own training wrote).
        classes: the labels of the data. One of our models may have them in another order, and
            more of them; timm's are taken to be in this order, which is that of its folders too.
        device: where it is asked.

    Raises:
        UsageError: no such model, or a class that it doesn't know.
        EdgewiseError: timm's weights can't be downloaded.
    """
    if source.startswith(TIMM):
        name, _, file = source.removeprefix(TIMM).partition(":")
        network, preprocess, known = _timm(name, file, len(classes))
        columns = torch.arange(len(classes))
        if known != len(classes):
            raise UsageError(
                f"the teacher {source} knows {known} classes, the data has {len(classes)}. Fine-"
                f"tune it on this data first, and give the file: teacher={TIMM}{name}:FILE"
            )
        digest = sha256_file(Path(file)) if file else ""
    else:
        path = Path(source)
        folder = Run(path).trained().model if Run.is_run(path) else path
        model = load_model(folder)
        unknown = [label for label in classes if label not in model.labels]
        if unknown:
            raise UsageError(
                f"the teacher {source} doesn't know the class '{unknown[0]}' of the data; it knows "
                f"{', '.join(model.labels[:5])}{' ...' if len(model.labels) > 5 else ''}"
            )
        network, preprocess = as_learned(model).network, model.preprocess
        columns = torch.tensor([model.labels.index(label) for label in classes])
        digest = sha256_file(folder / TENSORS)
    network = network.eval().requires_grad_(False)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Teacher(network, preprocess, columns.to(device), digest)


def _timm(name: str, file: str, classes: int) -> tuple[nn.Module, Preprocess, int]:
    """timm's network, its preprocessing, and how many classes it knows."""
    timm = import_library("timm")
    if not timm.is_model(name):
        raise UsageError(f"timm {timm.__version__} has no model {name}")
    if file and not Path(file).is_file():
        raise UsageError(f"no such checkpoint of the teacher: {file}")
    try:
        network = (
            timm.create_model(name, num_classes=classes, checkpoint_path=file)
            if file
            else timm.create_model(name, pretrained=True)
        )
    except Exception as error:  # timm, its hub and torch raise many kinds
        raise UsageError(f"timm can't load the teacher {name}: {error}") from error
    rule: dict[str, Any] = timm.data.resolve_model_data_config(network)
    mean, std = (tuple(255 * value for value in rule[key]) for key in ("mean", "std"))
    preprocess = Preprocess(rule["input_size"][-1], rule["crop_pct"], "bilinear", mean, std)
    return network, preprocess, network.num_classes
