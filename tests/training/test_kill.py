"""Training that is killed at random moments ends as if it had been left alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

KILL = Path(__file__).parents[2] / "benchmarks" / "kill.py"
WRONG = f"""
import runpy, sys
sys.path.append({str(KILL.parents[1] / "tests")!r})
from edgewise.training.loop import _Training
restore = _Training.restore
def restore_wrongly(self):
    restore(self)
    self.learner.optimizer.state.clear()
_Training.restore = restore_wrongly
runpy.run_path({str(KILL)!r}, run_name="__main__")
"""


def kill(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_the_same() -> None:
    """`benchmarks/kill.py` does it more often."""
    done = kill(str(KILL), "6")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"6 kills in (\d) runs; \1 of \1 ended equal", done.stdout)


@pytest.mark.slow
def test_it_would_see_that_a_resume_loses_something() -> None:
    done = kill("-c", WRONG, "4")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "NOT EQUAL" in done.stdout
