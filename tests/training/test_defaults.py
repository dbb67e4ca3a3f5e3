"""What the data chooses: batch, epochs, sizes, and how uneven classes count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgewise.data.dataset import Dataset, Sample
from edgewise.errors import UsageError
from edgewise.training.defaults import LEAST_STEPS, fit
from edgewise.training.history import read_history
from edgewise.training.learner import Learner
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.training.start import preprocess_of


def data(*images: int) -> Dataset:
    """So many training images of each class."""
    labels = [label for label, count in enumerate(images) for _ in range(count)]
    samples = tuple(Sample(Path(f"{i}.png"), label, str(i)) for i, label in enumerate(labels))
    splits = {"train": samples, "val": samples[:1], "test": ()}
    return Dataset(Path(), tuple(map(str, range(len(images)))), splits, ())


def tuned(recipe: Recipe | None = None, **settings: object) -> Recipe:
    recipe = recipe or Recipe("photos", pretrained=True, imgsz=224, device="cpu", workers=0)
    return replace(recipe, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("images", [4, 9, 40, 120, 300, 1_000, 20_000])
def test_small_sets_get_steps_enough_and_no_batch_is_too_large(images: int) -> None:
    recipe = fit(tuned(), data(images // 2, images - images // 2))
    steps = recipe.epochs * -(-images // recipe.batch)
    assert recipe.epochs >= 10 and steps >= LEAST_STEPS
    assert recipe.epochs == 10 or steps < LEAST_STEPS + images / recipe.batch + 1
    assert 2 <= recipe.batch <= min(images, 32)
    assert recipe.freeze_norm == (recipe.batch < 16)
    assert recipe.magnitude == (2 if images < 1_000 else 5)


def test_a_set_of_hundreds_learns_in_smaller_batches() -> None:
    sizes = (127, 128, 511, 512)
    assert [fit(tuned(), data(n - 9, 9)).batch for n in sizes] == [8, 16, 16, 32]


def test_what_is_asked_for_stays() -> None:
    asked = tuned(
        epochs=3, batch=20, train_imgsz=224, magnitude=0, balance=False, freeze_norm=False,
        layer_decay=1.0, select="macro-f1", jitter=0.1, lr=0.3,
    )  # fmt: skip
    assert fit(asked, data(100, 2)) == asked


@pytest.mark.parametrize("size", [32, 64, 96, 128, 160, 192, 224, 260, 300, 384])
def test_it_learns_from_crops_of_a_little_less(size: int) -> None:
    recipe = fit(tuned(imgsz=size), data(20, 20))
    assert recipe.train_imgsz is not None
    assert 0.8 <= recipe.train_imgsz / size <= 0.9 or size == 32
    assert recipe.imgsz == size
    assert fit(tuned(imgsz=size, pretrained=False), data(20, 20)).train_imgsz == size


def test_pretrained_weights_learn_gently_and_in_changing_light() -> None:
    tuning, fresh = (fit(tuned(pretrained=known), data(20, 20)) for known in (True, False))
    assert (tuning.lr, tuning.jitter) == (5e-4, 0.4)
    assert (fresh.lr, fresh.jitter) == (1e-3, 0.0)


def test_only_a_pretrained_convnext_has_a_layer_decay() -> None:
    assert fit(tuned(model="convnext_atto"), data(20, 20)).layer_decay == 0.9
    assert fit(tuned(model="convnext_atto", pretrained=False), data(20, 20)).layer_decay == 1
    assert fit(tuned(), data(20, 20)).layer_decay == 1


def test_uneven_classes_are_balanced() -> None:
    even, uneven = fit(tuned(), data(50, 10)), fit(tuned(), data(51, 10))
    assert (even.balance, even.select) == (False, "accuracy")
    assert (uneven.balance, uneven.select) == (True, "macro-f1")


def test_a_batch_larger_than_the_data() -> None:
    with pytest.raises(
        UsageError,
        match=r"a batch of 64 is larger than the training images \(40\). "
        "Give --batch of 40 at most, or --batch auto",
    ):
        fit(tuned(batch=64), data(20, 20))


def test_frozen_statistics_stay_and_the_rest_learns() -> None:
    recipe = tuned(
        model="tiny", imgsz=32, epochs=2, lr=1e-3, head_epochs=0, freeze_norm=True,
        pretrained=False,
    )  # fmt: skip
    learner = Learner(recipe, preprocess_of(recipe), [2, 2], steps_per_epoch=1)
    before = {key: value.clone() for key, value in learner.network.state_dict().items()}
    learner.begin_epoch(0)
    learner.step(torch.randint(0, 256, (4, 32, 32, 3)).byte(), torch.tensor([0, 1, 0, 1]), 0)
    after = learner.network.state_dict()
    still = {key for key, value in after.items() if torch.equal(value, before[key])}
    assert still == {key for key in after if "running_" in key or "num_batches" in key}


@pytest.mark.parametrize("balance", [False, True])
def test_balanced_classes_have_equal_logits_where_nothing_tells_them_apart(balance: bool) -> None:
    """Nine of ten equal pictures are of one class: without balance, the network says 0.9."""
    recipe = tuned(
        model="tiny", pretrained=False, imgsz=32, epochs=1, head_epochs=0, balance=balance,
        optimizer="sgd",
        lr=0.5, momentum=0.0, weight_decay=0.0, label_smoothing=0.0, schedule="constant",
        warmup_epochs=0.0, freeze_norm=True, dropout=0.0,
    )  # fmt: skip
    learner = Learner(recipe, preprocess_of(recipe), [9, 1], steps_per_epoch=100)
    pixels, labels = torch.full((10, 32, 32, 3), 90, dtype=torch.uint8), torch.tensor([0] * 9 + [1])
    learner.begin_epoch(0)
    for number in range(100):
        learner.step(pixels, labels, number)
    learner.network.eval()
    logits = learner.network(learner.preprocess.normalise(pixels[:1]))
    said = torch.softmax(logits, dim=1)[0, 0].item()
    assert said == pytest.approx(0.5 if balance else 0.9, abs=0.01)


def test_the_best_epoch_is_that_of_the_best_score(recipe: Recipe, tmp_path: Path) -> None:
    for select in ("accuracy", "macro-f1"):
        history = read_history(train(replace(recipe, select=select), tmp_path / select))
        chosen = [e.val_macro_f1 if select == "macro-f1" else e.val_accuracy for e in history]
        assert [epoch.score for epoch in history] == chosen
        assert not np.allclose(chosen, 0)
