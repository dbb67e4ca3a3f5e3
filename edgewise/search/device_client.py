"""The other end of device_runner.py: what is asked of a device, and what is made of its answers."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any

from edgewise.errors import EdgewiseError, UsageError, unknown
from edgewise.files import sha256_file
from edgewise.measure.rounds import ROUNDS, summary
from edgewise.search.device import DeviceFacts, Measured, TimedFile
from edgewise.search.device_runner import UNHEARD

TOGETHER = 8  # files that are timed in turns: each has a process
BEAT = 10.0  # seconds between the signs to the runner that we are still there
GRACE = 10.0  # seconds for a process to end by itself
LONGEST_REASON = 400  # characters of what ssh or Python said
GONE = 255  # ssh's exit status when the connection failed; all others are the device's
SCRIPTS = FACTS, RUNNER, _ = [
    Path(__file__).with_name(f"device_{name}.py") for name in ("facts", "runner", "worker")
]
# What brings a runtime to a device.
PACKAGES = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "litert": "ai-edge-litert",
    "ncnn": "ncnn",
    "executorch": "executorch",
}
Said = dict[str, Any]  # one line of a runner


class RunnerEnded(EdgewiseError):
    """A runner ended before its last word.

    Attributes:
        status: its exit status.
        words: the last line that was said on standard error.
    """

    def __init__(self, status: int, log: bytes) -> None:
        last = log.decode(errors="replace").strip().rpartition("\n")[2].strip()
        self.status, self.words = status, (last or "it said nothing")[:LONGEST_REASON]
        super().__init__(f"exit status {status}: {self.words}")

    @property
    def gone(self) -> bool:
        """Whether the connection ended, we were not heard, or it was killed: it may come back."""
        return self.status in (0, GONE, UNHEARD) or self.status < 0


class RunnerDevice(ABC):
    """A device on which device_runner.py runs.

    Attributes:
        name: see `Device`.
        threads: see `Device`.
        folder: where the runner keeps things.
        copies: whether it must be sent the files.
        pauses: seconds before each new try when it has gone away; none where that can't mend it.
    """

    folder: str
    copies = False
    pauses: tuple[float, ...] = ()

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.threads = name, threads
        self._facts: DeviceFacts | None = None

    @abstractmethod
    def ask_facts(self) -> Said:
        """What device_facts.py says there."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What starts the runner there."""

    def facts(self) -> DeviceFacts:
        """See `Device`."""
        if not self._facts:
            said = self.ask_facts()
            self._facts = DeviceFacts(**{key: said[key] for key in said if key != "event"})
        if self._facts.cores < self.threads:
            raise UsageError(
                f"{self.name} has {self._facts.cores} cores, too few for {self.threads} threads."
            )
        return self._facts

    def measure(
        self,
        files: Sequence[TimedFile],
        seconds: float = 2.0,
        on_step: Callable[[str], None] = lambda what: None,
        on_measured: Callable[[str, Measured], None] = lambda key, measured: None,
    ) -> dict[str, Measured]:
        """See `Device`."""
        answers: dict[str, Measured] = {}

        def hear(said: Said) -> None:
            if said["event"] == "step":
                on_step(said["what"])
            elif said["event"] in ("failed", "timed"):
                answers[said["key"]] = measured(said)
                on_measured(said["key"], answers[said["key"]])

        for file in files:
            if reason := self._missing(file):
                hear({"event": "failed", "key": file.key, "reason": reason})
        tries = 0
        while left := [file for file in files if file.key not in answers]:
            before = len(answers)
            try:
                self._measure(left[:TOGETHER], seconds, hear)
            except RunnerEnded as ended:
                tries = 0 if len(answers) > before else tries
                self._wait(tries, ended)
                tries += 1
        return answers

    def _missing(self, file: TimedFile) -> str:
        """Why a file can't be timed there at all; "" if it can."""
        if file.runtime not in PACKAGES:
            raise unknown("runtime for a device", file.runtime, PACKAGES)
        if lost := next((path for path in parts(file) if not path.is_file()), None):
            raise UsageError(f"no such file: {lost}")
        if file.runtime in self.facts().runtimes:
            return ""
        return (
            f"{file.runtime} is not installed on {self.name}. "
            f"Install it there with: pip install numpy {PACKAGES[file.runtime]}"
        )

    def _measure(
        self, files: Sequence[TimedFile], seconds: float, hear: Callable[[Said], None]
    ) -> None:
        job = {
            "threads": self.threads,
            "seconds": seconds,
            "rounds": ROUNDS,
            "folder": self.folder,
            "files": [job_file(file, self.copies) for file in files],
        }
        talk(self.command(), job, {file.key: parts(file) for file in files}, hear)

    def _wait(self, tries: int, ended: RunnerEnded) -> None:
        if not ended.gone:
            raise EdgewiseError(f"timing files on {self.name} failed: {ended}") from ended
        if tries == len(self.pauses):
            more = "One more try" if tries == 1 else f"{tries} more tries"
            again = f" {more} did not bring it back." if tries else ""
            raise EdgewiseError(
                f"{self.name} went away while files were timed there ({ended.words}).{again} See "
                "that it is on, in the network and not out of memory."
            ) from ended
        pause = self.pauses[tries]
        said = f"{self.name} went away ({ended.words}); trying again in {pause:g} s"
        print(said, file=sys.stderr, flush=True)
        time.sleep(pause)


def parts(file: TimedFile) -> list[Path]:
    """All that a runtime loads: the file, and that with its weights."""
    separate = file.path.suffix in (".xml", ".param")
    return [file.path, file.path.with_suffix(".bin")] if separate else [file.path]


def job_file(file: TimedFile, copied: bool) -> Said:
    """What a job says of a file; see device_runner.py."""
    said = {
        "key": file.key,
        "runtime": file.runtime,
        "precision": file.precision,
        "shape": file.shape,
        "path": file.path.name if copied else str(file.path.resolve()),
    }
    if not copied:
        return said
    sent = [
        {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in parts(file)
    ]
    digest = hashlib.sha256(json.dumps(sent).encode()).hexdigest()
    return {**said, "parts": sent, "digest": digest}


def measured(said: Said) -> Measured:
    """What a runner's "failed" or "timed" comes to."""
    if said["event"] == "failed":
        return Measured(None, failure=said["reason"])
    return Measured(summary(said["rounds"], said["warmup"]), said["bytes"])


def ask(command: Sequence[str], sent: bytes = b"") -> Said:
    """What device_facts.py says.

    Raises:
        RunnerEnded: nothing.
    """
    done = subprocess.run(
        command, input=sent, capture_output=True, check=False, start_new_session=True
    )
    for said in lines(done.stdout.splitlines()):
        return said
    raise RunnerEnded(done.returncode, done.stderr)


def talk(
    command: Sequence[str],
    job: Said,
    files: Mapping[str, Sequence[Path]],
    hear: Callable[[Said], None],
) -> None:
    """Has a job done by a runner. However this ends, so does the runner.

    Args:
        command: what starts it.
        job: see device_runner.py.
        files: of each key, what to copy if the runner hasn't it.
        hear: called with all else that the runner says.

    Raises:
        RunnerEnded: too early.
    """
    pipe, done, ended = subprocess.PIPE, Event(), False
    with tempfile.TemporaryFile() as log:
        # In a session of its own: Ctrl-C is for us, who end it.
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=log, start_new_session=True
        )
        assert process.stdin and process.stdout
        try:
            _send(process.stdin, json.dumps(job).encode() + b"\n")
            for said in lines(process.stdout):
                if said["event"] == "missing":
                    for path in (path for key in said["keys"] for path in files[key]):
                        _send(process.stdin, path.read_bytes())
                elif said["event"] == "ready":
                    Thread(target=_beat, args=(process.stdin, done), daemon=True).start()
                elif said["event"] == "end":
                    ended = True
                else:
                    hear(said)
        finally:
            done.set()
            _stop(process)
        if not ended:
            log.seek(0)
            raise RunnerEnded(process.returncode, log.read())


def lines(output: Iterable[bytes]) -> Iterator[Said]:
    """What a runner says, without what a login shell may print before it."""
    for line in output:
        with suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict) and "event" in said:
                yield said


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a runner: kindly, by the end of its input, or else by force."""
    assert process.stdin and process.stdout
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def _send(stream: IO[bytes], data: bytes) -> None:
    """If nobody reads any more, the answers end as well: that is where it is noticed."""
    with suppress(OSError):
        stream.write(data)
        stream.flush()


def _beat(stream: IO[bytes], done: Event) -> None:
    while not done.wait(BEAT):
        with suppress(ValueError):  # it was closed just now
            _send(stream, b"\n")
