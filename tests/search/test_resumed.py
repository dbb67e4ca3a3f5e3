"""A search that was stopped goes on with what it began with; a finished one is told again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commandline import edgewise
from search_device import FormulaDevice
from searches import NAME, Enough, Found, numbers, request_for, until

from edgewise.errors import EdgewiseError, UsageError
from edgewise.run_folder import Run
from edgewise.search import ladder
from edgewise.search.decisions import Decisions
from edgewise.search.ladder import run
from edgewise.search.request import Request, SearchFolder
from edgewise.training import loop
from edgewise.training.history import EpochMetrics
from edgewise.training.interrupt import Stopped
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("two_epochs")


def test_a_killed_search_goes_on(found: Found, device: FormulaDevice, tmp_path: Path) -> None:
    photos = Path(Request.read(found[0].request).data)
    before, root = tmp_path / "before", tmp_path / "moved"
    with pytest.raises(Enough):
        run(request_for(photos, "latency=6ms"), before, until("train"))
    before.rename(root)
    called = edgewise("run", "--resume", root)
    assert called.status == 0, called.errors
    assert f"{root}/final/export/onnx-int8: int8 in onnxruntime, fits" in called.output
    assert numbers(SearchFolder(root), root) == numbers(*found[:2])


def test_a_device_that_stays_away_ends_a_search_until_it_is_back(
    photos: Path, device: FormulaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*files: Any) -> None:
        raise EdgewiseError("ssh:pi@board went away.")

    monkeypatch.chdir(tmp_path)
    asked = ("--budget", "latency=6ms", "--models", NAME, "--no-flip", "--workers", 0)
    with monkeypatch.context() as patch:
        patch.setattr(device, "measure", away)
        called = edgewise("run", photos, *asked, "--name", "away")
    assert called.status == 1
    last = "ssh:pi@board went away.\ngo on with: edgewise run --resume runs/away\n"
    assert called.errors.endswith(last)
    root = Path("runs/away")
    assert list(Decisions(SearchFolder(root).decisions).made) == ["device", "doctor"]
    with pytest.raises(Enough):
        run(Request.read(SearchFolder(root).request), root, until("survey"))


def test_a_sigterm_while_files_are_timed_is_answered_as_a_ctrl_c(
    photos: Path, device: FormulaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time before it counts, and it says how to go on."""

    def ended(*files: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)  # Python answers a signal between two of its own steps

    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    asked = ("--budget", "latency=6ms", "--models", NAME, "--no-flip", "--workers", 0)
    with monkeypatch.context() as patch:
        patch.setattr(device, "measure", ended)
        called = edgewise("run", photos, *asked, "--name", "ended")
    assert called.status == 128 + signal.SIGTERM
    assert called.errors.endswith("stopped; go on with: edgewise run --resume runs/ended\n")
    assert list(json.loads(Path("runs/ended/stopped.json").read_text())) == ["survey"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_folder_that_can_not_be_made_is_no_traceback(
    photos: Path, device: FormulaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").write_text("a file")
    called = edgewise("run", photos, "--budget", "latency=6ms", "--models", NAME, "--name", "x")
    assert called.status == 1 and "can't write in runs/x" in called.errors


def test_a_signal_after_the_last_batch_stops_the_search(
    found: Found, device: FormulaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not a later rung: a finished training is gone on with by the next one."""
    photos, root = Path(Request.read(found[0].request).data), tmp_path / "search"
    write = loop.write_history

    def write_and_stop(written: Run, history: list[EpochMetrics]) -> None:
        write(written, history)
        if len(history) == 2 and written.root.name == "final":
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_history", write_and_stop)
        with pytest.raises(Stopped, match="go on with: edgewise run --resume") as stopped:
            run(request_for(photos, "latency=6ms"), root)
    assert stopped.value.exit_status == 128 + signal.SIGTERM
    assert list(Decisions(SearchFolder(root).decisions).made)[-1] == "choose"
    assert numbers(run(request_for(photos, "latency=6ms"), root), root) == numbers(*found[:2])


def test_a_search_goes_on_with_the_images_that_it_began_with(
    photos: Path, device: FormulaDevice, tmp_path: Path
) -> None:
    """Others are refused, also where only their part is another; an older log can't tell."""

    data, root = tmp_path / "data", tmp_path / "search"
    shutil.copytree(photos, data)
    asked, log = request_for(data, "latency=6ms"), SearchFolder(root).decisions
    with pytest.raises(Enough):
        run(asked, root, until("doctor"))
    image = data / "test" / "0" / "0-30.png"
    for elsewhere in (tmp_path / "away.png", data / "train" / "0" / "0-30.png"):
        image.rename(elsewhere)
        with pytest.raises(UsageError, match=r"data changed since .* put them back, or start"):
            run(asked, root)
        elsewhere.rename(image)
    with pytest.raises(Enough):
        run(asked, root, until("survey"))
    image.unlink()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [lines[1].pop("fingerprints").keys(), len(lines)] == [{"train", "val", "test"}, 3]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(Enough):
        run(asked, root, until("drift"))


def test_a_finished_search_is_told_without_its_images_and_device(
    found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(text: str, threads: int) -> None:
        raise EdgewiseError("the device went away")

    monkeypatch.setattr(ladder, "open_device", gone)
    root = tmp_path / "moved"
    shutil.copytree(found[1], root)
    asked = replace(Request.read(found[0].request), data=str(tmp_path / "nowhere"))
    asked.write(SearchFolder(root).request)
    called = edgewise("run", "--resume", root)
    assert called.status == 0, called.errors
    assert "data: 80 images of 2 classes" in called.output
    assert f"{root}/final/export/onnx-int8: int8 in onnxruntime, fits" in called.output
    assert f"report: {root / 'report.html'}" in called.output


def test_a_training_from_another_run_goes_on_after_a_move(
    found: Found, device: FormulaDevice, tmp_path: Path
) -> None:
    """Its recipe names its model and its teacher by where they were."""

    before, after = SearchFolder(tmp_path / "before"), SearchFolder(tmp_path / "after")
    shutil.copytree(found[1], before.root)
    lines = before.decisions.read_text().splitlines(keepends=True)
    before.decisions.write_text("".join(lines[:-1]))  # without the test
    final = Run(before.final)
    recipe = replace(Recipe.read(final.recipe), model=str(final.model), pretrained=None)
    recipe = replace(recipe, teacher=str(final.root), epochs=1, minutes=None, head_epochs=0)
    train(recipe, before.distilled)
    shutil.move(before.root, after.root)
    with pytest.raises(Enough):
        run(Request.read(after.request), after.root, until("device"))
    own = Recipe.read(Run(after.distilled).recipe)
    assert [own.model, own.teacher] == [str(after.final / "model"), str(after.final)]
    train(own, after.distilled, resume=True)
    assert Recipe.read(Run(after.final).recipe).model == NAME


def test_an_older_log_names_its_folders_from_elsewhere(
    found: Found, device: FormulaDevice, tmp_path: Path
) -> None:
    """As they were from the directory in which the search began."""
    root = tmp_path / "moved"
    shutil.copytree(found[1], root)
    log = SearchFolder(root).decisions
    lines = log.read_text().replace('": "final', '": "runs/photos-search-1/final').splitlines()
    assert sum("runs/photos-search-1/final" in line for line in lines) == 4
    log.write_text("".join(f"{line}\n" for line in lines[:-1]))
    made = Decisions(run(Request.read(found[0].request), root).decisions).made
    assert made["test"]["fits"]
    assert device.asked[-1].path == root / "final" / "export" / "onnx-int8" / "model.onnx"


def test_a_search_does_not_go_on_with_another_device(
    photos: Path, device: FormulaDevice, tmp_path: Path
) -> None:
    root, first = tmp_path / "search", device.facts()

    def go_on(**changes: Any) -> None:
        device.facts = lambda: replace(first, **changes)  # type: ignore[method-assign]
        with pytest.raises(Enough):
            run(request_for(photos, "latency=6ms"), root, until("device"))

    go_on()
    go_on(fingerprint="new", platform="a newer kernel")
    go_on(runtimes={"onnxruntime": "1.0", "litert": "2.0"})  # which was not asked for
    for changes, words in (
        ({"cpu": "another"}, "cpu: a formula -> another"),
        ({"runtimes": {"onnxruntime": "1.1"}}, r"onnxruntime: 1\.0 -> 1\.1"),
        ({"runtimes": {"openvino": "1"}}, r"onnxruntime: 1\.0 -> none"),
    ):
        with pytest.raises(UsageError, match=rf"another device than local .*{words}.* --name"):
            go_on(**changes)


def test_a_finished_search_is_shown_on_another_device(
    found: Found, device: FormulaDevice, tmp_path: Path
) -> None:
    root = tmp_path / "copied"
    shutil.copytree(found[1], root)
    other = replace(device.facts(), cpu="another", runtimes={"onnxruntime": "9"})
    device.facts = lambda: other  # type: ignore[method-assign]
    called = edgewise("run", "--resume", root)
    assert called.status == 0, called.errors
    assert "device: local, a formula" in called.output
    assert not device.asked


def test_another_request_in_the_same_folder(
    found: Found,
) -> None:
    other = Request.read(found[0].request)
    with pytest.raises(UsageError, match="--resume"):
        run(Request(other.data, "latency=7ms"), found[1])
