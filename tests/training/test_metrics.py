"""Measures against scikit-learn's, calibration by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as oracle

from edgewise.training.metrics import (
    calibration,
    class_scores,
    confusion_matrix,
    expected_calibration_error,
    log_loss,
    macro_f1,
    standard_error,
    top_k_accuracy,
    wilson,
)

CLASSES = 7


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities; class 5 has no images and class 6 is never predicted."""
    random = np.random.default_rng(0)
    labels = random.choice([0, 1, 2, 3, 4, 6], size=300)
    scores = random.random((300, CLASSES)) + 0.6 * np.eye(CLASSES)[labels]
    scores[:, 6] = 0.01
    return labels, (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def test_confusion_matrix(answers: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = answers
    predicted = probabilities.argmax(axis=1)
    expected = oracle.confusion_matrix(labels, predicted, labels=range(CLASSES))
    assert np.array_equal(confusion_matrix(labels, predicted, CLASSES), expected)


def test_class_scores(answers: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = answers
    predicted = probabilities.argmax(axis=1)
    names = tuple("abcdefg")
    scores = class_scores(confusion_matrix(labels, predicted, CLASSES), names)
    expected = oracle.precision_recall_fscore_support(
        labels, predicted, labels=range(CLASSES), zero_division=0
    )
    for name, score, row in zip(names, scores, zip(*expected, strict=True), strict=True):
        found = (score.precision, score.recall, score.f1, score.support)
        assert (score.label, found) == (name, pytest.approx(row))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k(answers: tuple[np.ndarray, np.ndarray], k: int) -> None:
    labels, probabilities = answers
    expected = oracle.top_k_accuracy_score(labels, probabilities, k=k, labels=range(CLASSES))
    assert top_k_accuracy(labels, probabilities, k) == pytest.approx(expected)


def test_log_loss(answers: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = answers
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    expected = oracle.log_loss(labels, exact, labels=range(CLASSES))
    assert log_loss(labels, probabilities) == pytest.approx(expected, rel=1e-6)
    certainly_wrong = np.array([[1.0, 0.0]], np.float32)
    assert log_loss(np.array([1]), certainly_wrong) == pytest.approx(12 * np.log(10))


def test_calibration_of_a_hand_worked_example() -> None:
    # Confidences .95 right, .91 wrong, .62 right, .50 wrong (an edge: it belongs to (.4, .5]).
    probabilities = np.array([[0.95, 0.05], [0.09, 0.91], [0.62, 0.38], [0.5, 0.5]], np.float32)
    bins = calibration(np.array([0, 0, 0, 1]), probabilities)
    found = {round(bin.high, 1): (bin.count, bin.confidence, bin.accuracy) for bin in bins}
    assert [bin.count for bin in bins] == [0, 0, 0, 0, 1, 0, 1, 0, 0, 2]
    assert found[0.5] == pytest.approx((1, 0.5, 0))
    assert found[0.7] == pytest.approx((1, 0.62, 1))
    assert found[1.0] == pytest.approx((2, 0.93, 0.5))
    # (1 * |.5 - 0| + 1 * |.62 - 1| + 2 * |.93 - .5|) / 4
    assert expected_calibration_error(bins) == pytest.approx((0.5 + 0.38 + 0.86) / 4)


def test_macro_f1() -> None:
    random = np.random.default_rng(4)
    labels = random.choice(3, 60, p=(0.7, 0.2, 0.1))  # of five classes, two are not there
    probabilities = random.dirichlet(np.ones(5), 60).astype(np.float32)
    expected = oracle.f1_score(
        labels, probabilities.argmax(axis=1), labels=[0, 1, 2], average="macro"
    )
    assert macro_f1(labels, probabilities) == pytest.approx(expected)


def test_the_interval_holds_the_proportion_at_both_ends() -> None:
    for n in range(1, 500):
        assert wilson(n, n)[1] == 1 and wilson(0, n)[0] == 0


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_equals_newcombes_table(
    correct: int, n: int, low: float, high: float
) -> None:
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(n - correct, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_standard_error_of_an_accuracy_is_what_chance_does() -> None:
    """Against 4,000 draws of so many images; and where all were right, chance is not gone."""
    random = np.random.default_rng(0)
    labels = np.zeros(200, np.int64)

    def answers(right: np.ndarray) -> np.ndarray:
        return np.stack([right, ~right], axis=1).astype(np.float32)

    drawn = random.random((4000, 200)) < 0.7
    told = np.mean([standard_error(labels, answers(right), macro=False) for right in drawn[:100]])
    assert told == pytest.approx(drawn.mean(axis=1).std(), rel=0.05)
    assert 0 < standard_error(labels, answers(labels == 0), macro=False) < 0.01


def test_standard_error_of_uneven_classes_is_that_of_the_rare_one() -> None:
    """Recalls of 0.7: of 190 images of one class and 10 of the other, drawn 4,000 times."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [190, 10])
    drawn = random.random((4000, 200)) < 0.7
    recalls = (drawn[:, :190].mean(axis=1) + drawn[:, 190:].mean(axis=1)) / 2
    predicted = np.where(drawn, labels, 1 - labels)
    told = [
        standard_error(labels, np.eye(2, dtype=np.float32)[row], macro=True)
        for row in predicted[:500]
    ]
    assert np.mean(told) == pytest.approx(recalls.std(), rel=0.1)
