"""The report that `edgewise run` leaves: of a search that really was made."""

from __future__ import annotations

from pathlib import Path

import pytest
from commandline import edgewise
from html_page import Page
from search_device import FormulaDevice

from edgewise.reporting.numbers import milliseconds, percent
from edgewise.search.decisions import Decisions

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("two_epochs")
SMALL = ("--models", "tiny", "--no-flip", "--workers", 0, "--time", "60m", "--name", "one")


@pytest.mark.slow
def test_a_search_ends_with_its_report(
    photos: Path, device: FormulaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    called = edgewise("run", photos, "--budget", "latency=8ms", *SMALL)
    assert called.status == 0, called.errors
    path = Path("runs/one/report.html")
    assert called.output.splitlines()[-1] == f"report: {path}"
    page = Page(path.read_text(encoding="utf-8"))
    made = Decisions(Path("runs/one/decisions.jsonl")).made
    test = made["test"]
    (trial,) = made["choose"]["trials"]
    px = f"{trial['imgsz']} × {trial['imgsz']} pixels"
    assert f"✓ It fits. tiny at {px}, in {test['precision']}" in page.words
    assert f"takes {milliseconds(test['spent']['median_ms'])} a photo".replace("\xa0", " ") in (
        page.words
    )
    assert f"{percent(test['accuracy'])} 95% interval" in page.words
    assert test["folder"] in page.text
    files = page.tables["Files"][1:]
    assert [line[6] for line in files] == [percent(f["accuracy"]) for f in made["files"]["files"]]
    candidates = page.tables["Candidates"][1:]
    assert [line[0].removesuffix("from scratch") for line in candidates[:1]] == [trial["name"]]
    assert len(candidates) == len({c["candidate"]["imgsz"] for c in made["survey"]["costs"]})


@pytest.mark.slow
def test_where_nothing_fits_there_is_a_report_too(
    photos: Path, device: FormulaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    called = edgewise("run", photos, "--budget", "latency=10us", *SMALL)
    assert called.status == 3, called.errors
    page = Page(Path("runs/one/report.html").read_text(encoding="utf-8"))
    assert page.tables["The nearest"][1] == [
        *("tiny at 64 px, int8 in onnxruntime", "205 ×"),  # 64² / 2000 ms
        *("not trained", "--budget latency=2.1ms"),
    ]
