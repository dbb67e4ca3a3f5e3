"""Models in PyTorch itself: the answer that every other runtime is held to."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from edgewise.model import Classifier, Model
from edgewise.training.evaluate import classifier_function


class TorchPredictor:
    """A `Predictor` that runs `Classifier(model)` on the CPU. Leaves the network in eval mode."""

    def __init__(self, model: Model) -> None:
        self.labels = model.labels
        self.preprocess = model.preprocess
        self.runtime = f"torch {torch.__version__}"
        self._classify = classifier_function(Classifier(model), torch.device("cpu"))

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB (N, size, size, 3) -> float32 (N, classes)."""
        return self._classify(pixels)
