"""What other libraries do to this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from multiplied import write_matmul

# The engines are opened and let go in an order in which cores of their own end the process.
SCRIPT = """
import gc, os, signal, sys
from pathlib import Path
from edgewise.timing.runtimes.openvino import read

heard = []
signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
path = Path(sys.argv[1])
first = read(path, (4, 4), 1)
second = read(path, (4, 4), 1)
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
print(len(heard))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="signals as Linux has them")
def test_openvino_leaves_signals_alone(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    write_matmul(tmp_path / "m.onnx", 4)
    command = [sys.executable, "-X", "faulthandler", "-c", SCRIPT, str(tmp_path / "m.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


@pytest.mark.parametrize("where", ["here", "on a device"])
def test_openvino_tells_nobody(where: str, tmp_path: Path) -> None:
    """Its telemetry keeps a number for its user in the home folder, if it may."""
    pytest.importorskip("openvino")
    write_matmul(tmp_path / "m.onnx", 4)
    home = tmp_path / "home"
    home.mkdir()
    file = {"runtime": "openvino", "path": str(tmp_path / "m.onnx"), "precision": "fp32"}
    job = {"threads": 1, "file": {**file, "shape": [4, 4], "key": "m"}}
    program = "from edgewise.libraries import openvino_core; openvino_core()"
    worker = files("edgewise.search") / "device_worker.py"
    command = ["-c", program] if where == "here" else [str(worker)]
    surroundings = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, *command],
        input=json.dumps(job) + "\n",
        env={**surroundings, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "failure" not in done.stdout, done.stderr + done.stdout
    assert list(home.iterdir()) == []
