"""The matrix of formats: its CSV file and what the page says of it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def matrix(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import formats

    return formats


def test_cells_come_back_in_the_order_of_the_tables(matrix: ModuleType, tmp_path: Path) -> None:
    cells = [
        matrix.Cell("mobilenet_v2", "litert", "int8", "works", "4e-01", "0.5", "1.00", "10", "3"),
        matrix.Cell("mobilenet_v2", "litert", "fp32", "it lacks bmm, which a, b needs"),
        matrix.Cell("mobilenet_v1", "onnx", "int8", "works", "4e-01", "0.5", "1.00", "10", "3"),
    ]
    known = {(cell.network, cell.format, cell.precision): cell for cell in cells}
    matrix.write(known, tmp_path / "cells.csv")
    assert list(matrix.read(tmp_path / "cells.csv").values()) == cells[::-1]
    assert matrix.read(tmp_path / "none.csv") == {}


def test_the_page_has_the_cells_between_its_markers_and_why_some_fail(
    matrix: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [
        matrix.Cell("mobilenet_v1", "litert", "fp32", "works", "4.0e-06", "1.000", "1", "2000"),
        matrix.Cell("mobilenet_v1", "litert", "int8", "works", "4e-01", "0.750", "1", "1000"),
        matrix.Cell("mobilenet_v2", "litert", "fp32", "it lacks bmm"),
        matrix.Cell("mobilenet_v2", "litert", "int8", "it lacks bmm"),
        matrix.Cell("convnext_atto", "litert", "int8", "not run", versions="torch 9"),
    ]
    known = {(cell.network, cell.format, cell.precision): cell for cell in cells}
    matrix.write(known, tmp_path / "formats_some.csv")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{matrix.BEGIN}\nold\n{matrix.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(matrix, "RESULTS", tmp_path)
    monkeypatch.setattr(matrix, "PAGE", page)
    matrix.write_docs()
    assert page.read_text(encoding="utf-8").splitlines() == [
        "before",
        matrix.BEGIN,
        "| network | litert fp32 | litert int8 |",
        "|---|---|---|",
        "| mobilenet_v1 | 4.0e-06, 2\xa0kB | 75 %, 1\xa0kB |",
        "| mobilenet_v2 | no (1) | no (1) |",
        "| convnext_atto |  | converted, not run |",
        "",
        "1. it lacks bmm",
        "",
        "Tried with torch 9.",
        matrix.END,
        "after",
    ]
