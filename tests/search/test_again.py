"""The last training: from the images too that the search has selected by."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_search import all_decisions, write_search

from edgewise.cli.run_text import told
from edgewise.data.dataset import Dataset
from edgewise.data.split import SPLITS
from edgewise.run_folder import Run
from edgewise.search import again
from edgewise.search.again import learned_again
from edgewise.search.choice import Trial
from edgewise.search.costs import Candidate, Cost
from edgewise.search.decisions import Decisions
from edgewise.search.entrants import entrants
from edgewise.search.shipping import best_file
from edgewise.search.trials import Trainer


def search_with(folder: Path, **train: Any) -> tuple[Any, list[Trial], list[dict[str, Any]]]:
    """A search whose files are made, its trials and these files."""
    made = all_decisions()
    made.pop("test")
    made["train"] |= train
    search_folder = write_search(folder, made)
    log = Decisions(search_folder.decisions)
    search: Any = SimpleNamespace(folder=search_folder, log=log, decide=log.decide)
    search.dataset = Dataset(Path("photos"), ("cat", "dog"), dict.fromkeys(SPLITS, ()), (), ())
    search.trainer = Trainer(search.dataset)
    (entrant,) = entrants(("mobilenet_v4_conv_small",))
    least = Cost(Candidate(entrant.model, 96, "int8", "onnxruntime"), None)
    return search, [Trial(entrant, 96, 70.0, 0.8, False, least)], made["files"]["files"]


def test_nothing_is_learned_again_without_time_or_of_another_run(tmp_path: Path) -> None:
    search, trials, files = search_with(tmp_path / "short")
    assert learned_again(search, trials, files) == []  # an older log has no word on it, too
    search, trials, files = search_with(tmp_path / "long", again=3.0)
    elsewhere = [{**f, "folder": f["folder"].replace("final", "shrunk/64")} for f in files]
    assert learned_again(search, trials, elsewhere) == []
    assert learned_again(search, trials, [{**f, "fits": False} for f in files]) == []
    assert "again" not in search.log.made


@pytest.mark.parametrize("accuracy", [0.9, 0.5])
def test_its_accuracy_is_not_told_by_images_that_it_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accuracy: float
) -> None:
    search, trials, files = search_with(tmp_path / "search", again=3.0)
    best, asked = best_file(files), []
    assert best is not None

    def made_files(
        search: Any, calibrated: Run, ways: Any, keep_float: tuple[str, ...]
    ) -> list[Any]:
        asked.append((calibrated.root.name, [str(way) for way in ways], keep_float))
        return [{**best, "folder": "again/calibrated/export/onnx-int8", "accuracy": accuracy}]

    log: Any = {"epochs": 9, "images": 505}
    search.log.decide("again", lambda: log)
    monkeypatch.setattr(again, "made_files", made_files)
    (file,) = learned_again(search, trials, files)
    assert asked == [("calibrated", ["int8 in onnxruntime"], tuple(best["float_layers"]))]
    assert file["accuracy"] is file["low"] is file["high"] is None
    assert file["selected_by"]["accuracy"] == best["accuracy"]
    # It comes first, unless it knows less of what it learned than the network did before.
    assert (best_file([*files, file]) is file) == (accuracy > best["accuracy"])
    assert bool(file["failure"]) == (accuracy < best["accuracy"])
    said = told("again", search.log.made["again"])
    assert said.startswith("again: 9 epochs of 505 images, now that nothing is left to select")


def test_a_training_that_fails_changes_nothing(tmp_path: Path) -> None:
    search, trials, files = search_with(tmp_path / "search", again=3.0)
    failed: Any = {"score": 0.0, "failure": "training diverged: the loss is not finite"}
    search.log.decide("again", lambda: failed)
    assert learned_again(search, trials, files) == []
    assert told("again", search.log.made["again"]) == f"again: {failed['failure']}"
