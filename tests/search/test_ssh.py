"""A device behind ssh, for real: a server on the loopback address with another user's Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import edgewise
from loopback_sshd import Board, loopback_board
from multiplied import write_matmul

from edgewise.errors import EdgewiseError, UsageError
from edgewise.measure.latency import machine
from edgewise.measure.store import fingerprint
from edgewise.search import device_client
from edgewise.search.decisions import Decisions
from edgewise.search.device import Measured, TimedFile, open_device
from edgewise.search.ssh import SshDevice

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def server() -> Iterator[Board]:
    with loopback_board() as board:
        yield board


@pytest.fixture
def board(server: Board, monkeypatch: pytest.MonkeyPatch) -> Board:
    """Reached with its own keys, and not waited for long."""
    monkeypatch.setenv("PATH", server.path)
    monkeypatch.setattr(SshDevice, "pauses", (0.1, 0.2))
    if not server.server:
        server.start()
    return server


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[TimedFile]:
    folder = tmp_path_factory.mktemp("files")
    for name, side in (("small", 64), ("large", 256)):
        write_matmul(folder / f"{name}.onnx", side)
    return [TimedFile(name, folder / f"{name}.onnx", "onnxruntime") for name in ("small", "large")]


def stored(board: Board) -> dict[str, int]:
    """What is kept there, and when it was written."""
    kept = board.home.glob(".cache/edgewise-device/files/*/*")
    return {path.name: path.stat().st_mtime_ns for path in kept}


def test_it_is_another_users_python(board: Board) -> None:
    facts = open_device(board.device).facts()
    assert set(facts.runtimes) == {"onnxruntime"}
    here = {"cpu": facts.cpu, "cores": facts.cores, "platform": facts.platform}
    assert facts.fingerprint == fingerprint(here)
    assert facts.cpu == machine()["cpu"]


def test_what_a_login_shell_prints_may_end_without_a_newline(
    board: Board, files: list[TimedFile]
) -> None:
    shell = board.home / ".bashrc"
    text = shell.read_text()
    try:
        shell.write_text(r"printf '\033]0;board\007hello '")  # a window's title, and a word
        answers = open_device(board.device).measure(files[:1], 0.1)
    finally:
        shell.write_text(text)
    assert not answers["small"].failure


def test_files_are_timed_there(board: Board, files: list[TimedFile]) -> None:
    steps: list[str] = []
    answers = open_device(board.device).measure(files, 0.2, steps.append)
    assert {key: answer.failure for key, answer in answers.items()} == {"small": "", "large": ""}
    for answer in answers.values():
        assert answer.timing and len(answer.timing.rounds_ms) == 20
    small, large = (answers[key].timing for key in ("small", "large"))
    assert small and large and min(small.rounds_ms) < min(large.rounds_ms)
    assert {"small is loaded", "round 20 of 20"} <= set(steps)


def test_nothing_else_is_left_there(board: Board, files: list[TimedFile]) -> None:
    """Neither by us nor by a runtime that keeps an identity for its maker."""
    open_device(board.device).measure(files[:1], 0.1)
    cache = board.home / ".cache"
    assert [path.name for path in cache.iterdir()] == ["edgewise-device"]
    (scripts,) = cache.glob("*/scripts-*")
    left = {path.name for path in scripts.iterdir()}
    assert left == {"device_facts.py", "device_runner.py", "device_worker.py"}


def test_a_file_that_is_there_is_not_sent_again(board: Board, files: list[TimedFile]) -> None:
    device = open_device(board.device)
    device.measure(files[:1], 0.1)
    before = stored(board)
    assert before
    device.measure(files[:1], 0.1)
    assert stored(board) == before


def test_what_was_damaged_there_is_sent_again(board: Board, files: list[TimedFile]) -> None:
    device = open_device(board.device)
    device.measure(files[:1], 0.1)
    for path in board.home.glob(".cache/edgewise-device/files/*/small.onnx"):
        path.write_bytes(bytes(path.stat().st_size))  # as after a loss of power
    assert not device.measure(files[:1], 0.1)["small"].failure


def test_a_runtime_that_it_lacks_is_named(board: Board, files: list[TimedFile]) -> None:
    there = TimedFile("large", files[1].path, "openvino")
    answers = open_device(board.device).measure([files[0], there], 0.1)
    assert "pip install numpy openvino" in answers["large"].failure
    assert not answers["small"].failure
    bare = open_device(board.address).measure(files[:1], 0.1)  # the system's own python3
    assert "pip install numpy onnxruntime" in bare["small"].failure


def test_a_broken_connection_is_made_again(
    board: Board, files: list[TimedFile], capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[str] = []

    def step(what: str) -> None:
        steps.append(what)
        if what == "round 3 of 20" and steps.count(what) == 1:
            board.cut()

    answers = open_device(board.device).measure(files, 0.1, step)
    assert steps.count("round 3 of 20") == 2
    assert all(answer.timing for answer in answers.values())
    assert "went away" in capsys.readouterr().err


def test_what_was_measured_before_it_went_away_is_kept(
    board: Board, files: list[TimedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_client, "TOGETHER", 1)
    kept: dict[str, Measured] = {}

    def step(what: str) -> None:
        if kept:
            board.stop()

    with pytest.raises(EdgewiseError, match=r"2 more tries did not .* out of memory\.$"):
        open_device(board.device).measure(files, 0.1, step, kept.__setitem__)
    assert kept["small"].timing and len(kept) == 1


def test_when_we_end_it_ends_too(board: Board, files: list[TimedFile]) -> None:
    def step(what: str) -> None:
        if what.startswith("round"):
            assert "device_runner.py" in board.processes()
            assert "device_worker.py" in board.processes()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_device(board.device).measure(files, 60, step)
    assert not board.processes()


def test_unreachable(board: Board) -> None:
    board.stop()
    with pytest.raises(
        EdgewiseError, match=r"can't reach ssh:.*refused\. See .*runs an ssh server"
    ):
        open_device(board.device).facts()


def test_a_key_that_is_not_let_in(board: Board) -> None:
    stranger = board.device.replace(board.user, "root")
    with pytest.raises(EdgewiseError, match=r"Permission denied.*ssh-copy-id root@127.0.0.1"):
        open_device(stranger).facts()


def test_a_host_that_is_not_known(board: Board) -> None:
    known = board.folder / "known_hosts"
    text = known.read_text()
    try:
        known.write_text("")
        with pytest.raises(EdgewiseError, match=r"verification failed.*by hand: ssh "):
            open_device(board.device).facts()
    finally:
        known.write_text(text)


def test_no_python_there(board: Board) -> None:
    with pytest.raises(EdgewiseError, match=r"no \./nowhere/python3 .*,python=PATH"):
        open_device(f"{board.address},python=~/nowhere/python3").facts()


def test_a_python_that_is_too_old(board: Board) -> None:
    """A stand-in: Python 3.11 that says it is 3.7."""
    script = board.home / "old"
    change = "import sys; sys.version_info = (3, 7, 0)"
    script.write_text(f'#!/bin/sh\nexec /usr/bin/env python3 -c "{change}; $2"\n')
    script.chmod(0o755)
    with pytest.raises(EdgewiseError, match=r"Python is 3\.7, and 3\.8 is the least"):
        open_device(f"{board.address},python=~/old").facts()


def test_more_threads_than_cores(board: Board) -> None:
    with pytest.raises(UsageError, match="too few for 4096 threads"):
        open_device(board.device, 4096).facts()


def test_ssh_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="needs the program ssh"):
        open_device("ssh:pi@board").facts()


@pytest.mark.parametrize(
    ("text", "address", "port", "python"),
    [
        ("ssh:pi@board", "pi@board", "", "python3"),
        ("ssh:board", "board", "", "python3"),
        ("ssh:pi@10.0.0.7:2222", "pi@10.0.0.7", "2222", "python3"),
        ("ssh:pi@[fe80::1]:22", "pi@fe80::1", "22", "python3"),
        ("ssh:board,python=~/env/bin/python", "board", "", "./env/bin/python"),
        ("ssh:board:22,python=/opt/a b/python", "board", "22", "/opt/a b/python"),
    ],
)
def test_how_it_is_written(text: str, address: str, port: str, python: str) -> None:
    device = open_device(text)
    assert isinstance(device, SshDevice)
    assert (device.name, device.address, device.port, device.python) == (
        *(text, address, port, python),
    )


@pytest.mark.parametrize(
    "text",
    [
        *("ssh:", "ssh:-oProxyCommand=x", "ssh:pi@-x", "ssh:a b", "ssh:pi@board:x", "ssh:@board"),
        *("ssh:pi@board,x=1", "ssh:pi@board,python=", "ssh:pi@board:"),
    ],
)
def test_how_it_is_not_written(text: str) -> None:
    with pytest.raises(UsageError, match="it is written ssh:user@host"):
        open_device(text)


@pytest.mark.slow
@pytest.mark.usefixtures("two_epochs")
def test_a_search_from_the_command_line(
    board: Board, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timed there, trained here; the file runs there, where there is no edgewise and no PyTorch."""
    measure = SshDevice._measure
    monkeypatch.setattr(  # not for seconds each
        SshDevice, "_measure", lambda self, files, seconds, hear: measure(self, files, 0.05, hear)
    )
    monkeypatch.chdir(tmp_path)
    called = edgewise(
        *("run", photos, "--budget", "latency=1s,size=4MB", "--device", board.device),
        *("--models", "tiny224", "--no-flip", "--workers", 0, "--time", "60m", "--name", "far"),
        *("--precision", "fp32"),
    )
    assert called.status == 0, called.errors
    made = Decisions(tmp_path / "runs" / "far" / "decisions.jsonl").made
    assert made["device"]["device"].startswith("ssh:")
    assert set(made["device"]["runtimes"]) == {"onnxruntime"}
    assert {file["runtime"] for file in made["files"]["files"]} == {"onnxruntime"}
    test = made["test"]
    assert test["fits"] and test["runtime"] == "onnxruntime"
    shipped = tmp_path / "runs" / "far" / test["folder"] / "model.onnx"
    assert test["spent"]["size_bytes"] >= shipped.stat().st_size
    seen = open_device(board.device).measure([TimedFile("it", shipped, "onnxruntime")], 0.2)["it"]
    assert seen.timing and not seen.failure
    assert f"{made['device']['device']}" in called.output
    assert (tmp_path / "runs" / "far" / "report.html").is_file()
