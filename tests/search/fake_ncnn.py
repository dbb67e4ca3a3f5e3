"""Takes the place of ncnn in the processes of files: a .param file says what it does.

It is JSON: `log`, a file that gets a line for each call; `ms`, how long a call sleeps; `prints`,
what is said on standard output; `at` ("load" or a number of calls) and `signal`, the end of it.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class Mat:
    def __init__(self, values: Any) -> None:
        self.shape = values.shape


class Net:
    def __init__(self) -> None:
        self.opt = SimpleNamespace()
        self.calls = 0

    def load_param(self, path: str) -> int:
        self.does = {"ms": 0.0, "at": None, "prints": "", **json.loads(Path(path).read_text())}
        print(self.does["prints"], flush=True)
        self.end_at("load")
        return 0

    def load_model(self, path: str) -> int:
        return 0 if Path(path).is_file() else -1

    def input_names(self) -> list[str]:
        return ["in0"]

    def output_names(self) -> list[str]:
        return ["out0"]

    def create_extractor(self) -> Extractor:
        return Extractor(self)

    def end_at(self, where: str | int) -> None:
        if self.does["at"] == where:
            os.write(2, b"a message\nand its last line\n")
            os.kill(os.getpid(), self.does["signal"])


class Extractor:
    def __init__(self, net: Net) -> None:
        self.net = net

    def input(self, name: str, image: Mat) -> None:
        self.seen = {
            "shape": image.shape,
            "cores": len(os.sched_getaffinity(0)),
            **vars(self.net.opt),
        }

    def extract(self, name: str) -> tuple[int, None]:
        self.net.calls += 1
        self.net.end_at(self.net.calls)
        with Path(self.net.does["log"]).open("a") as log:
            log.write(json.dumps({"name": self.net.does["name"], **self.seen}) + "\n")
        time.sleep(self.net.does["ms"] / 1e3)
        return 0, None
