"""Times exported files on the device that it runs on; edgewise copies it there and speaks to it.

It needs Python 3.8 and device_worker.py beside it, which opens the files; nothing of edgewise.
It speaks JSON, one object a line. The first line of its input is the job, the last one of its
answer says "end".

A job has `threads`, `seconds`, `rounds`, `folder` (for what is kept here) and `files`: of each
`key`, `runtime`, `precision`, `shape` and `path`. A file that has to be copied has `digest` and
`parts` (name, bytes, sha256) instead, and its `path` is the name of the part to load: the runner
answers with the keys that are `missing`, and then reads the bytes of their parts.

From "ready" on, whoever asked writes an empty line every few seconds. Once standard input ends, or
nothing came for `SILENCE` seconds, nobody waits for the answer any more, and all processes end; in
the second case with the exit status `UNHEARD`, for whoever was stopped meanwhile may ask again.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # Python 3.8 can't evaluate it
    from collections.abc import Iterator
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SILENCE = 60.0  # seconds without a sign of life
UNHEARD = 75  # the exit status after that; for C's libraries too it means: try again later
LONGEST = 300.0  # seconds for one answer of a file's process; what takes longer hangs
MOST_CALLS = 500  # in one turn
DYING = 5.0  # seconds that a killed process may take to be gone
LONGEST_REASON = 300  # characters of a runtime's last words
WORKER = [sys.executable, str(Path(__file__).resolve().with_name("device_worker.py"))]
KEPT_BYTES = 500_000_000  # of files that nobody needs now, for the next time


class Failed(Exception):
    """A file can't be timed; the others can."""


class Killed(Failed):
    """Its process was killed, most likely for want of memory."""


def say(event: str, **values: Any) -> None:
    """One line to whoever asked."""
    print(json.dumps({"event": event, **values}), flush=True)


# The files' processes


class Worker:
    """The process of one file, which is loaded when the constructor returns."""

    def __init__(self, file: dict[str, Any], threads: int) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log}
        # Since 1.29, ONNX Runtime tells its maker what it runs, in a thread of its own.
        settings = {"OMP_NUM_THREADS": str(threads), "ORT_DISABLE_TELEMETRY": "1"}
        pipes["env"] = {**os.environ, **settings}
        self.process: Any = subprocess.Popen([*WORKER, "work"], **pipes)
        WORKERS.append(self)
        self.bytes: int = self.ask(file=file, threads=threads)["bytes"] or 0

    def ask(self, **request: Any) -> dict[str, Any]:
        """Its answer, or else `Failed`."""
        timer = threading.Timer(LONGEST, self.process.kill)
        timer.start()
        line = b""
        with suppress(OSError):  # it is gone; the reason comes below
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        hung = not timer.is_alive()
        timer.cancel()
        if not line:
            raise Failed(f"gave no answer in {LONGEST:.0f} s") if hung else self._crashed()
        answer: dict[str, Any] = json.loads(line)
        if "failure" in answer:
            raise Failed(answer["failure"])
        return answer

    def _crashed(self) -> Failed:
        code = self.process.wait()
        why = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        if why == "SIGKILL":
            return Killed(f"crashed ({why}), most likely for want of memory")
        self.log.seek(0)
        words = self.log.read().decode(errors="replace").strip().rpartition("\n")[2]
        return Failed(f"crashed ({why}) {words}".strip()[:LONGEST_REASON])

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.communicate()
        self.log.close()


WORKERS: list[Worker] = []


# Timing in turns


def load_files(job: dict[str, Any]) -> dict[str, Worker]:
    """Loads the files one after the other, as many as there is memory for; one at least.

    A machine that swaps times its disk. Those that are left out get no answer: they are asked for
    again.
    """
    loaded: dict[str, Worker] = {}
    for file in job["files"]:
        if free_bytes() < 2 * max((worker.bytes for worker in loaded.values()), default=0):
            break
        try:
            loaded[file["key"]] = Worker(file, job["threads"])
        except Failed as failure:
            if isinstance(failure, Killed) and loaded:
                break  # alone there may be memory for it
            say("failed", key=file["key"], reason=str(failure))
        else:
            say("step", what=f"{file['key']} is loaded")
    return loaded


def free_bytes() -> float:
    """Memory that new processes can have; endless where that can't be known."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return float("inf")


def time_in_turns(job: dict[str, Any]) -> None:
    """Warms all up, then times them in rounds: a turn of each, in an order that is drawn anew.

    The first call of a turn is not timed: another's data is in the caches then. A file that fails
    is out, the others go on.
    """
    workers = load_files(job)
    rounds, calls = job["rounds"], {}
    answers: dict[str, dict[str, Any]] = {key: {"rounds": []} for key in workers}

    def warm_up(key: str) -> None:
        taken = workers[key].ask(do="warm_up", seconds=job["seconds"] / 2)["times"]
        answers[key]["warmup"] = len(taken)
        share = job["seconds"] / rounds * 1e3 / max(median(taken[-5:]), 1e-6)
        calls[key] = int(min(max(share, 1), MOST_CALLS))

    def time_calls(key: str) -> None:
        taken = workers[key].ask(do="time", calls=calls[key] + 1)
        times = [round(milliseconds, 5) for milliseconds in taken["times"][1:]]
        answers[key]["rounds"].append(times)
        answers[key]["bytes"] = taken["bytes"]

    def turns(do: Any, order: list[str]) -> None:
        for key in order:
            try:
                do(key)
            except Failed as failure:
                say("failed", key=key, reason=str(failure))
                workers.pop(key).close()
            if time.monotonic() - BEAT[0] > SILENCE:
                print(f"it heard nothing from us for {SILENCE:.0f} s", file=sys.stderr, flush=True)
                end(UNHEARD)

    turns(warm_up, list(workers))
    shuffle = random.Random(0)
    for done in range(rounds):
        turns(time_calls, shuffle.sample(list(workers), len(workers)))
        say("step", what=f"round {done + 1} of {rounds}")
    for key in workers:
        say("timed", key=key, **answers[key])


# What is kept here


def receive(job: dict[str, Any], source: Any) -> None:
    """Brings the job's files here as far as they are not, and gives each its path."""
    copied = [file for file in job["files"] if "digest" in file]
    store = Path(job["folder"], "files")
    store.mkdir(exist_ok=True)
    forget(store, {file["digest"] for file in copied})
    missing = {f["digest"]: f for f in copied if not intact(store / f["digest"], f["parts"])}
    say("missing", keys=[file["key"] for file in missing.values()])
    for digest, file in missing.items():
        shutil.rmtree(store / digest, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=str(store)))
        for part in file["parts"]:
            (new / part["name"]).write_bytes(source.read(part["bytes"]))
        if not intact(new, file["parts"]):
            sys.exit(f"{file['path']} did not arrive as it was sent")
        new.rename(store / digest)
    for file in copied:
        os.utime(str(store / file["digest"]))
        file["path"] = str(store / file["digest"] / file["path"])


def intact(folder: Path, parts: list[dict[str, Any]]) -> bool:
    """Whether all parts of a file are there, as they were sent: boards lose their power."""
    with suppress(OSError):
        data = ((folder / part["name"]).read_bytes() for part in parts)
        return [hashlib.sha256(part).hexdigest() for part in data] == [p["sha256"] for p in parts]
    return False


def forget(store: Path, needed: set[str]) -> None:
    """Removes what was used the longest time ago, until the rest is small enough."""
    for half in store.glob(".new-*"):
        shutil.rmtree(half, ignore_errors=True)
    old = [folder for folder in store.iterdir() if folder.name not in needed]
    size = 0
    for folder in sorted(old, key=lambda folder: -folder.stat().st_mtime):
        size += sum(file.stat().st_size for file in folder.iterdir())
        if size > KEPT_BYTES:
            shutil.rmtree(folder, ignore_errors=True)


# Whoever asked


BEAT = [time.monotonic()]  # when the last sign of life came


def watch() -> None:
    """In a thread: ends all when standard input does."""
    BEAT[0] = time.monotonic()
    while os.read(0, 4096):
        BEAT[0] = time.monotonic()
    end()


def end(status: int = 1) -> None:
    """Ends the processes of the files, then this one: no caller finds one of them still there."""
    for worker in WORKERS:
        worker.process.kill()
    for worker in WORKERS:
        with suppress(subprocess.TimeoutExpired):  # one that waits for its disk can't be killed
            worker.process.wait(DYING)
    os._exit(status)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Waits until no other runner of this user measures: two at once would time each other."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                say("step", what="waiting for another measurement there to end")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """See above."""
    job = json.loads(sys.stdin.buffer.readline())
    print()  # ends what a login shell may have printed before, so that our lines are our own
    with alone(Path(job["folder"])):
        receive(job, sys.stdin.buffer)
        say("ready")
        threading.Thread(target=watch, daemon=True).start()
        try:
            time_in_turns(job)
        finally:
            for worker in WORKERS:
                worker.close()
    say("end")


if __name__ == "__main__":
    main()
