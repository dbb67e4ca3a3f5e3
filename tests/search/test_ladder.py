"""A search from end to end: on real digits, with a small network, on a device of known times."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commandline import edgewise
from search_device import FormulaDevice, write_photos
from searches import NAME, Enough, Found, numbers, request_for

from edgewise.cli.run_text import told
from edgewise.data.dataset import read_dataset
from edgewise.deploy.runner import load
from edgewise.errors import EdgewiseError, UsageError
from edgewise.families import VARIANTS
from edgewise.files import claimed
from edgewise.run_folder import Run
from edgewise.search import ladder
from edgewise.search.choosing import NothingFits
from edgewise.search.decisions import Decisions
from edgewise.search.device import Measured, TimedFile
from edgewise.search.ladder import run
from edgewise.search.request import Request, SearchFolder
from edgewise.search.state import Watch
from edgewise.search.trials import RETRIES
from edgewise.training.evaluate import evaluate
from edgewise.training.history import kept_epoch, read_history
from edgewise.training.recipe import Recipe
from edgewise.weights.folder import load_model

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("two_epochs")


def test_from_photos_to_a_tested_file(found: Found) -> None:
    made, device = Decisions(found[0].decisions).made, found[2]
    assert list(made) == [
        "device", "doctor", "survey", "drift", "pace", "choose", "train", "files", "rows", "test",
    ]  # fmt: skip
    assert made["doctor"]["splits"] == {"train": 40, "val": 20, "test": 20}
    (trial,) = made["choose"]["trials"]
    assert (trial["name"], trial["least"]["precision"]) == (f"{NAME}-96", "int8")
    test = made["test"]
    assert (test["precision"], test["fits"]) == ("int8", True)
    assert test["spent"]["median_ms"] == 96**2 / 2000
    assert test["used"]["latency"] == pytest.approx(96**2 / 2000 / 6)
    assert device.asked[-1].path == found[1] / test["folder"] / "model.onnx"


def test_a_device_that_is_slower_now_gets_less(
    photos: Path, found: Found, device: FormulaDevice, tmp_path: Path
) -> None:
    """96 px fitted when it was measured; at twice the time 64 px does."""

    def look(step: str, decided: dict[str, Any]) -> None:
        if step == "survey":
            device.slower = 2.0
        if step == "choose":
            raise Enough

    root = tmp_path / "search"
    with pytest.raises(Enough):
        run(request_for(photos, "latency=6ms"), root, Watch(decided=look))
    made = Decisions(SearchFolder(root).decisions).made
    assert made["drift"]["factor"] == 2.0
    assert [trial["name"] for trial in made["choose"]["trials"]] == [f"{NAME}-64"]


def test_what_took_longer_than_a_larger_image_is_timed_again(
    photos: Path, device: FormulaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """160 px were measured while something else ran, and seemed too dear beside 192."""
    timed, budget = device._measured, "latency=30ms"
    busy = True

    def measured(file: TimedFile) -> Measured:
        device.slower = 2.0 if busy and "at 160 px" in file.key else 1.0
        return timed(file)

    def look(step: str, decided: dict[str, Any]) -> None:
        nonlocal busy
        busy = busy and step != "survey"
        if step == "choose":
            raise Enough

    monkeypatch.setattr(device, "_measured", measured)
    root = tmp_path / "search"
    asked = replace(request_for(photos, budget), precisions=("fp32",))
    with pytest.raises(Enough):
        run(asked, root, Watch(decided=look))
    made = Decisions(SearchFolder(root).decisions).made
    took = {c["candidate"]["imgsz"]: c["spent"]["median_ms"] for c in made["survey"]["costs"]}
    assert took[160] == 51.2
    assert took[192] == 36.864
    assert told("drift", made["drift"]).splitlines()[1:] == [
        "timed again: tiny224 at 160 px, fp32 in onnxruntime, 51.2 ms before, 25.6 ms now"
    ]
    assert [trial["name"] for trial in made["choose"]["trials"]] == [
        f"{NAME}-192",
        f"{NAME}-160",
    ]


def test_with_little_time_smaller_images_are_measured(
    photos: Path, device: FormulaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All sizes fit, and an epoch at 224 px takes six minutes of the hour. The device becomes
    slower before they are measured, which is in their times.
    """

    def until(last: str) -> Watch:
        def look(step: str, decided: dict[str, Any]) -> None:
            if step == "survey":
                device.slower = 1.5
            if step == last:
                raise Enough

        return Watch(decided=look)

    def time_epoch(self: object, model: str, imgsz: int, pretrained: bool) -> tuple[float, float]:
        return 30 * (imgsz / 64) ** 2, 10

    monkeypatch.setattr("edgewise.search.trials.Trainer.time_epoch", time_epoch)
    root = tmp_path / "search"
    with pytest.raises(Enough):
        run(request_for(photos, "latency=60ms"), root, until("choose"))
    made = Decisions(SearchFolder(root).decisions).made
    surveyed = {cost["candidate"]["imgsz"] for cost in made["survey"]["costs"]}
    assert surveyed == {64, 224}
    (size,) = {cost["candidate"]["imgsz"] for cost in made["sizes"]["costs"]}
    (trial,) = made["choose"]["trials"]
    assert 64 < trial["imgsz"] == size < 224
    assert trial["used"] == pytest.approx(1.5 * size**2 / 2000 / 60)
    assert made["choose"]["with_time"]["name"] == f"{NAME}-224"
    with pytest.raises(Enough):  # a search that goes on has the same choice
        run(request_for(photos, "latency=60ms"), root, until("train"))
    assert Decisions(SearchFolder(root).decisions).made["train"]["trial"] == trial["name"]


def test_its_accuracies_are_those_of_eval(found: Found) -> None:
    made = Decisions(found[0].decisions).made
    final = Run(found[0].final)
    assert made["train"]["accuracy"] == max(e.val_accuracy for e in read_history(final))
    files = {file["precision"]: file for file in made["files"]["files"]}
    assert files["fp32"]["accuracy"] == evaluate(final, "val").top1
    test = evaluate(final, "test")
    assert abs(made["test"]["accuracy"] - test.top1) <= 2 / test.images  # int8's own mistakes
    assert made["test"]["images"] == test.images == 20


def test_the_answer_does_not_change_what_is_chosen(
    found: Found, device: FormulaDevice, tmp_path: Path
) -> None:
    """With all test images under wrong names nothing but the test is another."""
    wrong = write_photos(tmp_path / "wrong", test_label=lambda label: 1 - label)
    root = tmp_path / "other"
    other = numbers(run(request_for(wrong, "latency=6ms"), root), root)
    same = numbers(*found[:2])
    tests = same.pop("test"), other.pop("test")
    marks = [made["doctor"]["fingerprints"].pop("test") for made in (same, other)]
    assert other == same
    assert marks[0] != marks[1]
    assert tests[1]["accuracy"] == pytest.approx(1 - tests[0]["accuracy"])


@pytest.mark.slow
def test_trials_thin_out(
    photos: Path, device: FormulaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four networks are tried, three of them longer, and the best of these is trained."""
    for i in range(3):
        monkeypatch.setitem(VARIANTS, f"tiny{i}", replace(VARIANTS[NAME], name=f"tiny{i}"))
    models = (NAME, "tiny0", "tiny1", "tiny2")
    root = tmp_path / "search"
    made = numbers(run(request_for(photos, "latency=5ms", models=models), root), root)
    scores = {name: made[f"round 1: {name}-96"]["score"] for name in models}
    kept = made["round 1"]["kept"]
    assert len(kept) == 3
    assert min(scores[name.removesuffix("-96")] for name in kept) >= min(scores.values())
    assert [step for step in made if step.startswith("round 2:")] == [
        f"round 2: {name}" for name in kept
    ]
    assert made["train"]["trial"] == made["round 2"]["kept"][0]


@pytest.mark.slow
def test_the_best_file_is_made_again_of_all_images_but_the_tests(
    photos: Path, device: FormulaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgewise.search.trying.each_of_two", lambda *given: given[-1] / 2)
    monkeypatch.setattr("edgewise.training.start.plan_epochs", lambda *arguments: 25)

    def kill(what: str) -> None:
        if what == "again":
            raise Enough

    root = tmp_path / "search"
    asked = request_for(photos, "latency=6ms")
    with pytest.raises(Enough):
        run(asked, root, Watch(tell=kill))
    folder = run(asked, root)
    made = numbers(folder, root)
    assert [*made][-6:] == ["train", "files", "again", "files: again", "rows", "test"]
    assert made["again"]["images"] == 40 + 20
    assert made["test"]["folder"] == "again/calibrated/export/onnx-int8"
    first, learned, shipped = (
        Run(path) for path in (folder.final, folder.again / "learned", folder.again / "calibrated")
    )
    split = read_dataset(shipped).splits
    assert set(read_dataset(first).splits["val"]) < set(split["train"])
    assert not set(split["train"]) & set(split["test"])
    warmth = kept_epoch(read_history(first)).temperature
    old, new = (load_model(place.model).network.state_dict() for place in (learned, shipped))
    for name, value in new.items():
        was = old[name]
        was = was / warmth if name.startswith("head.classifier") else was
        torch.testing.assert_close(value, was)
    chosen = next(file for file in made["files"]["files"] if file["precision"] == "int8")
    assert made["test"]["selected_by"]["accuracy"] == chosen["accuracy"]
    runner = load(root / made["test"]["folder"])
    right = [
        guesses[0].label == runner.labels[sample.label]
        for sample, guesses in zip(
            split["test"], runner.predict([sample.path for sample in split["test"]]), strict=True
        )
    ]
    assert made["test"]["accuracy"] == sum(right) / len(right) > 0.7  # chance is a half


def test_its_trainings_recover_from_divergence_by_themselves(found: Found) -> None:
    assert Recipe.read(Run(found[0].final).recipe).retries == RETRIES > 0


def test_nothing_fits(photos: Path, device: FormulaDevice, tmp_path: Path) -> None:
    with pytest.raises(NothingFits, match=r"tiny224 at 64 px, int8.*2\.05 ms") as caught:
        run(request_for(photos, "latency=10us"), tmp_path / "search")
    assert caught.value.exit_status == 3
    assert not SearchFolder(tmp_path / "search").trials.exists()


@pytest.mark.slow
def test_a_file_slower_than_was_measured_means_smaller_images(
    photos: Path, device: FormulaDevice, tmp_path: Path
) -> None:
    device.shipped = 2.0  # 96 px in int8: 9.2 ms and not 4.6; 64 px: 4.1 ms
    root = tmp_path / "search"
    made = numbers(run(request_for(photos, "latency=5ms"), root), root)
    assert "lower: 64 px" in made
    assert made["test"]["fits"]
    assert "64" in made["test"]["folder"]


@pytest.mark.slow
def test_over_the_budget_is_exit_status_3(
    photos: Path, device: FormulaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.shipped = 100.0
    monkeypatch.chdir(tmp_path)
    called = edgewise(
        *("run", photos, "--budget", "latency=5ms", "--models", NAME, "--no-flip"),
        *("--workers", 0, "--time", "60m", "--name", "over"),
    )
    assert called.status == 3, called.errors
    assert "does NOT fit the budget" in called.output
    assert not Decisions(tmp_path / "runs" / "over" / "decisions.jsonl").made["test"]["fits"]


def test_too_little_time_says_the_least(
    photos: Path, device: FormulaDevice, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"--time \d+m"):
        run(request_for(photos, "latency=6ms", minutes=0.001), tmp_path / "search")


def test_unsound_data_stops_before_anything_is_measured(
    photos: Path, device: FormulaDevice, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    for path in (data / "val").rglob("*.png"):  # the images that are trained on, once more
        twin = data / "train" / path.parent.name / path.name
        shutil.copyfile(path, twin)
    with pytest.raises(EdgewiseError, match="doctor"):
        run(request_for(data, "latency=6ms"), tmp_path / "search")
    assert device.asked == []


@pytest.mark.parametrize("new", [True, False])
def test_another_process_stays_out(
    photos: Path,
    device: FormulaDevice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    new: bool,
) -> None:
    """Whether it wants to begin just now or to go on; the lock that stays is nothing."""

    def look(step: str, decided: dict[str, Any]) -> None:
        raise Enough

    monkeypatch.setattr("edgewise.files.PATIENCE", 0.1)
    root, asked = tmp_path / "search", request_for(photos, "latency=6ms")
    root.mkdir()
    if not new:
        asked.write(SearchFolder(root).request)
    with claimed(root), pytest.raises(UsageError, match="another process is at work in"):
        run(asked, root)
    assert SearchFolder(root).request.exists() != new
    assert not SearchFolder(root).decisions.exists()
    with pytest.raises(Enough):
        run(asked, root, Watch(decided=look))
    assert list(Decisions(SearchFolder(root).decisions).made) == ["device"]


def test_the_photos_are_found_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Request] = []

    def note(request: Request, *rest: object) -> None:
        asked.append(request)
        raise UsageError("that will do")

    monkeypatch.setattr(ladder, "run", note)
    monkeypatch.chdir(tmp_path)
    assert "that will do" in edgewise("run", "photos", "--budget", "latency=5ms").errors
    assert asked[0].data == str(tmp_path / "photos")


def test_calls_that_are_wrong(photos: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (["run", photos], "--budget"),
        (["run", photos, "--budget", "latency=5"], "us, ms, s"),
        (["run", "--resume", tmp_path], "not a search"),
        (["run", "--resume", tmp_path, "--time", "2h"], "leave --time out"),
        (["run", photos, "--resume", tmp_path, "--seed", 0, "--no-flip"], "leave DATA, --no-flip"),
        (["run", photos, "--budget", "latency=5ms", "--name", "a/b"], "without a path"),
        (["run", photos, "--budget", "latency=5ms", "--precision", "int4"], "int8"),
    ):
        called = edgewise(*arguments)
        assert called.status == 2, arguments
        assert words in called.errors, arguments
