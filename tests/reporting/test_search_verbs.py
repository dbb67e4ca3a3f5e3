"""The verbs that write the report of a search."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commandline import edgewise
from made_search import all_decisions, write_search

from edgewise.search.request import SearchFolder


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchFolder:
    """A finished search, which `edgewise run --resume` finds finished."""
    monkeypatch.chdir(tmp_path)
    folder = write_search(Path("runs/one"), all_decisions())
    monkeypatch.setattr("edgewise.search.ladder.run", lambda *arguments: folder)
    return folder


def test_report_writes_it(done: SearchFolder) -> None:
    called = edgewise("report", done.root)
    assert (called.status, called.output) == (0, f"{done.report}\n"), called.errors
    assert "Edgewise search" in done.report.read_text(encoding="utf-8")
    assert not (done.root / "MODEL_CARD.md").exists()


def test_run_ends_with_it(done: SearchFolder) -> None:
    called = edgewise("run", "--resume", done.root)
    assert called.status == 0, called.errors
    assert called.output.splitlines()[-1] == f"report: {done.report}"
    assert done.report.is_file()


def test_without_jinja2_a_run_ends_well(
    done: SearchFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    called = edgewise("run", "--resume", done.root)
    assert called.status == 0, called.errors
    assert "pip install 'edgewise[report]'" in called.errors
    assert f"edgewise report {done.root}" in called.errors
    assert not done.report.exists()
    assert edgewise("report", done.root).status == 2


def test_a_damaged_log_is_named(done: SearchFolder) -> None:
    done.decisions.write_text('{"step"\n', encoding="utf-8")
    called = edgewise("report", done.root)
    assert called.status == 2
    assert "decisions.jsonl, line 1" in called.errors
