"""Training and evaluation on images in a tar shard: the same as on files, and no part of one."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import webdataset

from edgewise.data.dataset import read_dataset
from edgewise.errors import EdgewiseError
from edgewise.run_folder import Run
from edgewise.training.evaluate import evaluate
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.weights.folder import load_model


@pytest.fixture(scope="module")
def shard(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits in one tar file, in the order of the paths."""
    path = tmp_path_factory.mktemp("shard") / "digits.tar"
    files = sorted(digits.glob("*/*.png"), key=lambda file: file.as_posix())
    with webdataset.TarWriter(str(path)) as tar:
        for number, file in enumerate(files):
            key = f"{number:06d}"
            tar.write({"__key__": key, "png": file.read_bytes(), "cls": int(file.parent.name)})
    return path


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_on_a_shard_is_the_run_on_its_files(
    shard: Path, recipe: Recipe, reference: Run, tmp_path: Path, workers: int
) -> None:
    run = train(replace(recipe, data=str(shard), workers=workers), tmp_path / "run")
    assert read_dataset(run).fingerprint == read_dataset(reference).fingerprint
    ours, theirs = (load_model(r.model).network.state_dict() for r in (run, reference))
    assert all((ours[name] == theirs[name]).all() for name in ours)
    evaluate(run)
    with (run.evaluation / "test.csv").open(encoding="utf-8", newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert all(path.startswith("digits.tar/0") for path in paths)


def test_evaluation_on_a_shard_that_was_cut_off(
    shard: Path, recipe: Recipe, tmp_path: Path
) -> None:
    data = tmp_path / "digits.tar"
    data.write_bytes(shard.read_bytes())
    run = train(replace(recipe, data=str(data), epochs=1), tmp_path / "run")
    data.write_bytes(shard.read_bytes()[:60_000])
    with pytest.raises(EdgewiseError, match=r"digits.tar is cut off .* last whole one is 0000\d\d"):
        evaluate(run)
    data.unlink()
    with pytest.raises(EdgewiseError, match=r"can't read .*digits.tar"):
        evaluate(run)
