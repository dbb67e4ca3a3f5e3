"""This machine as the device: the runner with this Python, on the files where they lie."""

from __future__ import annotations

import sys

from edgewise.search.device_client import FACTS, RUNNER, RunnerDevice, Said, ask
from edgewise.weights.hub import cache_folder


class LocalDevice(RunnerDevice):
    """See `Device`."""

    pauses = (1.0,)  # where we were stopped for a while (Ctrl-Z), its runner has ended meanwhile

    def __init__(self, threads: int) -> None:
        super().__init__("local", threads)
        self.folder = str(cache_folder() / "device")

    def ask_facts(self) -> Said:
        """See `RunnerDevice`."""
        return ask([sys.executable, str(FACTS)])

    def command(self) -> list[str]:
        """See `RunnerDevice`."""
        return [sys.executable, str(RUNNER)]
