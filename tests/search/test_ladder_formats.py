"""Searches in which another format than ONNX wins, or can't be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from search_device import FormulaDevice
from searches import Enough

from edgewise.cli.run_text import told
from edgewise.deploy.formats import FORMATS
from edgewise.deploy.isolated import Apart
from edgewise.errors import UsageError
from edgewise.reporting.search_page import write_search_report
from edgewise.run_folder import Run
from edgewise.search.decisions import Decisions
from edgewise.search.ladder import run
from edgewise.search.request import Request, SearchFolder
from edgewise.search.state import Watch
from edgewise.training.evaluate import evaluate

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("two_epochs")
FASTEST = [
    pytest.param("openvino", "bf16", "model.xml"),
    pytest.param("litert", "int8", "model.tflite", marks=pytest.mark.slow),
    pytest.param("executorch", "fp32", "model.pte", marks=pytest.mark.slow),
    pytest.param("ncnn", "fp16", "model.ncnn.param", marks=pytest.mark.slow),
]


def request_for(photos: Path, budget: str, **more: Any) -> Request:
    settings: dict[str, Any] = {"models": ("tiny224",), "flip": False, "workers": 0}
    return Request(str(photos), budget, 60.0, **settings, **more)


@pytest.mark.parametrize(("format", "precision", "file"), FASTEST)
def test_the_fastest_file_is_shipped(
    format: str,
    precision: str,
    file: str,
    photos: Path,
    device: FormulaDevice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a device where only that one fits, in a tenth of the time."""
    if missing := FORMATS[format].missing():
        pytest.skip(f"{missing} is not installed")
    if format == "openvino":  # it does no harm in this process, and others take seconds to start
        monkeypatch.setattr(Apart, "call", lambda apart, work, *given: work(*given))
    monkeypatch.setattr("edgewise.search.survey.SIZES", (64, 96))
    device.runtimes[format] = "2026"  # each is called as its own runtime
    device.factors = {f"{format}-{precision}": 0.1}
    asked = {"formats": ("onnx", format), "precisions": tuple(dict.fromkeys(("fp32", precision)))}
    root = tmp_path / "search"
    run(request_for(photos, "latency=1ms", **asked), root)
    made = Decisions(SearchFolder(root).decisions).made
    (trial,) = made["choose"]["trials"]
    assert (trial["name"], trial["least"]["format"]) == ("tiny224-96", format)
    test = made["test"]
    assert (test["format"], test["precision"], test["runtime"]) == (format, precision, format)
    assert test["fits"] and test["spent"]["median_ms"] == pytest.approx(96**2 / 10_000)
    shipped = root / "final" / "export" / f"{format}-{precision}" / file
    assert (device.asked[-1].path, device.asked[-1].precision) == (shipped, precision)
    assert shipped.is_file()
    exact = evaluate(Run(root / "final"), "test")
    assert abs(test["accuracy"] - exact.top1) <= 2 / exact.images
    files = {(f["format"], f["precision"]): f["fits"] for f in made["files"]["files"]}
    assert files.pop((format, precision)) and not any(files.values())
    page = Page(write_search_report(SearchFolder(root)).read_text(encoding="utf-8"))
    assert f"in {precision} with {format}, takes 0.922 ms a photo" in page.words


def test_a_format_that_can_not_be_had_is_left_out(
    photos: Path, device: FormulaDevice, tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}

    def look(step: str, decided: dict[str, Any]) -> None:
        seen[step] = decided
        raise Enough

    with pytest.raises(Enough):
        asked = request_for(photos, "latency=6ms", formats=("onnx", "coreml"))
        run(asked, tmp_path / "search", Watch(decided=look))
    (why,) = seen["device"]["left_out"]
    assert why.startswith("coreml: ") and f"left out: {why}" in told("device", seen["device"])
    with pytest.raises(UsageError, match=r"no file can be shipped to local:\n  coreml: "):
        run(request_for(photos, "latency=6ms", formats=("coreml",)), tmp_path / "other")
    assert not (tmp_path / "other").exists()
