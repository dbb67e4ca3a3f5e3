"""Is a candidate's answer right? A fast wrong answer is a failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The same sums in another order move a logit by about 1e-5 of the logits' spread; one wrong
# padding or epsilon by 1e-1. In bf16 and int8 each layer rounds, so that the question is whether it
# is still the same function of the image; how much accuracy is lost, only real weights can tell.
LARGEST_ERROR = 1e-2  # fp32: of one logit, in standard deviations of the right logits
# At least: of all logits with the right ones.
CORRELATION = {
    "bf16": 0.98,
    "fp16": 0.98,
    "int8": 0.8,
}


@dataclass(frozen=True)
class Likeness:
    """How alike some logits and the right ones are.

    Attributes:
        largest_error: of one logit, in standard deviations of the right logits.
        correlation: Pearson's, over all logits of all images.
        agreement: the part of the images, 0 to 1, with the same top class.
    """

    largest_error: float
    correlation: float
    agreement: float


def liken(answer: NDArray[np.float32], right: NDArray[np.float32]) -> Likeness | None:
    """Two arrays (images, classes) held against each other.

    None if they can't be: another shape, or numbers that are not finite.
    """
    if answer.shape != right.shape or not np.isfinite(answer).all():
        return None
    error = np.abs(answer.astype(np.float64) - right).max() / max(float(right.std()), 1e-12)
    same = answer.argmax(1) == right.argmax(1)
    constant = answer.std() == 0 or right.std() == 0
    correlation = 0.0 if constant else np.corrcoef(answer.ravel(), right.ravel())[0, 1]
    return Likeness(float(error), float(correlation), float(same.mean()))


def fault(likeness: Likeness | None, precision: str) -> str:
    """What is wrong with such an answer, in a sentence; "" if it passes."""
    if likeness is None:
        return "its answer has another shape or is not finite"
    if precision in CORRELATION:
        least = CORRELATION[precision]
        if not likeness.correlation >= least:
            return (
                f"its logits correlate by {likeness.correlation:.3f} with the right ones, "
                f"at least {least} passes in {precision}"
            )
    elif not likeness.largest_error <= LARGEST_ERROR:
        return (
            f"its logits are up to {likeness.largest_error:.1e} standard deviations away from "
            f"the right ones, at most {LARGEST_ERROR:.0e} passes in {precision}"
        )
    return ""
