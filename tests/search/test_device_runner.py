"""The runner, as a process of its own, with a runtime whose every step is known."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgewise.search import device_client, device_runner
from edgewise.search.device import TimedFile
from edgewise.search.device_client import RUNNER, RunnerEnded, talk
from edgewise.search.device_worker import BROKEN
from edgewise.search.local import LocalDevice

if sys.platform != "linux":
    pytest.skip("signals, locks and cores as Linux has them", allow_module_level=True)
MAIN = "import sys; sys.path.insert(0, {folder!r}); import device_runner as r; {change}; r.main()"


class Bench:
    """Files for the fake runtime, and what a runner said of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self.said: list[dict[str, Any]] = []
        self.others = set(living_children())  # what earlier tests of this process left

    def file(self, key: str, **does: Any) -> TimedFile:
        path = self.folder / f"{key}.param"
        path.write_text(json.dumps({"name": key, "log": str(self.log), **does}))
        path.with_suffix(".bin").write_bytes(b"")
        return TimedFile(key, path, "ncnn", shape=(1, 3, 8, 8))

    def run(
        self,
        *files: TimedFile,
        change: str = "pass",
        hear: Callable[[dict[str, Any]], None] = lambda said: None,
        **job: Any,
    ) -> None:
        def both(said: dict[str, Any]) -> None:
            self.said.append(said)
            hear(said)

        what = {
            "threads": 1,
            "seconds": 0.1,
            "rounds": 5,
            "folder": str(self.folder / "kept"),
            "files": [device_client.job_file(file, copied=False) for file in files],
            **job,
        }
        talk(changed(change), what, {}, both)

    def of(self, key: str) -> dict[str, Any]:
        """The last word on a file; empty if there was none."""
        return next((said for said in reversed(self.said) if said.get("key") == key), {})

    def workers(self) -> list[psutil.Process]:
        return [child for child in living_children() if child not in self.others]

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def changed(change: str) -> list[str]:
    """The runner with a change."""
    return [sys.executable, "-c", MAIN.format(folder=str(RUNNER.parent), change=change)]


def living_children() -> list[psutil.Process]:
    living = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended while we looked
            if child.status() != psutil.STATUS_ZOMBIE:
                living.append(child)
    return living


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    packages = tmp_path / "packages"
    information = packages / "ncnn-9.9.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: ncnn\nVersion: 9.9\n")
    shutil.copy(Path(__file__).with_name("fake_ncnn.py"), packages / "ncnn.py")
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{packages}{os.pathsep}{before}")
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "cache"))
    return Bench(tmp_path)


def test_all_are_timed_in_turns(bench: Bench) -> None:
    bench.run(bench.file("a", ms=1), bench.file("b", ms=3), rounds=10)
    names = [call["name"] for call in bench.calls()]
    for key, ms in (("a", 1), ("b", 3)):
        said = bench.of(key)
        (calls,) = {len(turn) for turn in said["rounds"]}  # each turn has as many
        assert len(said["rounds"]) == 10
        assert 1 <= calls <= 100 / 10 / ms  # a tenth of the time for each turn
        assert min(time for turn in said["rounds"] for time in turn) >= ms
        assert names.count(key) == said["warmup"] + 10 * (calls + 1)  # the first is not timed
    warm = sum(bench.of(key)["warmup"] for key in "ab")
    changes = sum(one != other for one, other in zip(names[warm:], names[warm + 1 :], strict=False))
    assert 10 <= changes <= 19  # A B | B A | A B ...: once in a round, and at most between rounds


def test_what_reaches_the_runtime(bench: Bench) -> None:
    bench.run(bench.file("a", prints='{"event": "end"}'), threads=2)  # printing changes nothing
    assert bench.of("a")["event"] == "timed"
    seen = bench.calls()[-1]
    assert seen["shape"] == [3, 8, 8]
    assert (seen["num_threads"], seen["use_bf16_storage"]) == (2, False)
    assert seen["cores"] == min(2, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("at", "number", "reason"),
    [
        ("load", signal.SIGSEGV, "crashed (SIGSEGV) and its last line"),
        (12, signal.SIGABRT, "crashed (SIGABRT) and its last line"),
        (60, signal.SIGSEGV, "crashed (SIGSEGV) and its last line"),  # in the rounds
    ],
)
def test_a_crash_is_that_files_failure(
    bench: Bench, at: str | int, number: signal.Signals, reason: str
) -> None:
    files = bench.file("bad", at=at, signal=number, ms=0.5), bench.file("good", ms=0.5)
    bench.run(*files, seconds=0.2)
    assert bench.of("bad") == {"event": "failed", "key": "bad", "reason": reason}
    assert len(bench.of("good")["rounds"]) == 5


def test_a_runtime_that_can_not_be_imported_is_no_files_fault(bench: Bench) -> None:
    (bench.folder / "packages" / "ncnn.py").write_text("raise OSError('no libgomp.so.1')")
    bench.run(bench.file("a"))
    assert bench.of("a")["reason"] == f"{BROKEN}ncnn: OSError: no libgomp.so.1"


def test_what_hangs_is_ended(bench: Bench) -> None:
    bench.run(bench.file("slow", ms=60_000), bench.file("good"), change="r.LONGEST = 1")
    assert bench.of("slow")["reason"] == "gave no answer in 1 s"
    assert bench.of("good")["event"] == "timed"


def test_killed_for_want_of_memory_it_is_asked_for_again(bench: Bench) -> None:
    bench.run(bench.file("first"), bench.file("huge", at="load", signal=signal.SIGKILL))
    assert bench.of("first")["event"] == "timed"
    assert not bench.of("huge")
    bench.run(bench.file("huge", at="load", signal=signal.SIGKILL))
    assert "want of memory" in bench.of("huge")["reason"]


def test_with_little_memory_fewer_are_timed_in_turns(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [bench.file(key) for key in "abc"]
    bench.run(*files, change="r.free_bytes = lambda: 1")
    assert [said["key"] for said in bench.said if said["event"] == "timed"] == ["a"]
    device = LocalDevice(1)
    monkeypatch.setattr(device, "command", lambda: changed("r.free_bytes = lambda: 1"))
    answers = device.measure(files, 0.05)
    assert all(answers[key].timing for key in "abc")


def test_it_ends_when_nobody_listens(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunnerEnded, match="it heard nothing from us for 0 s") as raised:
        bench.run(bench.file("a", ms=1), seconds=60, change="r.SILENCE = 0.5")
    assert raised.value.gone
    assert not bench.workers()
    monkeypatch.setattr(device_client, "BEAT", 0.05)
    bench.run(bench.file("a", ms=1), seconds=1, change="r.SILENCE = 0.5")
    assert bench.of("a")["event"] == "timed"


def test_who_was_stopped_meanwhile_asks_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-Z: the runner ends as it hears nothing, and we go on with another."""
    device, asked = LocalDevice(1), []

    def command() -> list[str]:
        asked.append(changed("r.SILENCE = 0.1" if len(asked) == 0 else "pass"))
        return asked[-1]

    monkeypatch.setattr(device, "command", command)
    monkeypatch.setattr(LocalDevice, "pauses", (0.0,))
    answers = device.measure([bench.file("a", ms=1)], 0.5)
    assert answers["a"].timing and len(asked) == 2
    assert "local went away (it heard nothing from us for 0 s)" in capsys.readouterr().err


def test_it_ends_with_us(bench: Bench) -> None:
    def interrupt(said: dict[str, Any]) -> None:
        if said.get("what", "").startswith("round"):
            assert len(bench.workers()) == 2
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        bench.run(bench.file("a", ms=1), seconds=60, rounds=600, hear=interrupt)
    assert not bench.workers()
    assert time.monotonic() - start < device_client.GRACE  # it was not waited for in vain


def test_a_runner_that_fails_says_why(bench: Bench) -> None:
    with pytest.raises(RunnerEnded, match=r"exit status 1: .*ZeroDivisionError") as raised:
        bench.run(bench.file("a"), change="r.time_in_turns = lambda job: 1 / 0")
    assert not raised.value.gone


def test_only_one_measures_at_a_time(bench: Bench) -> None:
    (bench.folder / "kept").mkdir()
    with (bench.folder / "kept" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = threading.Thread(target=bench.run, args=[bench.file("a")])
        other.start()
        while not bench.said:
            time.sleep(0.01)
        assert bench.said[0]["what"].startswith("waiting for another measurement")
    other.join()
    assert bench.of("a")["event"] == "timed"


def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_runner, "KEPT_BYTES", 250)
    for age, name in enumerate(["new", "older", "oldest", "needed", ".new-half"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    device_runner.forget(tmp_path, {"needed"})
    assert {path.name for path in tmp_path.iterdir()} == {"new", "older", "needed"}
