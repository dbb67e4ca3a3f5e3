"""A device: where files are timed, as the files that will be shipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgewise.measure.rounds import Timing


@dataclass(frozen=True)
class TimedFile:
    """A file to be timed in one runtime of the device.

    Attributes:
        key: of it, among those that are timed together.
        path: of the file that the runtime loads; what else the runtime needs lies beside it under
            the same stem ("model.xml", "model.bin").
        runtime: as `edgewise bench` calls it.
        shape: of one input, where the file itself doesn't say it; the batch is 1.
    """

    key: str
    path: Path
    runtime: str
    shape: tuple[int, ...] = ()


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
        """What it is.

        Raises:
            EdgewiseError: it can't be reached, or has no Python.
        """

    def measure(
        self,
        files: Sequence[TimedFile],
        seconds: float = 2.0,
        on_step: Callable[[str], None] = lambda what: None,
    ) -> dict[str, Measured]:
        """Times the files in turns, each for about `seconds`, each in a process of its own.

        A file that can't be loaded or crashes has its reason; the others go on.

        Args:
            files: with different keys.
            seconds: of timed calls of each.
            on_step: called with a few words after each file was loaded and after each turn.

        Raises:
            EdgewiseError: the device went away and did not come back.
        """


def open_device(text: str, threads: int = 1) -> Device:
    """The device that a user names.

    Raises:
        UsageError: there is no such kind of device.
    """
    raise NotImplementedError
