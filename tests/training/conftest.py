"""A folder of real digits, and one short run on it that other tests compare with."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from edgewise.run_folder import Run
from edgewise.training.learner import Learner
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in another order are other sums: runs that are compared need the same threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's handwritten zeros, ones and fours, 24 of each, as PNG files."""
    root = tmp_path_factory.mktemp("digits")
    images, labels = load_digits(return_X_y=True)
    for label in (0, 1, 4):
        (root / str(label)).mkdir()
        for number, image in enumerate(images[labels == label][:24]):
            pixels = (image.reshape(8, 8) * 15.9).astype(np.uint8)
            Image.fromarray(pixels).save(root / str(label) / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def recipe(digits: Path) -> Recipe:
    """Three quick epochs of a network with dropout."""
    return Recipe(
        data=str(digits),
        model="tiny",
        pretrained=False,
        imgsz=32,
        lr=1e-3,
        epochs=3,
        batch=16,
        flip=False,
        workers=0,
        device="cpu",
    )


@pytest.fixture(scope="session")
def reference(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of `recipe` that nothing interrupted."""
    return train(recipe, tmp_path_factory.mktemp("runs") / "reference")


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From now on a training is asked to stop in that step of it, counted from 1."""
    step, steps = Learner.step, []
    number = 0

    def step_with_signal(self: Learner, *arguments: Any) -> tuple[float, int]:
        steps.append(arguments)
        if len(steps) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments)

    def stop(at: int) -> None:
        nonlocal number
        number = at
        steps.clear()
        monkeypatch.setattr(Learner, "step", step_with_signal)

    return stop
