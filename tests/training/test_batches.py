"""Where a recipe's images are augmented, and that a run does not depend on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgewise.data import device_augment, loader
from edgewise.run_folder import Run
from edgewise.training import batches
from edgewise.training.history import kept_epoch, read_history
from edgewise.training.interrupt import Stopped
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe


@pytest.mark.parametrize(
    ("kind", "place"), [("cpu", None), ("mps", None), ("cuda:1", torch.device("cuda:1"))]
)
def test_only_nvidias_gpus_augment(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, kind: str, place: torch.device | None
) -> None:
    monkeypatch.setattr(batches, "pick_device", lambda name: torch.device(kind))
    assert batches._place(recipe) == place


@pytest.fixture
def on_the_device(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on batches are augmented as where a GPU learns, but on the CPU; of which sizes."""
    sizes: list[int] = []

    def change(pixels: torch.Tensor, *rest: object) -> torch.Tensor:
        sizes.append(len(pixels))
        return device_augment.change(pixels, *rest)

    monkeypatch.setattr(batches, "_place", lambda recipe: torch.device("cpu"))
    monkeypatch.setattr(loader, "change", change)
    return sizes


def weights(run: Run) -> bytes:
    return run.weights.read_bytes()


def test_the_place_makes_no_difference_to_a_run(
    recipe: Recipe, reference: Run, tmp_path: Path, on_the_device: list[int]
) -> None:
    run = train(recipe, tmp_path)
    assert weights(run) == weights(reference)
    assert len(on_the_device) == 3 * 4  # epochs of so many batches


def test_it_learns_from_them(recipe: Recipe, tmp_path: Path, on_the_device: list[int]) -> None:
    kinds = {"magnitude": 2, "jitter": 0.4, "erase": 0.3}
    run = train(replace(recipe, epochs=16, lr=1e-2, crop_scale=0.9, **kinds), tmp_path)
    # Guessing between zeros, ones and fours gives a third.
    assert kept_epoch(read_history(run)).val_accuracy >= 0.8


def test_resumed_equals_uninterrupted(
    recipe: Recipe, tmp_path: Path, stop_at: Callable[[int], None], on_the_device: list[int]
) -> None:
    """With holes, images that grow, mixtures, and gradients in two parts."""
    settings = {"erase": 0.5, "jitter": 0.4, "mixup": 0.2, "accumulate": 2}
    growing = replace(recipe, stages=3, first_imgsz=16, **settings)
    whole = train(growing, tmp_path / "whole")
    stop_at(6)
    with pytest.raises(Stopped):
        train(growing, tmp_path / "stopped")
    resumed = train(replace(growing, workers=2), tmp_path / "stopped", resume=True)
    assert weights(resumed) == weights(whole)
    plain = train(replace(growing, erase=0.0), tmp_path / "plain")
    assert weights(plain) != weights(whole)
