"""Training that diverges says where, keeps what was good, and goes back if it may."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edgewise.run_folder import Run
from edgewise.training.checkpoint import load_checkpoint
from edgewise.training.divergence import Diverged
from edgewise.training.history import EpochMetrics, kept_epoch, read_history
from edgewise.training.interrupt import Stopped
from edgewise.training.learner import Learner
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.training.start import preprocess_of
from edgewise.weights.folder import load_model

PIXELS = torch.randint(
    0, 256, (6, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
INFINITE = float("inf")


def learner(**settings: Any) -> Learner:
    recipe = Recipe("photos", "tiny", imgsz=32, pretrained=False, device="cpu", **settings)
    made = Learner(recipe, preprocess_of(recipe), [4] * 3, steps_per_epoch=4)
    made.begin_epoch(1)  # all of it learns
    return made


def overflow(module: nn.Module) -> None:
    """Finite weights whose products are not."""
    nn.init.constant_(next(module.parameters()), 3e38)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", ["stem.conv", "stages.2.0.depthwise.conv", "head.classifier"])
def test_the_layer_is_named(name: str, accumulate: int) -> None:
    made = learner(accumulate=accumulate)
    overflow(made.network.get_submodule(name))
    kind = type(made.network.get_submodule(name)).__name__
    with pytest.raises(Diverged, match=rf"epoch 2, batch 2, .*layer '{name}' \({kind}\).*--lr"):
        made.step(PIXELS, LABELS, 5)


def test_a_weight_that_was_not_finite_before_is_named() -> None:
    made = learner()
    with torch.no_grad():
        made.network.get_parameter("head.classifier.bias")[1] = INFINITE
    with pytest.raises(Diverged, match=r"'head\.classifier\.bias' was not finite before"):
        made.step(PIXELS, LABELS, 0)


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_changes_no_weight(clip: float) -> None:
    made = learner(clip=clip)
    name = "stages.1.0.project.conv.weight"
    made.network.get_parameter(name).register_hook(lambda gradient: gradient * INFINITE)
    before = {key: value.clone() for key, value in made.network.named_parameters()}
    with pytest.raises(Diverged, match=rf"norm of the gradient is .*of '{name}'"):
        made.step(PIXELS, LABELS, 0)
    assert all(torch.equal(value, before[key]) for key, value in made.network.named_parameters())


def poison(
    monkeypatch: pytest.MonkeyPatch, number: int, bad: Callable[[Learner], bool]
) -> list[int]:
    """From now on a weight is infinite at that step, if `bad`; the steps that were taken."""
    step, taken = Learner.step, []

    def step_with_poison(self: Learner, pixels: Tensor, labels: Tensor, now: int) -> Any:
        taken.append(now)
        if now == number and bad(self):
            nn.init.constant_(self.network.head.classifier.weight, INFINITE)
        return step(self, pixels, labels, now)

    monkeypatch.setattr(Learner, "step", step_with_poison)
    return taken


@pytest.fixture(scope="module")
def learning(recipe: Recipe) -> Recipe:
    """Learns something in its first epoch."""
    return replace(recipe, lr=1e-2, magnitude=0, crop_scale=0.9, ema_decay=0.5, retries=2)


def test_it_goes_back_to_the_best_epoch_at_half_the_rate(
    learning: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = train(replace(learning, retries=0), tmp_path / "plain")
    first = read_history(plain)[0]
    assert first.val_loss < math.log(3)
    taken = poison(monkeypatch, 6, lambda learner: learner.rate_factor > 0.25)
    run = train(learning, tmp_path / "run")
    assert taken == [0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 4, 5, 6, 7, 8, 9, 10, 11]
    rows = read_history(run)
    assert replace(rows[0], seconds=0, images_per_second=0) == (
        replace(first, seconds=0, images_per_second=0)
    )
    for row, without in zip(rows[1:], read_history(plain)[1:], strict=True):
        assert row.lr == without.lr / 4
    said = [line for line in capsys.readouterr().out.splitlines() if "has diverged" in line]
    assert "epoch 2, batch 3" in said[0] and "end of epoch 1" in said[0]
    assert "0.5 of the learning rate (retry 1 of 2)" in said[0] and "retry 2 of 2" in said[1]


def test_without_a_good_epoch_it_starts_again(
    learning: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = poison(monkeypatch, 2, lambda learner: learner.rate_factor == 1)
    train(learning, tmp_path)
    assert taken == [0, 1, 2, *range(12)]


def test_after_the_last_retry_it_is_an_error(
    learning: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 6, lambda learner: True)
    says = r"epoch 2, batch 3.*'head\.classifier\.weight' was not.*--lr below 0\.0025, the last"
    with pytest.raises(Diverged, match=says) as error:
        train(learning, tmp_path)
    assert "retries" not in str(error.value)  # they are used up
    state, _ = load_checkpoint(Run(tmp_path))
    assert state is not None and state["progress"]["divergences"] == 2
    assert all(value.isfinite().all() for value in state["network"].values())


@pytest.mark.parametrize("batch", [3, 8, 9])
def test_stopped_around_a_divergence_it_ends_the_same(
    learning: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """Before it, in the step after it, and later."""
    taken = poison(monkeypatch, 6, lambda learner: learner.rate_factor == 1)
    alone = train(learning, tmp_path / "alone")
    step, before = Learner.step, len(taken)

    def step_with_signal(self: Learner, *arguments: Any) -> Any:
        if len(taken) - before == batch - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments)

    monkeypatch.setattr(Learner, "step", step_with_signal)
    with pytest.raises(Stopped):
        train(learning, tmp_path / "stopped")
    resumed = train(learning, tmp_path / "stopped", resume=True)
    weights, expected = (load_file(run.weights) for run in (resumed, alone))
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    assert figures(resumed) == figures(alone)


def test_no_checkpoint_of_a_weight_that_is_not_finite(
    learning: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Learner.step

    def step_too_far(self: Learner, pixels: Tensor, labels: Tensor, number: int) -> Any:
        result = step(self, pixels, labels, number)
        if number == 6:  # from a finite gradient, at a rate that is much too high
            nn.init.constant_(self.network.head.classifier.weight, INFINITE)
            os.kill(os.getpid(), signal.SIGINT)
        return result

    monkeypatch.setattr(Learner, "step", step_too_far)
    with pytest.raises(Diverged, match=r"1 and 3 batches more .'head\.classifier\.weight'"):
        train(replace(learning, retries=0), tmp_path)
    state, _ = load_checkpoint(Run(tmp_path))
    assert state is not None and state["progress"]["epoch"] == 1


@pytest.mark.slow
def test_sgd_at_an_absurd_rate_diverges_and_recovers(recipe: Recipe, tmp_path: Path) -> None:
    """Decay alone multiplies the kernels by 1 - lr * decay in each step: by -2.8 at first, and by
    -0.9 at half the rate, where they stay bounded.
    """
    absurd = replace(
        recipe,
        optimizer="sgd",
        lr=10.0,
        momentum=0.0,
        weight_decay=0.38,
        schedule="constant",
        warmup_epochs=0.0,
        batch=4,
        epochs=4,
        magnitude=0,
        ema_decay=0.5,
    )
    with pytest.raises(Diverged, match=r"epoch \d"):
        train(absurd, tmp_path / "once")
    run = train(replace(absurd, retries=8), tmp_path / "again")
    rows = read_history(run)
    assert len(rows) == 4 and all(row.lr < 6 and row.train_loss < 100 for row in rows)
    assert kept_epoch(rows).val_loss < 2
    kept = load_model(run.model).network.state_dict()
    assert all(value.isfinite().all() for value in kept.values())


def figures(run: Run) -> list[EpochMetrics]:
    return [replace(epoch, images_per_second=0, seconds=0) for epoch in read_history(run)]
