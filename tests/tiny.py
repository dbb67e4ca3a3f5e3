"""A network small enough to train in a test, known as "tiny"; it has dropout and drop path."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

from edgewise.families import VARIANTS
from edgewise.families.efficientnet import LITE
from edgewise.table import Channels, Variant

TABLE = replace(
    LITE,
    name="tiny",
    stem=Channels(8),
    rows=tuple(
        replace(row, repeats=1, block=replace(row.block, out=row.block.out // 4))
        for row in LITE.rows[:5]
    ),
    head_conv=Channels(64),
)


def register() -> None:
    """Makes it known by its name, as the published networks are."""
    VARIANTS["tiny"] = Variant("tiny", TABLE, 32, 0.0, "nobody")


def python(
    script: str, *arguments: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a script in a process group of its own, where "tiny" is known, with one thread."""
    folders = [str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "import tiny; tiny.register()\n" + textwrap.dedent(script),
            *arguments,
        ],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
    )
