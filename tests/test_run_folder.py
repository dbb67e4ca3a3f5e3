"""The names in a run folder, from a path as text or as a `Path`."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgewise
from edgewise.errors import UsageError


def test_a_run_is_named_by_text_or_by_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "recipe.json").write_text("{}")
    for run in (edgewise.Run(str(folder)), edgewise.Run.open(str(folder)), edgewise.Run(folder)):
        assert run == edgewise.Run.open(folder)
        assert run.model == folder / "model"
        assert run.is_run(str(folder))
    with pytest.raises(UsageError, match="no such run"):
        edgewise.Run.open(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="no trained model"):
        edgewise.Run(str(folder)).trained()
