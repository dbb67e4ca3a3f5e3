"""Golden inputs: a few inputs with the answers that the model gave at the export.

They travel with the artefact, so that whoever runs it, on whatever device, can check it without the
data, without PyTorch and without edgewise.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.deploy.decoded import decode_batches
from edgewise.errors import UsageError
from edgewise.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgewise.data.dataset import Sample
    from edgewise.deploy.predictor import Predictor

COUNT = 16


@dataclass(frozen=True)
class Golden:
    """Inputs with the expected answers.

    Attributes:
        pixels: uint8 RGB (N, size, size, 3).
        probabilities: float32 (N, classes), of the model in PyTorch.
        answers: likewise, of the exported file when it was made; None if nothing here can run it.
    """

    pixels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    answers: NDArray[np.float32] | None

    @property
    def distance(self) -> float:
        """The largest difference of a probability; not finite if one is not, 0 without answers."""
        answers = self.probabilities if self.answers is None else self.answers
        return float(np.abs(answers - self.probabilities).max())

    @property
    def agreeing(self) -> int | None:
        """To how many inputs the file gives the model's top class; None without answers."""
        if self.answers is None:
            return None
        return int((self.answers.argmax(1) == self.probabilities.argmax(1)).sum())


def write_golden(
    model: Predictor, exported: Predictor | None, images: Sequence[Sample], path: Path
) -> Golden:
    """Writes `COUNT` inputs and both answers to them: images drawn from `images`, then noise.

    Noise fills up where there are too few readable images. The same images give the same bytes.

    Raises:
        EdgewiseError: the file can't be written.
    """
    random = np.random.default_rng(0)
    pixels: list[NDArray[np.uint8]] = []
    drawn = (images[index] for index in random.permutation(len(images)))
    for decoded in decode_batches(drawn, model.preprocess, COUNT):
        pixels += [item.pixels for item in decoded if item.pixels is not None]
        if len(pixels) >= COUNT:
            break
    size = model.preprocess.size
    noise = random.integers(0, 256, (COUNT, size, size, 3), dtype=np.uint8)
    inputs = np.stack([*pixels, *noise][:COUNT])
    answers = exported.probabilities(inputs) if exported else None
    golden = Golden(inputs, model.probabilities(inputs), answers)
    buffer = io.BytesIO()
    own: dict[str, Any] = {} if answers is None else {"answers": answers}
    np.savez_compressed(buffer, pixels=inputs, probabilities=golden.probabilities, **own)
    write_bytes(path, buffer.getvalue())
    return golden


def read_golden(path: Path) -> Golden:
    """Reads back what `write_golden` wrote.

    Raises:
        UsageError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            answers = arrays.get("answers")
            golden = Golden(arrays["pixels"], arrays["probabilities"], answers)
    except Exception as error:  # damaged bytes can make zipfile and NumPy raise almost anything
        raise UsageError(f"can't read {path}: {error}. Export it again.") from error
    if not _fit_together(golden):
        raise UsageError(f"can't read {path}: its arrays don't fit together. Export it again.")
    return golden


def _fit_together(golden: Golden) -> bool:
    pixels, rows = golden.pixels, golden.probabilities
    answers = rows if golden.answers is None else golden.answers
    return (
        pixels.dtype == np.uint8
        and pixels.ndim == 4
        and pixels.shape[1:] == (pixels.shape[1], pixels.shape[1], 3)
        and rows.ndim == 2
        and len(rows) == len(pixels)
        and rows.shape == answers.shape
        and rows.dtype == answers.dtype == np.float32
    )
