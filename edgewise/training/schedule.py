"""The learning rate, as a function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to a peak, then a fall.

    Attributes:
        kind: "cosine" down to 0 at the end (SGDR without restarts, arXiv 1608.03983), "exponential"
            by `rate` in every `interval` steps, "step" likewise at once at the end of each (as the
            code of MobileNet and EfficientNet does), or "constant".
        peak: the highest rate, reached at the last step of the warm-up.
        warmup: steps of the warm-up; 0 for none.
        total: all steps, those of the warm-up included.
        rate: the factor of "exponential" and "step".
        interval: the steps in which it is applied once; they begin with the warm-up.
    """

    kind: str
    peak: float
    warmup: int
    total: int
    rate: float = 1.0
    interval: float = 1.0

    def learning_rate(self, step: int) -> float:
        """Of a step of the optimiser, from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        if self.kind == "cosine":
            done = (step - self.warmup) / (self.total - self.warmup)
            return self.peak * (1 + math.cos(math.pi * done)) / 2
        if self.kind == "constant":
            return self.peak
        times = step / self.interval
        return self.peak * self.rate ** (math.floor(times) if self.kind == "step" else times)
