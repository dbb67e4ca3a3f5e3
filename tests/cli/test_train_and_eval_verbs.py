"""`edgewise train` and `edgewise eval`: what they print, and how they answer a wrong call."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from commandline import edgewise
from photos import write_photos

from edgewise.data.dataset import Dataset
from edgewise.errors import UsageError
from edgewise.run_folder import Run
from edgewise.training import start
from edgewise.training.recipe import Recipe

QUICK = [
    "train",
    "photos",
    "--model",
    "tiny",
    "--imgsz",
    "32",
    "--epochs",
    "2",
    "--batch",
    "8",
    "--workers",
    "0",
    "--device",
    "cpu",
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, str, bool]]:
    """What is trained from now on: the recipe, the folder, and whether it is resumed."""
    asked: list[tuple[Recipe, str, bool]] = []

    def note(recipe: Recipe, root: Path, resume: bool) -> Run:
        asked.append((recipe, root.as_posix(), resume))
        raise UsageError("enough")

    monkeypatch.setattr(import_module("edgewise.training.loop"), "train", note)
    return asked


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photos in it."""
    write_photos(tmp_path / "photos", {"a": 12, "b": 12, "c": 12})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_then_eval(home: Path) -> None:
    called = edgewise(*QUICK)
    assert called.status == 0, called.errors
    assert called.output.count("\nepoch ") == 2
    assert "is kept, with a validation accuracy of" in called.output
    assert "next:  edgewise eval runs/tiny-1" in called.output
    assert json.loads((home / "runs/tiny-1/recipe.json").read_text())["batch"] == 8

    output = edgewise("eval", "runs/tiny-1").output
    assert output.startswith("test: ")
    assert [line.split()[0] for line in output.splitlines()[3:6]] == ["a", "b", "c"]
    value = json.loads(edgewise("eval", "runs/tiny-1", "--split", "val", "--json").output)
    assert value == json.loads((home / "runs/tiny-1/eval/val.json").read_text())

    called = edgewise("train", "--resume", "runs/tiny-1")
    assert called.status == 0
    assert "nothing left to do" in called.output
    called = edgewise("train", "--resume", "runs/tiny-1", "--epochs", 3)
    assert called.status == 2
    assert "epochs can't be changed on resume" in called.errors


def test_names_of_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is begun while the first still reads its images."""
    load, second = start.load_dataset, []

    def load_slowly(path: Path, workers: int) -> Dataset:
        monkeypatch.setattr(start, "load_dataset", load)
        second.append(edgewise(*QUICK, "--epochs", 1))
        return load(path, workers)

    monkeypatch.setattr(start, "load_dataset", load_slowly)
    first = edgewise(*QUICK, "--epochs", 1)
    for called, name in ((first, "tiny-1"), (second[0], "tiny-2")):
        assert (called.status, f"runs/{name} is finished" in called.output) == (0, True)
        assert (home / "runs" / name / "model").is_dir()
    called = edgewise(*QUICK, "--name", "tiny-1")
    assert called.status == 2
    assert "--resume runs/tiny-1" in called.errors


@pytest.mark.parametrize("before", [[], ["runs"], ["runs", "runs/tiny-1"]])
def test_what_cannot_be_trained_leaves_no_folder(home: Path, before: list[str]) -> None:
    for name in before:
        (home / name).mkdir()
    called = edgewise("train", "nowhere", "--model", "tiny", "--device", "cpu")
    assert (called.status, "nowhere" in called.errors) == (2, True)
    assert sorted(path.relative_to(home).as_posix() for path in home.glob("runs/**")) == before


def test_a_place_in_which_no_run_can_be_made_is_named(home: Path) -> None:
    (home / "runs").write_text("")
    called = edgewise(*QUICK)
    assert (called.status, f"can't write in {home / 'runs'}: " in called.errors) == (2, True)


def test_a_run_from_a_model_folder_is_called_after_it(
    home: Path, asked: list[tuple[Recipe, str, bool]]
) -> None:
    (home / "runs/first").mkdir(parents=True)
    for model in ("runs/first", "runs/first/", home / "runs" / "first", f"{home}/runs/first/"):
        edgewise("train", "photos", "--model", model)
    assert [root for _, root, _ in asked] == ["runs/first-1"] * 4


def test_options_become_the_recipe(home: Path, asked: list[tuple[Recipe, str, bool]]) -> None:
    edgewise("train", "photos")
    edgewise(
        *[
            "train",
            "photos",
            "--no-flip",
            "--no-pretrained",
            "--lr",
            "0.5",
            "--patience",
            "3",
            "--name",
            "x",
        ]
    )
    other = Recipe("photos", flip=False, pretrained=False, lr=0.5, patience=3)
    assert asked == [
        (Recipe("photos"), "runs/efficientnet_lite0-1", False),
        (other, "runs/x", False),
    ]


def test_skipped_files_are_printed(home: Path) -> None:
    for number in range(20):
        (home / f"photos/a/broken{number}.jpg").write_text(f"not a picture {number}")
    called = edgewise(*QUICK, "--name", "first")
    assert called.status == 0
    assert "20 files left out" in called.output
    called = edgewise("eval", "runs/first")
    assert called.status == 0
    assert "files of test are not in this" in called.errors


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("train", "edgewise train DATA"),
        ("train nowhere", "nowhere"),
        ("train photos --epochs 0", "--epochs"),
        ("train photos --lr 100", "--lr"),
        ("train photos --seed x", "--seed"),
        ("train photos --model tinny", "tiny"),
        ("train photos --model runs/frist", "unknown model 'runs/frist'"),
        ("train photos --name a/b", "--name"),
        ("train photos --device gpu", "--device"),
        ("train --resume runs/none", "no such run: runs/none"),
        ("train --resume photos", "photos is not a run"),
        ("train --resume runs/none --name x", "--name"),
        ("eval runs/none", "no such run: runs/none"),
    ],
)
def test_wrong_call(home: Path, line: str, named: str) -> None:
    called = edgewise(*line.split())
    assert called.status == 2
    assert named in called.errors
    assert not (home / "runs").exists()


def test_options_stand_over_words_and_those_over_the_recipe(home: Path) -> None:
    (home / "mine.toml").write_text('optimizer = "sgd"\nlr = 0.5\nmixup = 0.1\nbatch = 4\n')
    words = ["--recipe", "mine.toml", "lr=0.1", "schedule=constant", "magnitude=0"]
    called = edgewise(*QUICK, "--epochs", "1", *words, "--lr", "0.02")
    assert called.status == 0, called.errors
    recipe = Recipe.read(home / "runs/tiny-1/recipe.json")
    assert (recipe.optimizer, recipe.lr, recipe.batch) == ("sgd", 0.02, 8)
    assert (recipe.mixup, recipe.schedule, recipe.magnitude) == (0.1, "constant", 0)


def test_a_time_stands_over_the_epochs_of_a_recipe_and_they_over_it(
    home: Path, asked: list[tuple[Recipe, str, bool]]
) -> None:
    (home / "timed.toml").write_text("minutes = 5\nfind_lr = true\nfind_batch = true\n")
    edgewise("train", "photos", "--recipe", "mobilenet_v2", "--time", "20m")
    edgewise("train", "photos", "--recipe", "mobilenet_v2", "--time", "20m", "epochs=3")
    for epochs in (("--epochs", 7), ("epochs=7",)):
        edgewise("train", "photos", "--recipe", "timed.toml", *epochs)
    edgewise("train", "photos", "--recipe", "timed.toml", "--batch", 16, "lr=0.1")
    timed, both, *counted, found = [recipe for recipe, _, _ in asked]
    assert (timed.epochs, timed.minutes) == (0, 20)
    assert (both.epochs, both.minutes) == (3, 20)  # which training refuses
    assert [(recipe.epochs, recipe.minutes) for recipe in counted] == [(7, None)] * 2
    assert (found.minutes, found.batch, found.lr) == (5, 16, 0.1)
    assert not found.find_batch and not found.find_lr


def test_a_misspelt_setting_and_the_list_of_all() -> None:
    called = edgewise("train", "photos", "optimiser=sgd")
    assert called.status == 2
    assert "unknown setting 'optimiser'. Nearest: optimizer" in called.errors
    called = edgewise("train", "--recipe-help")
    assert called.status == 0
    assert "schedule: How the learning rate falls" in called.output
    assert "efficientnet_v2_s" in called.output
