"""Runs to report on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_run import NAMES, Array, Made, make_run, write_photos
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Array, Array]:
    """A folder of 800 digits, their classes, and the answers of a model that hasn't seen them."""
    pixels, labels = load_digits(return_X_y=True)
    model = LogisticRegression(C=0.02, max_iter=500).fit(pixels[:400], labels[:400])
    images = (pixels[400:1200].reshape(-1, 8, 8) * 15.9).astype(np.uint8).repeat(8, 1).repeat(8, 2)
    photos = tmp_path_factory.mktemp("digits")
    write_photos(photos, images, labels[400:1200])
    return photos, labels[400:1200], model.predict_proba(pixels[400:1200])


@pytest.fixture
def finish(tmp_path: Path, digits: tuple[Path, Array, Array]) -> Callable[[tuple[str, ...]], Made]:
    """Makes a finished run of the digits, under ten names of the test's choice."""
    photos, truth, probabilities = digits
    return lambda names: make_run(tmp_path, photos, names, truth, probabilities)


@pytest.fixture
def made(finish: Callable[[tuple[str, ...]], Made]) -> Made:
    """A finished run of the digits."""
    return finish(NAMES)
