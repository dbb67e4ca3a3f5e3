"""A device: where files are timed, as the files that will be shipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgewise.deploy.artifact import PIXELS, Artifact
from edgewise.errors import UsageError
from edgewise.measure.rounds import Timing

KINDS = "local, ssh:user@host, ssh:user@host:port"


@dataclass(frozen=True)
class TimedFile:
    """A file to be timed in one runtime of the device.

    Attributes:
        key: of it, among those that are timed together.
        path: of the file that the runtime loads; the weights of OpenVINO's and ncnn's files lie
            beside it under the same stem ("model.xml", "model.bin").
        runtime: as `edgewise bench` calls it.
        precision: that the runtime is asked for; OpenVINO and ncnn compute in "bf16", and ncnn in
            "fp16", only where it says so.
        shape: of one input, where the file itself doesn't say it; the batch is 1.
    """

    key: str
    path: Path
    runtime: str
    precision: str = "fp32"
    shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, artifact: Artifact, key: str, runtime: str) -> TimedFile:
        """An exported model's file."""
        info = artifact.info
        shape = input_shape(info.input, info.preprocess.size)
        return cls(key, artifact.path, runtime, info.precision, shape)


@dataclass(frozen=True)
class Measured:
    """What a device said of a file.

    Attributes:
        timing: of calls with one image; None if it failed.
        memory_bytes: by how much the process grew from before it loaded the file, at most; None
            where the device can't tell.
        failure: why there is no timing; "" if there is one.
    """

    timing: Timing | None
    memory_bytes: int | None = None
    failure: str = ""


@dataclass(frozen=True)
class DeviceFacts:
    """What a device is.

    Attributes:
        fingerprint: 12 hex digits: the same machine has the same.
        cpu: the processor's name.
        cores: that can be used.
        platform: operating system and its version.
        runtimes: those that are installed, with their versions.
    """

    fingerprint: str
    cpu: str
    cores: int
    platform: str
    runtimes: Mapping[str, str] = field(default_factory=dict)


class Device(Protocol):
    """Where files are timed.

    Attributes:
        name: as the user wrote it: "local", "ssh:pi@board".
        threads: that a call may use.
    """

    name: str
    threads: int

    def facts(self) -> DeviceFacts:
        """What it is; asked once.

        Raises:
            UsageError: it has fewer cores than `threads`.
            EdgewiseError: it can't be reached, or has no Python.
        """

    def measure(
        self,
        files: Sequence[TimedFile],
        seconds: float = 2.0,
        on_step: Callable[[str], None] = lambda what: None,
        on_measured: Callable[[str, Measured], None] = lambda key, measured: None,
    ) -> dict[str, Measured]:
        """Times the files in turns, each for about `seconds`, each in a process of its own.

        As many are timed in turns as the device has memory for, at most `TOGETHER` of
        `edgewise.search.device_client`, in the order that they are given in. A file that can't be
        loaded or crashes has its reason; the others go on.

        Args:
            files: with different keys.
            seconds: of timed calls of each.
            on_step: called with a few words after each file was loaded and after each round.
            on_measured: called with a key as soon as its result is there, so that it can be kept
                whatever happens to the device later.

        Raises:
            EdgewiseError: the device went away and did not come back.
        """


def input_shape(input: str, imgsz: int) -> tuple[int, ...]:
    """The shape of one image.

    Args:
        input: what a format takes, see `edgewise.deploy.artifact.Info`.
        imgsz: height and width of the image, in pixels.
    """
    return (1, imgsz, imgsz, 3) if input == PIXELS else (1, 3, imgsz, imgsz)


def open_device(text: str, threads: int = 1) -> Device:
    """A device as a person names it; it is not spoken to yet.

    Args:
        text: "local", or "ssh:user@host", with ":port" after it where it isn't 22 and
            ",python=PATH" where the Python with the runtimes is not `python3` there. What
            ~/.ssh/config says of the host holds.
        threads: that a call may use; as many cores are used.

    Raises:
        UsageError: there is no such kind of device, or it is not written like that.
    """
    from edgewise.search.local import LocalDevice
    from edgewise.search.ssh import SshDevice

    if threads < 1:
        raise UsageError(f"{threads} threads can't compute anything: 1 is the least.")
    kind, _, rest = text.partition(":")
    if text == "local":
        return LocalDevice(threads)
    if kind == "ssh":
        return SshDevice.parse(rest, threads)
    raise UsageError(f"unknown device '{text}'. There are: {KINDS}.")
