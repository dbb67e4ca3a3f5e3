"""What a search does before it begins, and the time that it counts."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commandline import edgewise
from search_device import FormulaDevice
from searches import Enough, request_for, until

from edgewise.data.dataset import load_dataset
from edgewise.data.doctor import examine
from edgewise.search import ladder, state
from edgewise.search.decisions import Decisions
from edgewise.search.ladder import run
from edgewise.search.pace import seconds_before
from edgewise.search.request import Request, SearchFolder
from edgewise.search.state import State

pytest.importorskip("onnxruntime")


def test_what_is_wrong_is_said_while_nothing_is_written(
    photos: Path, device: FormulaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is taken could not be asked for otherwise."""
    monkeypatch.chdir(tmp_path)
    for wrong, words in (
        (("--models", "tiny224,tiny223"), "unknown model 'tiny223'. Nearest: tiny224"),
        (("--train-device", "nowhere"), "Try --train-device cpu."),
    ):
        called = edgewise(
            "run", photos, "--budget", "latency=6ms", "--name", "x", "--workers", 0, *wrong
        )
        assert called.status == 2
        assert words in " ".join(called.errors.split())
        assert not Path("runs").exists()
    assert not device.asked


def test_images_are_read_by_as_many_as_were_asked_for(
    photos: Path, device: FormulaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And else by one a core."""
    asked: list[int] = []

    def load(path: Path, workers: int) -> Any:
        asked.append(workers)
        return load_dataset(path, 1)

    def look(path: Path, workers: int) -> Any:
        asked.append(workers)
        return examine(path)

    monkeypatch.setattr(state, "load_dataset", load)
    monkeypatch.setattr(ladder, "examine", look)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    for workers, used in ((3, 3), (0, 0), (None, 5)):
        with pytest.raises(Enough):
            run(
                request_for(photos, "latency=6ms", workers=workers),
                tmp_path / f"{workers}",
                until("doctor"),
            )
        assert asked == [used, used]
        asked.clear()


def test_the_first_reading_of_the_images_is_in_the_time(
    photos: Path, device: FormulaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the search which goes on is not: it would not be planned as it was."""
    root, asked = tmp_path / "search", request_for(photos, "latency=6ms")
    for took in (90.0, 1e6):
        clock = iter((7.0, 7.0 + took))
        monkeypatch.setattr(state, "time", SimpleNamespace(monotonic=clock.__next__))
        with pytest.raises(Enough):
            run(asked, root, until("doctor"))
        assert 90 <= seconds_before(Decisions(SearchFolder(root).decisions).made) < 120


def test_what_is_left_is_told_by_the_log() -> None:
    search = object.__new__(State)
    search.request, search.files = Request("photos", "latency=6ms", minutes=10), 30.0
    made = {"doctor": {"seconds": 60.0, "read_seconds": 90.0}, "train": {"seconds": 300.0}}
    search.log = SimpleNamespace(made=made)  # type: ignore[assignment]
    assert search.unspent == pytest.approx(10 - 1 - 1.5 - 5 - 0.5)
