"""What we tell people to call next works when it is pasted, whatever their folders are called."""

from __future__ import annotations

import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from commandline import edgewise
from photos import write_photos

from edgewise.errors import CantWrite, EdgewiseError, UsageError
from edgewise.run_folder import Run
from edgewise.search.request import Request, SearchFolder
from edgewise.search.state import Settled
from edgewise.shell import command_line

NAME = "my cat's run"
RESUMED = command_line("run", "--resume", f"runs/{NAME}")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_photos(tmp_path / "photos", {"a": 12, "b": 12})


def said(text: str) -> list[list[str]]:
    """The words of each command line in a text, as a shell takes them."""
    after = [line.partition("edgewise ")[2] for line in text.splitlines() if "edgewise " in line]
    return [shlex.split(line) for line in after]


def test_of_train_and_of_compress(photos: Path) -> None:
    small = ("--model", "tiny", "--imgsz", 32, "--epochs", 1, "--batch", 8, "--workers", 0)
    called = edgewise("train", photos, *small, "--device", "cpu", "--name", NAME)
    evaluate, export = said(called.output)
    assert evaluate == ["eval", f"runs/{NAME}"]
    assert export == ["export", f"runs/{NAME}", "--format", "onnx"]
    assert edgewise(*evaluate).status == 0

    called = edgewise("compress", f"runs/{NAME}", "--qat", "--epochs", 1, "--name", "its int8")
    assert [words[:2] for words in said(called.output)] == [
        ["eval", "runs/its int8"],
        ["export", "runs/its int8"],
    ]


def test_of_what_was_stopped(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(request: Request, root: Path, watch: Any) -> None:
        root.mkdir(parents=True)
        request.write(SearchFolder(root).request)
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module("edgewise.search.ladder"), "run", stopped)
    called = edgewise("run", photos, "--budget", "size=1MB", "--name", NAME)
    assert said(called.errors) == [["run", "--resume", f"runs/{NAME}"]]


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (EdgewiseError("ssh:pi@board went away. See that it is on."), 1, True),
        (CantWrite("can't write a: No space left on device."), 1, True),
        (EdgewiseError(f"full; go on with: {RESUMED}"), 1, True),
        (Settled("the long training failed. Search again under another --name"), 1, False),
        (UsageError("3 minutes are too short. Give at least --time 9m"), 2, False),
    ],
)
def test_of_a_search_that_an_error_ended(
    photos: Path, monkeypatch: pytest.MonkeyPatch, error: EdgewiseError, status: int, told: bool
) -> None:
    """Once, where it is mended by going on; and not before there is anything to go on with."""

    def ended(request: Request, root: Path, watch: Any) -> None:
        if begun:
            root.mkdir(parents=True)
            request.write(SearchFolder(root).request)
        raise error

    monkeypatch.setattr(import_module("edgewise.search.ladder"), "run", ended)
    for begun in (False, True):
        called = edgewise("run", photos, "--budget", "size=1MB", "--name", NAME)
        assert called.status == status
        assert called.errors.startswith(f"Error: {error}")
        again = ["run", "--resume", f"runs/{NAME}"]
        assert said(called.errors) == [again] * (told and (begun or "--resume" in str(error)))


def test_of_a_run_that_is_not_ready(tmp_path: Path) -> None:
    run = Run(tmp_path / NAME)
    with pytest.raises(Exception, match="has no trained model") as error:
        run.trained()
    assert said(str(error.value)) == [["train", "--resume", str(run.root)]]


def test_a_plain_name_is_not_quoted() -> None:
    assert command_line("eval", Path("runs/first-1")) == "edgewise eval runs/first-1"
