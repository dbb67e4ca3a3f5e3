"""One way to ask any model, whatever it is stored as: uint8 pixels in, probabilities out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgewise.deploy.formats import format_of
from edgewise.errors import UsageError
from edgewise.run_folder import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgewise.model import Model
    from edgewise.preprocess import Preprocess


class Predictor(Protocol):
    """A model that is ready to answer.

    Attributes:
        labels: a name for each column of the answer.
        preprocess: how an image becomes its input (`preprocess.pixels`).
        runtime: what computes the answer, with its version.
    """

    labels: tuple[str, ...]
    preprocess: Preprocess
    runtime: str

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB (N, size, size, 3) -> float32 (N, classes), each row summing to 1."""


def open_predictor(source: str | Path) -> Predictor:
    """A predictor for a model name, a run folder, a model folder or an exported file.

    Raises:
        UsageError: `source` is none of these, or can't be read as what it is.
    """
    if Path(source).is_file():
        return format_of(Path(source)).open(Path(source))
    model = open_model(source)
    from edgewise.deploy.pytorch import TorchPredictor

    return TorchPredictor(model)


def open_model(source: str | Path) -> Model:
    """The PyTorch model of a model name (with its ImageNet weights), a run or a model folder.

    Raises:
        UsageError: `source` is none of these, or can't be read as what it is.
    """
    from edgewise.weights.folder import load_model
    from edgewise.weights.pretrained import ALIASES, load_pretrained, resolve

    path = Path(source)
    if path.is_dir():
        return load_model(Run(path).trained().model if Run.is_run(path) else path)
    if path.exists():
        raise UsageError(f"{path} is a file. Give a model name, a run folder or a model folder.")
    network = str(source).partition(".")[0]  # timm's names have their tag after a dot
    if path.name != str(source) or (path.suffix and network not in ALIASES):
        raise UsageError(
            f"no such file or folder: {source}. "
            "Give a model name, a run folder, a model folder or an exported file."
        )
    name, width, _, tag = resolve(str(source))
    return load_pretrained(name, tag, width)
