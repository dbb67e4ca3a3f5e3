"""A runtime with a file loaded: what each of them is to us, and the predictor made of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgewise.deploy.artifact import INFO, PIXELS, PROBABILITIES
from edgewise.errors import EdgewiseError, UsageError, shortened
from edgewise.files import MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgewise.deploy.artifact import Info


class Engine(Protocol):
    """A file that is loaded into a runtime.

    Attributes:
        info: of the file.
        runtime: its name and version.
    """

    info: Info
    runtime: str

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """As many inputs as `info.batch` allows, as `info.input` says -> (N, classes)."""


def described(path: Path, info: Info | None) -> Info:
    """`info`, which a file can't do without that doesn't say itself what it is.

    Raises:
        UsageError: there is none.
    """
    if info is None:
        raise UsageError(
            f"{path} doesn't say what its labels and preprocessing are: keep it in the folder that "
            f"edgewise export made for it, beside {INFO} and {MANIFEST}"
        )
    return info


def unreadable(path: Path, runtime: str, error: Exception) -> UsageError:
    """An error for a file that a runtime failed to load with an error of its own."""
    return UsageError(
        f"{path} can't be read by {runtime}: it is cut off, or of a version that this one doesn't "
        f"know. Export it again. ({shortened(error)})"
    )


@dataclass(frozen=True)
class EnginePredictor:
    """A `Predictor` that does for a file what the file doesn't do itself.

    Several threads may ask it: their calls wait for one another.
    """

    engine: Engine
    # Most runtimes keep one set of buffers for a loaded file, and a call takes all cores anyway.
    _turn: threading.Lock = field(
        default_factory=threading.Lock, init=False, repr=False, compare=False
    )

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each column of the answer."""
        return self.engine.info.labels

    @property
    def preprocess(self) -> Any:
        """How an image becomes the input."""
        return self.engine.info.preprocess

    @property
    def runtime(self) -> str:
        """What computes the answer."""
        return self.engine.runtime

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB (N, size, size, 3) -> float32 (N, classes), each row summing to 1.

        Raises:
            EdgewiseError: the runtime can't compute it, or it has not as many answers as labels.
        """
        info = self.engine.info
        inputs = pixels if info.input == PIXELS else normalised(pixels, info)
        step = info.batch or max(1, len(inputs))
        try:
            with self._turn:
                parts = [self.engine.run(inputs[n : n + step]) for n in range(0, len(inputs), step)]
        except EdgewiseError:
            raise
        except Exception as error:  # every runtime has its own kinds
            raise EdgewiseError(
                f"{info.file} can't be computed by {self.runtime} ({shortened(error)}). "
                "Export it again."
            ) from error
        answers = np.concatenate(parts).astype(np.float32).reshape(len(pixels), -1)
        if answers.shape[1] != len(info.labels):
            raise EdgewiseError(
                f"{info.file} gives {answers.shape[1]} answers, and has {len(info.labels)} labels. "
                "Export it again."
            )
        return answers if info.output == PROBABILITIES else softmax(answers)


def normalised(pixels: NDArray[np.uint8], info: Info) -> NDArray[np.float32]:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), (value - mean) / std."""
    rule = info.preprocess
    mean, std = (np.array(values, np.float32) for values in (rule.mean, rule.std))
    values = (pixels.astype(np.float32) - mean) / std
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), dtype=np.float32)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, classes) -> probabilities."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    probabilities: NDArray[np.float32] = powers / powers.sum(1, keepdims=True)
    return probabilities
