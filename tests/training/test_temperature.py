"""The temperature is the one with the least loss, and the kept model has it in its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from small import small_model

from edgewise.model import Classifier, cooled
from edgewise.training.history import kept_epoch, read_history
from edgewise.training.loop import train
from edgewise.training.metrics import WARMEST, temperature
from edgewise.training.recipe import Recipe
from edgewise.weights.folder import load_model


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_it_is_scipys_minimum_and_near_the_true_one(true: float) -> None:
    """Labels drawn from softmax(logits / true)."""
    random = np.random.default_rng(0)
    logits = 2 * random.standard_normal((4000, 6))
    drawn = softmax(logits / true, axis=1).cumsum(1) > random.random((4000, 1))
    labels = drawn.argmax(1)

    def loss(t: float) -> float:
        return -log_softmax(logits / t, axis=1)[np.arange(4000), labels].mean()

    found = temperature(labels, softmax(logits, axis=1).astype(np.float32))
    best = minimize_scalar(loss, bounds=(0.2, 5), method="bounded", options={"xatol": 1e-6})
    assert found == pytest.approx(best.x, rel=1e-3)
    assert found == pytest.approx(true, rel=0.1)


def test_it_is_the_minimum_where_newtons_steps_would_go_to_and_fro() -> None:
    """Very sure answers of 300 classes, of which 40 % are wrong."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 300, 500)
    logits = 0.5 * random.standard_normal((500, 300))
    answers = np.where(random.random(500) < 0.4, random.integers(0, 300, 500), labels)
    logits[np.arange(500), answers] += 10

    def loss(t: float) -> float:
        return -log_softmax(logits / t, axis=1)[np.arange(500), labels].mean()

    found = temperature(labels, softmax(logits, axis=1).astype(np.float32))
    best = minimize_scalar(loss, bounds=(0.25, 4), method="bounded", options={"xatol": 1e-7})
    assert found == pytest.approx(best.x, rel=1e-3)


def test_it_stays_in_bounds_and_says_nothing_without_a_mistake() -> None:
    sure = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    assert temperature(np.array([0, 1]), sure) == 1.0
    assert temperature(np.array([1, 0]), sure) == pytest.approx(WARMEST)


def test_a_cooled_model_has_the_scaled_logits() -> None:
    model = small_model("mobilenet_v2", ("a", "b", "c"), 32)
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    pixels = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        logits = model.network.eval()(model.preprocess.normalise(pixels))
        cool = Classifier(cooled(model, 2.0)).eval()(pixels)
    assert torch.allclose(cool, torch.softmax(logits / 2, 1), atol=1e-6)
    assert all(torch.equal(v, before[k]) for k, v in model.network.state_dict().items())


def test_the_kept_model_is_calibrated_and_learning_goes_on_as_before(
    recipe: Recipe, tmp_path: Path
) -> None:
    warm = train(replace(recipe, epochs=2, calibrate=False), tmp_path / "warm")
    cool = train(replace(recipe, epochs=2), tmp_path / "cool")
    plain, told = read_history(warm), read_history(cool)
    assert [(e.train_loss, e.val_loss, e.val_accuracy) for e in plain] == [
        (e.train_loss, e.val_loss, e.val_accuracy) for e in told
    ]
    assert {epoch.temperature for epoch in plain} == {1.0}
    degrees = kept_epoch(told).temperature
    assert degrees != 1.0
    ours, theirs = (load_model(run.model).network.head.classifier for run in (cool, warm))
    assert torch.allclose(ours.weight * degrees, theirs.weight, rtol=1e-5)
