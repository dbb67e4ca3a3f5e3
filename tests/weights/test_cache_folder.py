"""Where the cache is for a user without a home folder, as `docker run --user 54321` makes one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from edgewise.errors import EdgewiseError
from edgewise.weights.hub import cache_folder

pwd = pytest.importorskip("pwd")


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where temporary files go, for a user of whom no more than the number is known."""

    def unknown(number: int) -> None:
        raise KeyError(number)

    for variable in ("EDGEWISE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_a_temporary_folder_that_no_one_else_can_write(temporary: Path) -> None:
    folder = cache_folder()
    assert folder == cache_folder() == temporary / f"edgewise-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_one_of_another_user_is_not_taken(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = os.getuid() + 1
    (temporary / f"edgewise-{number}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: number)
    with pytest.raises(EdgewiseError, match=r"no home folder.*EDGEWISE_CACHE"):
        cache_folder()
