"""A device whose times are a formula, and a folder of digits to search on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from edgewise.measure.rounds import summary
from edgewise.search.device import DeviceFacts, Measured, TimedFile

ROUNDS = 20


class FormulaDevice:
    """Takes 1 us for each pixel of the image's side squared; half of that for int8, and for
    whatever else has a factor.

    Attributes:
        runtimes: that it has, with their versions.
        factors: of the time, by "format-precision".
        shipped: times as long for files that were exported of a trained network.
        slower: times as long for everything, from now on.
        asked: the files that were timed.
    """

    def __init__(self, shipped: float = 1.0, broken: str = "") -> None:
        self.name, self.threads = "local", 1
        self.shipped, self.slower, self.broken = shipped, 1.0, broken
        self.asked: list[TimedFile] = []
        self.runtimes = {"onnxruntime": "1.0"}
        self.factors: dict[str, float] = {}

    def facts(self) -> DeviceFacts:
        return DeviceFacts("formula", "a formula", 1, "none", self.runtimes)

    def measure(
        self,
        files: Sequence[TimedFile],
        seconds: float = 2.0,
        on_step: Callable[[str], None] = lambda what: None,
        on_measured: Callable[[str, Measured], None] = lambda key, measured: None,
    ) -> dict[str, Measured]:
        self.asked += files
        seen = {file.key: self._measured(file) for file in files}
        for key, measured in seen.items():
            on_measured(key, measured)
        return seen

    def _measured(self, file: TimedFile) -> Measured:
        if self.broken and self.broken in str(file.path):
            return Measured(None, failure="crashed (SIGSEGV)")
        rule = file.path.parent / "preprocess.json"
        if rule.is_file():
            size, kind = json.loads(rule.read_text())["size"], file.path.parent.name
        elif file.path.suffix == ".onnx" and "-" not in file.path.stem:  # a row, or all rows
            size, kind = file.shape[-1], file.precision
        elif file.path.suffix == ".onnx":
            kind, _, size = f"onnx-{file.path.stem}".rpartition("-")
        else:
            kind, _, size = file.path.parent.name.rpartition("-")
        ms = int(size) ** 2 / 1000 * self.factors.get(kind, 0.5 if "int8" in kind else 1.0)
        ms *= self.slower * (self.shipped if rule.is_file() else 1)
        return Measured(summary([[ms] * 5] * ROUNDS, 5), memory_bytes=10_000_000)


def write_photos(root: Path, test_label: Callable[[int], int]) -> Path:
    """The data of `photos`; `test_label` says under which class a test image stands."""
    images, labels = load_digits(return_X_y=True)
    for label in (0, 1):
        for number, image in enumerate(images[labels == label][:40]):
            split = "train" if number < 20 else "val" if number < 30 else "test"
            named = test_label(label) if split == "test" else label
            folder = root / split / str(named)
            folder.mkdir(parents=True, exist_ok=True)
            pixels = (image.reshape(8, 8) * 15.9).astype(np.uint8)
            picture = Image.fromarray(pixels).resize((32, 32))
            picture.save(folder / f"{label}-{number}.png")
    return root
