"""The learning rate, as a function of the step."""

from __future__ import annotations

import math


def learning_rate(step: int, *, peak: float, warmup: int, total: int) -> float:
    """Linear warm-up, then half a cosine down to 0 (SGDR without restarts, arXiv 1608.03983).

    Args:
        step: of the optimiser, from 0.
        peak: the highest rate, reached at the last step of the warm-up.
        warmup: steps of the warm-up; 0 for none.
        total: all steps, those of the warm-up included.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
