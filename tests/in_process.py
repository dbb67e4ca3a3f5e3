"""A device in this process: its files in ONNX Runtime, timed in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata

from edgewise.measure.latency import Latency
from edgewise.measure.rounds import FEWEST_ROUNDS, Here, Timing, interleave
from edgewise.search.device import DeviceFacts, Measured, TimedFile
from edgewise.timing.runtimes import RUNTIMES, random_images


def timing(ms: float) -> Timing:
    """Calls that all took that long."""
    return Timing(Latency(ms, ms, ms, 10, 1), ms, ms, (ms,) * 5)


class InProcess:
    """The device; `files` are those that it was given."""

    name, threads = "here", 1

    def __init__(self) -> None:
        self.files: list[TimedFile] = []

    def facts(self) -> DeviceFacts:
        versions = {"onnxruntime": metadata.version("onnxruntime")}
        return DeviceFacts("0123456789ab", "a processor", 1, "an operating system", versions)

    def measure(
        self,
        files: Sequence[TimedFile],
        seconds: float = 2.0,
        on_step: Callable[[str], None] = lambda what: None,
    ) -> dict[str, Measured]:
        self.files += files
        ready = {}
        for file in files:
            prepared = RUNTIMES[file.runtime].prepare_file(file.path, file.shape, self.threads)
            prepared.feed(random_images(file.shape)[0])
            ready[file.key] = Here(prepared.call)
        timings, failures = interleave(ready, seconds, FEWEST_ROUNDS)
        return {
            file.key: Measured(timings.get(file.key), failure=failures.get(file.key, ""))
            for file in files
        }
