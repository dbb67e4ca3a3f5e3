"""What is printed where it can't be: an encoding without the letters, a full disk."""

from __future__ import annotations

import errno
import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from closed import close
from commandline import edgewise

from edgewise.cli.main import main
from edgewise.deploy.predict import Guess, Prediction

FULL = Path("/dev/full")
ANSWER = Prediction(Path("cat.jpg"), (Guess(0, "Löwenzahn", 0.9), Guess(1, "猫", 0.1)))


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_letters_that_the_encoding_has_not_are_written_as_their_codes(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("edgewise.deploy.predict.predict", lambda *arguments: [ANSWER])
    monkeypatch.setattr("sys.argv", ["edgewise", "predict", "any", "cat.jpg"])
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
    main()
    sys.stdout.flush()
    first, second, third = written.getvalue().decode(encoding).splitlines()
    assert first == "cat.jpg"
    assert second.split()[:2] == ["Löwenzahn", "90.00%"]
    assert third.split()[:2] == [r"\u732b", "10.00%"]


def said(arguments: list[str], **streams: object) -> tuple[int, str]:
    """The exit status of a process whose output goes to a full disk, and its errors."""
    code = "from edgewise.cli.main import main; main()"
    with FULL.open("w") as full:
        files = {"stdout": full, "stderr": full if "stderr" in streams else subprocess.PIPE}
        done = subprocess.run([sys.executable, "-c", code, *arguments], text=True, **files)  # type: ignore[call-overload]
    return done.returncode, done.stderr


@pytest.mark.skipif(not FULL.exists(), reason="no such device")
@pytest.mark.parametrize("arguments", [["--version"], ["models", "--json"]])  # of 20 B, of 100 kB
def test_a_full_disk_is_an_error_in_a_line(arguments: list[str]) -> None:
    assert said(arguments) == (1, "Error: can't write the output: No space left on device\n")
    assert said(arguments, stderr=FULL) == (1, None)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: out of memory")],
)
def test_a_full_gpu_is_an_error_in_a_line(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("edgewise.families.list_models", fail)
    called = edgewise("models")
    assert called.status == 1
    assert called.errors == (
        "Error: the GPU has too little memory: end what else is at work on it, or --device cpu\n"
    )


def test_an_error_of_other_code_is_not_called_one_of_the_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("edgewise.families.list_models", fail)
    monkeypatch.setattr("sys.argv", ["edgewise", "models"])
    with pytest.raises(OSError, match="No space left"):
        main()


def test_a_decoding_process_that_died_is_told_by_every_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*given: object, **settings: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr("edgewise.data.doctor.examine", die)
    called = edgewise("doctor", tmp_path)
    assert called.status == 1
    assert called.errors == (
        "Error: DataLoader worker (pid 7) is killed by signal: Killed. If memory is short, use "
        "fewer --workers or a smaller --batch.\n"
    )


def test_a_folder_that_may_not_be_entered_is_an_error_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close(tmp_path, monkeypatch)
    called = edgewise("eval", tmp_path / "run")
    assert (called.status, called.errors) == (1, f"Error: Permission denied: {tmp_path / 'run'}\n")
