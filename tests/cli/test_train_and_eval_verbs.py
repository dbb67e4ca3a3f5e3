"""`edgewise train` and `edgewise eval`: what they print, and how they answer a wrong call."""

from __future__ import annotations

import json
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest
import tiny  # noqa: F401  makes the network known
from photos import write_photos

from edgewise.cli.main import main
from edgewise.errors import UsageError
from edgewise.run_folder import Run
from edgewise.training.recipe import Recipe


def edgewise(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs a command line in this process; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["edgewise", *shlex.split(line)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photos in it."""
    write_photos(tmp_path / "photos", {"a": 12, "b": 12, "c": 12})
    monkeypatch.chdir(tmp_path)
    return tmp_path


QUICK = "train photos --model tiny --imgsz 32 --epochs 2 --batch 8 --workers 0 --device cpu"


def test_train_then_eval(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edgewise(QUICK, monkeypatch) == 0
    output = capsys.readouterr().out
    assert output.count("\nepoch ") == 2
    assert "The best was epoch" in output and "next:  edgewise eval runs/tiny-1" in output
    assert json.loads((home / "runs/tiny-1/recipe.json").read_text())["batch"] == 8

    assert edgewise("eval runs/tiny-1", monkeypatch) == 0
    output = capsys.readouterr().out
    assert output.startswith("test: ")
    assert [line.split()[0] for line in output.splitlines()[3:6]] == ["a", "b", "c"]

    assert edgewise("eval runs/tiny-1 --split val --json", monkeypatch) == 0
    value = json.loads(capsys.readouterr().out)
    assert value == json.loads((home / "runs/tiny-1/eval/val.json").read_text())

    assert edgewise("train --resume runs/tiny-1", monkeypatch) == 0
    assert "nothing left to do" in capsys.readouterr().out
    assert edgewise("train --resume runs/tiny-1 --epochs 3", monkeypatch) == 2
    assert "epochs can't be changed on resume" in capsys.readouterr().err
    assert edgewise(QUICK, monkeypatch) == 0
    assert (home / "runs/tiny-2/model").is_dir()
    assert edgewise(f"{QUICK} --name tiny-1", monkeypatch) == 2
    assert "--resume runs/tiny-1" in capsys.readouterr().err


def test_options_become_the_recipe(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def note(recipe: Recipe, root: Path, resume: bool) -> Run:
        asked.append((recipe, root.as_posix(), resume))
        raise UsageError("enough")

    monkeypatch.setattr(import_module("edgewise.training.loop"), "train", note)
    edgewise("train photos", monkeypatch)
    edgewise("train photos --no-flip --no-pretrained --lr 0.5 --patience 3 --name x", monkeypatch)
    other = Recipe("photos", flip=False, pretrained=False, lr=0.5, patience=3)
    assert asked == [
        (Recipe("photos"), "runs/efficientnet_lite0-1", False),
        (other, "runs/x", False),
    ]


def test_skipped_files_are_printed(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(20):
        (home / f"photos/a/broken{number}.jpg").write_text(f"not a picture {number}")
    assert edgewise(f"{QUICK} --name first", monkeypatch) == 0
    assert "20 files left out" in capsys.readouterr().out
    assert edgewise("eval runs/first", monkeypatch) == 0
    assert "files of test are not in this" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("train", "edgewise train DATA"),
        ("train nowhere", "nowhere"),
        ("train photos --epochs 0", "--epochs"),
        ("train photos --lr 100", "--lr"),
        ("train photos --seed x", "--seed"),
        ("train photos --model tinny", "tiny"),
        ("train photos --name a/b", "--name"),
        ("train photos --device gpu", "--device"),
        ("train --resume runs/none", "no such run: runs/none"),
        ("train --resume photos", "photos is not a run"),
        ("train --resume runs/none --name x", "--name"),
        ("eval runs/none", "no such run: runs/none"),
    ],
)
def test_wrong_call(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    named: str,
) -> None:
    assert edgewise(line, monkeypatch) == 2
    assert named in capsys.readouterr().err
    assert not (home / "runs").exists()
