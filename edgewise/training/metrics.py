"""Measures of a classifier, from its probabilities and the true labels; NumPy only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 10
WARMEST = 4.0  # temperature, and 1 / the coldest
MOST_STEPS = 100  # to the best one; it takes six or so


@dataclass(frozen=True)
class ClassScore:
    """How well one class is found.

    Attributes:
        label: the class.
        precision: of the images predicted to be it, the part that are; 0 where none was.
        recall: of its images, the part predicted to be it; 0 where there are none.
        f1: the harmonic mean of both; 0 where both are.
        support: its images.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class CalibrationBin:
    """The predictions whose confidence is in (low, high]; the means are 0 where there are none.

    Attributes:
        low: lower end of the confidence, not included.
        high: upper end, included.
        count: predictions in between.
        confidence: their mean confidence, which is the probability of the predicted class.
        accuracy: the part of them that are right.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def confusion_matrix(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """How many images of class i were predicted as class j: (classes, classes), row i, column j."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def class_scores(confusion: NDArray[np.int64], classes: tuple[str, ...]) -> tuple[ClassScore, ...]:
    """Precision, recall, F1 and support of each class of a confusion matrix."""
    scores = []
    for i, label in enumerate(classes):
        right, support, predicted = confusion[i, i], confusion[i].sum(), confusion[:, i].sum()
        scores.append(
            ClassScore(
                label,
                precision=_ratio(right, predicted),
                recall=_ratio(right, support),
                f1=_ratio(2 * right, support + predicted),
                support=int(support),
            )
        )
    return tuple(scores)


def macro_f1(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float:
    """The mean F1 of the classes that `labels` has, from (N,) and (N, C): each counts the same."""
    classes = probabilities.shape[1]
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), classes)
    scores = class_scores(confusion, tuple(map(str, range(classes))))
    return float(np.mean([score.f1 for score in scores if score.support]))


def top_k_accuracy(labels: NDArray[np.int64], probabilities: NDArray[np.float32], k: int) -> float:
    """The part of the images whose class is among the k most probable ones."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def standard_error(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], macro: bool
) -> float:
    """By how much chance moves the accuracy of so few images: its standard error.

    Args:
        labels: (N,).
        probabilities: (N, C).
        macro: of the mean recall of the classes instead, which macro-F1 is near to.
    """
    right = probabilities.argmax(axis=1) == labels
    parts = [right[labels == i] for i in np.unique(labels)] if macro else [right]
    variance = 0.0
    for part in parts:
        # Two more of each kind (Agresti and Coull): where all are right, chance is not gone.
        p = (part.sum() + 2) / (len(part) + 4)
        variance += p * (1 - p) / len(part)
    return float(math.sqrt(variance) / len(parts))


def log_loss(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float:
    """Mean cross-entropy in nats; a probability below 1e-12 counts as that."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(true, 1e-12)).mean())


def calibration(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32]
) -> tuple[CalibrationBin, ...]:
    """Accuracy against confidence in 10 bins of equal width (a reliability diagram)."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, BINS + 1)
    bin_of = np.digitize(confidence, edges[1:-1], right=True)
    bins = []
    for i in range(BINS):
        inside = bin_of == i
        count = int(inside.sum())
        bins.append(
            CalibrationBin(
                low=float(edges[i]),
                high=float(edges[i + 1]),
                count=count,
                confidence=_ratio(confidence[inside].sum(), count),
                accuracy=_ratio(right[inside].sum(), count),
            )
        )
    return tuple(bins)


def expected_calibration_error(bins: tuple[CalibrationBin, ...]) -> float:
    """The mean gap between confidence and accuracy, weighted by count (arXiv 1706.04599, eq. 3)."""
    gaps = sum(bin.count * abs(bin.confidence - bin.accuracy) for bin in bins)
    return _ratio(gaps, sum(bin.count for bin in bins))


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95% score interval of a proportion (Wilson 1927), without continuity correction.

    Unlike `p ± 1.96 s` it stays within [0, 1] and is sound for few images or few mistakes:
    Newcombe, Statistics in Medicine 17 (1998), method 3.
    """
    z = 1.959963984540054  # the normal distribution's 97.5% point
    p = correct / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    # Exact at both ends, where rounding would leave the proportion outside.
    return (low if correct else 0.0), (high if correct < n else 1.0)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def temperature(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float:
    """The T with which softmax(logits / T) has the least log loss (arXiv 1706.04599, section 4.2).

    From (N,) and (N, C). The logarithm of a probability serves as its logit: they differ by the
    same number for all classes. T is from 1/4 to 4; without a mistake it is 1, for then the surest
    answer would look like the best.
    """
    if (probabilities.argmax(axis=1) == labels).all():
        return 1.0
    logits = np.log(np.clip(probabilities.astype(np.float64), 1e-12, None))
    own = logits[np.arange(len(labels)), labels]
    # The loss is convex in 1 / T, so its one minimum is where the slope changes its sign. Newton's
    # steps get there soonest, but may go to and fro for ever: one that leaves the bounds or is more
    # than half of the last is replaced by the middle of what is left.
    low, high = 1 / WARMEST, WARMEST
    inverse, step = 1.0, high - low
    for _ in range(MOST_STEPS):
        shares = np.exp(inverse * (logits - logits.max(axis=1, keepdims=True)))
        shares /= shares.sum(axis=1, keepdims=True)
        means = (shares * logits).sum(axis=1)
        slope = (means - own).mean()
        curve = ((shares * logits**2).sum(axis=1) - means**2).mean()
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        newton = -float(slope) / max(float(curve), 1e-12)
        fits = low <= inverse + newton <= high and abs(newton) <= abs(step) / 2
        step = newton if fits else (low + high) / 2 - inverse
        inverse += step
        if abs(step) < 1e-9:
            break
    return 1 / inverse
