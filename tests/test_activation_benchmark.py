"""The tables of docs/activation.md are those of the results."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def test_the_tables_of_the_page_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlxtend")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import activation

    page = (BENCHMARKS.parent / "docs" / "activation.md").read_text().splitlines()
    assert [line for line in activation.table() if line not in page] == []
