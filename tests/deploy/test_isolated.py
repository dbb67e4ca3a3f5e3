"""What converts in a process of its own: its crashes, its environment, scripts without guard."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgewise.deploy.formats import format_named
from edgewise.deploy.isolated import Apart, isolated
from edgewise.errors import EdgewiseError, UsageError


def crash() -> None:
    os.abort()


def test_a_crash_is_an_error_and_no_more() -> None:
    assert isolated(len, "abc") == 3
    with pytest.raises(EdgewiseError, match="its process crashed"):
        isolated(crash)
    with pytest.raises(UsageError, match="unknown format"):
        isolated(format_named, "nothing")


def test_a_process_of_its_own_has_our_environment_as_it_is_now(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    isolated(len, "abc")
    monkeypatch.setenv("EDGEWISE_TRIED", "now")
    monkeypatch.chdir(tmp_path)
    assert isolated(os.getenv, "EDGEWISE_TRIED") == "now"
    assert isolated(os.getcwd) == str(tmp_path)
    monkeypatch.delenv("EDGEWISE_TRIED")
    assert isolated(os.getenv, "EDGEWISE_TRIED") is None


def test_after_a_crash_the_next_call_has_a_fresh_process() -> None:
    with Apart() as apart:
        first, second = apart.call(os.getpid), apart.call(os.getpid)
        assert first == second != os.getpid()
        with pytest.raises(EdgewiseError, match="its process crashed"):
            apart.call(crash)
        assert apart.call(os.getpid) != first


UNGUARDED = """
from edgewise.deploy import isolated
def work(): return "its own work"
isolated.PRELOADED.clear()  # to be quick
print("once")
print(isolated.isolated(WORK))
"""


@pytest.mark.parametrize("how", [("script.py",), ("-m", "script")])
def test_a_script_needs_no_guard_around_its_calls(how: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(UNGUARDED.replace("(WORK)", "(len, 'abc')"))
    done = subprocess.run([sys.executable, *how], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("once\n3\n", "")


def test_work_of_a_scripts_own_needs_the_script(tmp_path: Path) -> None:
    script = UNGUARDED.replace("WORK", "work").replace("print", "if __name__ == '__main__': print")
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("once\nits own work\n", "")
    (tmp_path / "script.py").write_text(UNGUARDED.replace("WORK", "work"))
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True)
    assert "NotStartedError: can't start a process" in done.stderr
