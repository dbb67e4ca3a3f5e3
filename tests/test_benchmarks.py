"""The benchmarks of training start, go on where they were stopped, and compare fairly."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from edgewise.errors import EdgewiseError

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def test_every_benchmark_can_be_imported() -> None:
    """Most run for hours and in no test: what they import must not go away unseen."""
    names = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    assert "netadapt" in names
    code = f"import {', '.join(names)}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=BENCHMARKS)


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import pictures

    return pictures


def plain(level: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (level, level, level))


def levels(folder: Path) -> set[int]:
    return {int(np.asarray(Image.open(path)).flat[0]) for path in folder.glob("*.png")}


def test_no_picture_is_in_two_splits_and_the_test_is_the_same_for_every_seed(
    pictures: ModuleType, tmp_path: Path
) -> None:
    task = pictures.Task(dict, flip=True, train=5, val=3)
    pools = {"a": ([plain(i) for i in range(20)], [plain(i) for i in range(20, 24)])}
    splits = {}
    for seed in (0, 1):
        root = pictures.write_task(task, pools, tmp_path / str(seed), seed)
        train, val, test = (levels(root / split / "a") for split in ("train", "val", "test"))
        assert (len(train), len(val)) == (5, 3)
        assert not train & val
        assert train | val < set(range(20))
        assert test == set(range(20, 24))
        splits[seed] = train
    assert splits[0] != splits[1]


def write_vendor(cache: Path, vendor: str, blue: int) -> None:
    """An archive as npm sends it: six drinks, half of each picture transparent, and a patch."""
    kinds = [{"image": f"{i}.png", "category": "Food & Drink"} for i in range(6)]
    kinds.append({"image": "patch.png", "category": "Component"})
    (cache / "benchmarks").mkdir(parents=True, exist_ok=True)
    with tarfile.open(
        cache / "benchmarks" / f"emoji-datasource-{vendor}-16.0.0.tgz", "w:gz"
    ) as package:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            package.addfile(member, io.BytesIO(data))

        add("emoji.json", json.dumps(kinds).encode())
        for number, kind in enumerate(kinds):
            pixels = np.zeros((2, 2, 4), np.uint8)
            pixels[0] = (number, 0, blue, 255)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "png")
            add(f"img/{vendor}/64/{kind['image']}", file.getvalue())


def test_emoji_are_tested_on_other_things_drawn_by_another_hand(
    pictures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    write_vendor(tmp_path, "google", blue=10)
    write_vendor(tmp_path, "twitter", blue=20)
    pools = pictures.emoji()
    assert set(pools) == {"Food & Drink"}
    learned, tested = ([np.asarray(p) for p in part] for part in pools["Food & Drink"])
    assert {p[0, 0, 2] for p in learned} == {10}
    assert {p[0, 0, 2] for p in tested} == {20}
    assert sorted(int(p[0, 0, 0]) for p in [*learned, *tested]) == list(range(6))
    assert all((p[1] == 255).all() for p in [*learned, *tested])  # what was transparent


@pytest.mark.parametrize(
    ("npm", "said"),
    [
        (None, "npm is needed to download emoji-datasource-google"),
        ("echo no route to host >&2; exit 1", "emoji-datasource-google.*no route to host"),
    ],
)
def test_without_the_registry_it_says_how_to_go_on(
    npm: str | None,
    said: str,
    pictures: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    if npm:
        (tmp_path / "npm").write_text(f"#!/bin/sh\n{npm}\n")
        (tmp_path / "npm").chmod(0o755)
    with pytest.raises(EdgewiseError, match=rf"(?s){said}.*--data mnist"):
        pictures.emoji()


@pytest.mark.parametrize("budget", [10.0, 30.0, 31.9, 90.0])
def test_as_many_epochs_as_fit_and_no_more(budget: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import train_accuracy

    start, first, later = 1.5, 2.0, 4.0  # the classifier alone is faster
    trial = train_accuracy.Outcome(start + first + later, (first, later), 0.0, 0.0, {})
    monkeypatch.setattr(train_accuracy, "run", lambda job: trial)
    epochs = train_accuracy.epochs_within(budget, None)
    assert start + first + later * (epochs - 1) <= budget < start + first + later * epochs


def run(script: str, results: Path, *options: str) -> list[dict[str, str]]:
    command = [sys.executable, str(BENCHMARKS / f"{script}.py"), "--results", str(results)]
    subprocess.run([*command, "--quick", *options], check=True, env=os.environ)
    with (results / "quick" / f"{script}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_speed_has_every_way_and_measures_nothing_twice(tmp_path: Path) -> None:
    rows = run("train_speed", tmp_path)
    ways = ["edgewise", "timm", "timm channels_last", "plain loop"]
    assert [(row["part"], row["way"]) for row in rows] == [
        (part, way) for part in ("step", "data") for way in ways
    ]
    for row in rows:
        assert float(row["images_per_second"]) > 0
        assert float(row["low"]) <= float(row["ratio"]) <= float(row["high"])
    assert run("train_speed", tmp_path) == rows
    more = run("train_speed", tmp_path, "--ceiling")
    assert more[: len(rows)] == rows
    assert [row["part"] for row in more[len(rows) :]] == ["ceiling", "ceiling"]


@pytest.mark.slow
def test_accuracy_has_both_ways_and_trains_nothing_twice(tmp_path: Path) -> None:
    rows = run("train_accuracy", tmp_path)
    assert [row["way"] for row in rows] == ["timm", "edgewise"]
    assert all(0 <= float(row["test_accuracy"]) <= 1 for row in rows)
    assert run("train_accuracy", tmp_path) == rows


def test_a_pruned_network_has_about_the_macs_of_its_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import prune

    whole = prune.variant(prune.MODEL).spec(classes=prune.CLASSES)
    for rival in prune.RIVALS:
        how = prune.pruning_to(rival, "taylor")
        pruned = prune.resized(whole, prune.sizes_for(whole, how.part, how.multiple, prune.macs))
        theirs = prune.macs(prune.variant(rival).spec(classes=prune.CLASSES))
        assert 0.97 * theirs < prune.macs(pruned) <= theirs
