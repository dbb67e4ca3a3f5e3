"""What a run's report says where it learned from val's images too: a search's last training."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from commandline import edgewise
from html_page import Page
from made_run import Made, write, write_rows

from edgewise.reporting.compare import compare_runs
from edgewise.reporting.write import report
from edgewise.run_folder import Run

OFTEN = 320  # images that `made_run` says the exported files were verified on
NOTE = "of val are among those of train: it learned from these, too"


@pytest.fixture
def learned(made: Made) -> Made:
    """A run whose val is the first quarter of its train."""
    run = made.run
    with run.split.open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    train = [row for row in rows if row[2] == "train"]
    val = [[path, label, "val", digest] for path, label, _, digest in train[: len(train) // 4]]
    write_rows(run.split, "path,label,split,sha256", [*rows, *val])
    data, every = json.loads(run.data.read_text()), [*rows, *val]
    counts = {
        split: {label: sum(row[1:3] == [label, split] for row in every) for label in made.labels}
        for split in ("train", "val", "test")
    }
    write(run.data, {**data, "counts": counts})
    return made


def written(run: Run) -> tuple[str, str]:
    """The words of the page, and the card."""
    words = Page(report(run).read_text(encoding="utf-8")).words
    return words, run.model_card.read_text(encoding="utf-8").replace("\u00a0", " ")


def distinct(path: Path) -> int:
    """The number of different images in split.csv."""
    with path.open(encoding="utf-8", newline="") as file:
        return len({row["sha256"] for row in csv.DictReader(file)})


def test_each_image_counts_once(learned: Made) -> None:
    words, card = written(learned.run)
    assert distinct(learned.run.split) == 800
    assert "800 images in 10 classes" in words
    assert f"100 images {NOTE}" in words and f"100 images {NOTE}" in card
    assert "| train | 400 |" in card and "| test | 400 |" in card and "| val |" not in card


def test_only_the_test_tells_its_accuracy(learned: Made) -> None:
    words, card = written(learned.run)
    assert "with a validation accuracy of" not in words
    assert "Validation figures are of images that it learned from, too" in words
    assert f"of {OFTEN} val images, which it learned from, too." in words
    assert f"Passed, on {OFTEN} val images, which it learned from, too (" in card
    for suffix in (".json", ".csv"):
        (learned.run.evaluation / f"test{suffix}").rename(learned.run.evaluation / f"val{suffix}")
    words, card = written(learned.run)
    assert "How good it is isn't known yet" in words and "model-index" not in card


def test_an_image_of_val_that_is_new_to_it_is_enough(learned: Made) -> None:
    """Copies in train are a fault of the data, which the doctor tells; val is held out still."""
    text = learned.run.split.read_text(encoding="utf-8")
    learned.run.split.write_text(f"{text}class 0/new.png,{learned.labels[0]},val,{'f' * 64}\n")
    words, card = written(learned.run)
    assert NOTE not in words + card
    assert "with a validation accuracy of" in words and "| val | 100 |" in card


def test_compare_shows_no_validation_accuracy(learned: Made, tmp_path: Path) -> None:
    said = edgewise("compare", learned.run.root, "--png", tmp_path / "runs.png")
    assert said.status == 0, said.errors
    row, warning = said.output.splitlines()[1:]
    val, test = row.split()[1:3]
    assert val == "-" and test.endswith("%")
    assert warning.endswith("learned from val's images, too: only the test tells its accuracy")


def test_compare_knows_images_that_count_twice(learned: Made, tmp_path: Path) -> None:
    """Its fingerprint is another than that of the same images, each in one split."""
    plain = shutil.copytree(learned.run.root, tmp_path / "plain")
    with learned.run.split.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    val = {row[3] for row in rows if row[2] == "val"}
    once = [row for row in rows if row[2] != "train" or row[3] not in val]
    write_rows(plain / "split.csv", ",".join(header), once)
    write(learned.run.data, {**json.loads(learned.run.data.read_text()), "fingerprint": "f" * 64})
    (warning,) = compare_runs([plain, learned.run.root]).warnings
    assert "first learned from val's images, too" in warning
