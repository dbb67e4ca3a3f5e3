"""Says what the device is that it runs on, as one line of JSON.

Edgewise copies it there. It needs Python 3.8 and device_worker.py beside it, and nothing of
edgewise:

    python3 device_facts.py
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

WORKER = Path(__file__).resolve().with_name("device_worker.py")


def facts() -> dict[str, Any]:
    """As `edgewise.search.device.DeviceFacts`; the fingerprint is that of `edgewise bench`."""
    machine = {"cpu": cpu_name(), "cores": usable_cores(), "platform": platform.platform()}
    fingerprint = hashlib.sha256(json.dumps([machine], sort_keys=True).encode()).hexdigest()[:12]
    command = [sys.executable, str(WORKER), "runtimes"]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return {"fingerprint": fingerprint, **machine, "runtimes": json.loads(said)}


def cpu_name() -> str:
    """Of the processor; where Linux doesn't know its name, as on ARM, the board's."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
        return Path("/proc/device-tree/model").read_text(errors="replace").strip("\0 \n")
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """A container may have fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    # A line of its own, whatever a login shell printed before and did not end.
    print("\n" + json.dumps({"event": "facts", **facts()}))
