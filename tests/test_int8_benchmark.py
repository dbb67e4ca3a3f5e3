"""The benchmark of int8: what is calibrated on is not compared, and rows are kept."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from int8_graphs import LABELS, SIZE
from photos import picture
from small import small_model

from edgewise.model import Model

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def int8(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("mlxtend")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import int8

    return int8


@pytest.mark.parametrize("seed", [0, 1])
def test_no_photo_is_calibrated_on_and_compared(
    int8: ModuleType, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(photos):
        picture(number).save(path)
    model = small_model("mobilenet_v2", LABELS, SIZE)
    cut: list[list[Path]] = []

    def crops(model: Model, chosen: list[Path], each: int, seed: int) -> object:
        cut.append(list(chosen))
        return np.zeros((len(chosen) * each, SIZE, SIZE, 3), np.uint8)

    def in_int8(model: Model, format: str, *given: object) -> object:
        answers = np.eye(len(LABELS))[np.zeros(len(given[-1]), int)]  # type: ignore[arg-type]
        return int8.Made(format, answers, 1.0, ("stem.conv",))

    monkeypatch.setattr(int8, "load_pretrained", lambda name: model)
    monkeypatch.setattr(int8, "in_int8", in_int8)
    whole = int8.crops(model, photos[:2], 3, 0)
    assert whole.shape == (6, SIZE, SIZE, 3)
    assert (whole[0] == model.preprocess.pixels(picture(0).convert("RGB"))).all()
    assert (whole[0] != whole[1]).any()
    monkeypatch.setattr(int8, "crops", crops)
    rows = list(int8.photo_rows("mobilenet_v2", photos, seed))
    assert [(row["keep_float"], row["runtime"]) for row in rows] == [
        (keep, format) for keep in ("none", "auto") for format in int8.OF_PHOTOS
    ]
    assert rows[0]["crops"] == len(photos) * int8.HELD
    assert len(cut) == 8
    for held, seen in zip(cut[::2], cut[1::2], strict=True):
        assert not set(held) & set(seen)
        assert set(held) | set(seen) == set(photos)
    assert set(cut[0]) | set(cut[2]) == set(photos)


def test_rows_of_the_same_take_the_place_of_old_ones(int8: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"

    def row(network: str, seed: int, same: int) -> dict[str, object]:
        return {
            "network": network,
            "runtime": "a",
            "keep_float": "none",
            "seed": seed,
            "same": same,
        }

    int8.record(path, iter([row("b", 0, 1), row("a", 0, 2), row("b", 1, 3)]))
    int8.record(path, iter([row("b", 0, 4)]))
    with path.open(newline="") as file:
        found = [(line["network"], line["seed"], line["same"]) for line in csv.DictReader(file)]
    assert found == [("a", "0", "2"), ("b", "0", "4"), ("b", "1", "3")]


def test_the_tables_of_the_page_are_those_of_the_results(int8: ModuleType) -> None:
    page = (BENCHMARKS.parent / "docs" / "int8.md").read_text()
    assert [line for line in int8.tables() if line not in page.splitlines()] == []
