"""The network that is timed: its weights, its inputs, and the right answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors.torch
import torch
from torch import nn

from edgewise.deploy.predictor import open_model
from edgewise.errors import UsageError
from edgewise.files import read_json, write_json
from edgewise.layers import GRN, LayerScale
from edgewise.measure.store import Row, fingerprint
from edgewise.network import Network, build
from edgewise.spec import Spec
from edgewise.timing.onnx_file import (
    GRAPH,
    INPUTS,
    RIGHT,
    SUFFIX,
    FileSubject,
    file_graph,
    make_file_subject,
    read_input,
)
from edgewise.timing.runtimes import random_images
from edgewise.weights.create import create_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGES = 16  # that all candidates must answer alike
SPEC, WEIGHTS = "spec.json", "weights.safetensors"


@dataclass(frozen=True)
class Subject:
    """One network at one input shape.

    Attributes:
        network: in eval mode.
        inputs: float32 (batches, N, C, H, W), `IMAGES` images or more in all.
        right: float32 (batches * N, classes): PyTorch's logits.
    """

    network: Network
    inputs: NDArray[np.float32]
    right: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W) of one call."""
        batch, chans, height, width = self.inputs.shape[1:]
        return batch, chans, height, width

    @property
    def graph(self) -> str:
        """A fingerprint of what is computed, whatever the weights: 12 hex digits."""
        return _graph(self.network.spec, self.shape)

    def save(self, folder: Path) -> None:
        """Writes it to `folder`, for another process to `open_subject`."""
        write_json(folder / SPEC, self.network.spec.to_json())
        safetensors.torch.save_file(self.network.state_dict(), folder / WEIGHTS)
        np.save(folder / INPUTS, self.inputs)
        np.save(folder / RIGHT, self.right)


def open_subject(folder: Path) -> Subject | FileSubject:
    """What `save` wrote."""
    if (folder / GRAPH).is_file():
        return FileSubject(folder / GRAPH, np.load(folder / INPUTS), np.load(folder / RIGHT))
    network = build(Spec.from_json(read_json(folder / SPEC)))
    network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    return Subject(network.eval(), np.load(folder / INPUTS), np.load(folder / RIGHT))


def unchanged(rows: Sequence[Row], model: str) -> list[Row]:
    """Those rows of `model` that are of it as it is now.

    Another file or folder may lie there by now; a name always stands for the same network.
    """
    if not Path(model).is_dir() and not (model.endswith(SUFFIX) and Path(model).is_file()):
        return list(rows)
    graphs: dict[tuple[int, int], str] = {}
    for imgsz, batch in {(row.imgsz, row.batch) for row in rows}:
        with suppress(UsageError):  # it takes no such input, or it is broken
            graphs[imgsz, batch] = graph_now(model, imgsz, batch)
    return [row for row in rows if row.graph == graphs.get((row.imgsz, row.batch))]


def graph_now(model: str, imgsz: int, batch: int) -> str:
    """The `graph` of what `make_subject` would make of a file or a folder."""
    if model.endswith(SUFFIX):
        return file_graph(Path(model), read_input(Path(model), imgsz, batch).shape)
    spec = open_model(model).network.spec
    return _graph(spec, (batch, spec.in_chans, imgsz, imgsz))


def _graph(spec: Spec, shape: tuple[int, ...]) -> str:
    return fingerprint(spec.to_json(), shape)


def make_subject(model: str, imgsz: int, batch: int) -> Subject | FileSubject:
    """A network by name, with random weights, or of a folder or an ONNX file, with its own.

    Raises:
        UsageError: there is no such network, folder or file.
        NoAnswer: nobody can say what the right answers of the file are.
    """
    if model.endswith(SUFFIX):
        return make_file_subject(Path(model), imgsz, batch)
    trained = Path(model).is_dir()
    torch.manual_seed(0)
    network = (open_model(model).network if trained else create_model(model)).eval()
    batches = -(-IMAGES // batch)
    inputs = np.stack(random_images((batch, network.spec.in_chans, imgsz, imgsz), batches))
    with torch.no_grad():
        if not trained:
            randomise(network, torch.from_numpy(inputs.reshape(-1, *inputs.shape[2:])[:IMAGES]))
        right = np.concatenate([network(x).numpy() for x in torch.from_numpy(inputs)])
    return Subject(network, inputs, right)


def randomise(network: Network, x: torch.Tensor) -> None:
    """Weights as a trained network might have them, in place; leaves it in eval mode.

    Fresh weights would hide faults: batch norm with mean 0 and variance 1 is nothing, layer scale
    starts near 0, and then every image gets about the same logits. Here every batch norm has the
    statistics of `x` (N, C, H, W), and so do the logits: mean 0 and standard deviation 1 in each
    class. Call it without gradients.

    Shifts are about 1, so that most of a map is on the linear side of its activation. At 0 a deep
    random network is chaotic: int8's rounding alone left a correlation of 0.5 in MobileNetV2's
    logits, and 0.97 at 1 (ONNX Runtime, 128 px).
    """
    norms = [module for module in network.eval().modules() if isinstance(module, nn.BatchNorm2d)]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, float(isinstance(module, nn.BatchNorm2d)), 0.1)
        elif isinstance(module, LayerScale):
            nn.init.uniform_(module.weight, 0.1, 1.0)
        elif isinstance(module, GRN):
            nn.init.normal_(module.weight, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
    for norm in norms:
        norm.train().momentum = 1.0  # the running statistics become those of `x`
    network(x)
    for norm in norms:
        norm.eval().momentum = network.spec.norm_momentum
    if isinstance(classifier := network.head.classifier, nn.Linear):
        logits = network(x)
        factor = 1 / logits.std(0).clamp_min(1e-6)
        classifier.weight.mul_(factor[:, None])
        classifier.bias.sub_(logits.mean(0)).mul_(factor)
