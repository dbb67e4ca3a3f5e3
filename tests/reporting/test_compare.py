"""Runs side by side: their own files' numbers, with intervals, and the settings that differ."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commandline import edgewise
from made_run import Made
from PIL import Image
from scipy.stats import binomtest

from edgewise.errors import UsageError
from edgewise.reporting.compare import compare_runs, write_picture


@pytest.fixture
def two(made: Made) -> tuple[Path, Path]:
    """A run, and a copy of it with another seed and rate, on another machine, not evaluated."""
    other = made.run.root.with_name("second")
    shutil.copytree(made.run.root, other)
    recipe = json.loads((other / "recipe.json").read_text())
    recipe |= {"lr": 0.01, "seed": 3, "workers": 7, "device": "cuda", "tensorboard": True}
    (other / "recipe.json").write_text(json.dumps(recipe))
    shutil.rmtree(other / "eval")
    return made.run.root, other


def test_accuracies_have_the_interval_of_their_images(made: Made, two: tuple[Path, Path]) -> None:
    first, second = compare_runs(two).runs
    right = int((made.answers == made.truth).sum())
    expected = binomtest(right, len(made.truth)).proportion_ci(method="wilson")
    assert first.test and second.test is None
    assert (first.test.images, first.test.accuracy) == (800, pytest.approx(right / 800))
    assert (first.test.low, first.test.high) == pytest.approx((expected.low, expected.high))
    assert first.kept_epoch == first.epochs == 8
    assert first.val and first.val.accuracy == pytest.approx(0.975 - 0.4 / 8**1.5)
    assert first.val.low < first.val.accuracy < first.val.high
    assert first.images_per_second == 410 and first.seconds == pytest.approx(8 * 21.5)
    assert first.val == second.val


def test_settings_that_differ_and_change_the_result(two: tuple[Path, Path]) -> None:
    comparison = compare_runs(two)
    assert [run.settings for run in comparison.runs] == [
        {"lr": 0.001, "seed": 0},
        {"lr": 0.01, "seed": 3},
    ]
    assert comparison.warnings == ()


def test_other_images_are_said(two: tuple[Path, Path]) -> None:
    split = two[1] / "split.csv"
    whole = split.read_text()
    for change in ((f"{0:064x}", "f" * 64), (",zero,", ",one,")):  # another picture, another label
        split.write_text(whole.replace(*change, 1))
        assert compare_runs(two).warnings == ("the runs are not on the same images",)


def test_another_val_is_said(two: tuple[Path, Path]) -> None:
    """Of the same images, as many others are in val."""
    for run, first in zip(two, (0, 1), strict=True):
        header, *rows = (run / "split.csv").read_text().splitlines()
        rows[first] = rows[first].replace(",train,", ",val,")
        (run / "split.csv").write_text("\n".join([header, *rows]) + "\n")
    assert compare_runs(two).warnings == ("the runs are not validated on the same images",)


@pytest.mark.parametrize("change", ["split", "skipped", "order"])
def test_another_test_is_said(made: Made, two: tuple[Path, Path], change: str) -> None:
    """Of the same images, others are in test: the fingerprint doesn't tell."""
    shutil.copytree(made.run.evaluation, two[1] / "eval")
    assert compare_runs(two).warnings == ()
    header, *rows = (two[1] / "split.csv").read_text().splitlines()
    answers = (two[1] / "eval/test.csv").read_text().splitlines()
    if change == "split":
        rows[-1] = rows[-1].replace(",test,", ",val,")
    elif change == "skipped":
        answers.pop()
    else:
        rows.reverse()
    (two[1] / "split.csv").write_text("\n".join([header, *rows]) + "\n")
    (two[1] / "eval/test.csv").write_text("\n".join(answers) + "\n")
    tested = "the runs are not tested on the same images"
    validated = "the runs are not validated on the same images"
    expected = {"split": (validated, tested), "skipped": (tested,), "order": ()}
    assert compare_runs(two).warnings == expected[change]


def test_the_verb(two: tuple[Path, Path], tmp_path: Path) -> None:
    said = edgewise("compare", *two, "--png", tmp_path / "runs.png")
    assert said.status == 0, said.errors
    header, first, second = said.output.splitlines()
    assert header.split() == ["RUN", "VAL", "TEST", "KEPT", "IMAGES/S", "TIME", "LR", "SEED"]
    assert "8/8" in first and "0.001" in first and " - " in second
    with Image.open(tmp_path / "runs.png") as picture:
        assert picture.width > 1000
    told = json.loads(edgewise("compare", *two, "--json").output)
    assert [Path(run["run"]) for run in told["runs"]] == list(two)


def test_a_search_is_its_long_training(two: tuple[Path, Path], tmp_path: Path) -> None:
    search = tmp_path / "search"
    search.mkdir()
    shutil.copytree(two[0], search / "final")
    told = json.loads(edgewise("compare", two[1], search, "--json").output)
    assert [Path(run["run"]) for run in told["runs"]] == [two[1], search / "final"]
    for verb in ("eval", "predict"):
        said = edgewise(verb, search, *(["photo.jpg"] if verb == "predict" else []))
        assert said.status == 2 and str(search / "final") in said.errors


def test_what_can_not_be_compared(two: tuple[Path, Path], tmp_path: Path) -> None:
    said = edgewise("compare", two[0], tmp_path / "gone")
    assert said.status == 2 and "no such run" in said.errors
    (two[1] / "metrics.csv").unlink()
    with pytest.raises(UsageError, match="second has no finished epoch yet"):
        compare_runs(two)
    with pytest.raises(UsageError, match="a picture's name ends in"):
        write_picture(two, tmp_path / "runs.gif")
