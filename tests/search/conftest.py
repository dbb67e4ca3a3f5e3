"""Searches of tests measure on a device of known times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from search_device import FormulaDevice, write_photos
from searches import Found, request_for

from edgewise.families import VARIANTS
from edgewise.search import ladder
from edgewise.search.ladder import run
from edgewise.search.latency_table_times import WRITERS


@pytest.fixture(scope="module", autouse=True)
def tiny224() -> Iterator[None]:
    """The tiny network, as if it were published for images of 224 px: larger ones promise more."""
    with pytest.MonkeyPatch.context() as patch:  # other tests count the variants
        patch.setitem(
            VARIANTS, "tiny224", replace(VARIANTS["tiny"], name="tiny224", input_size=224)
        )
        yield


def rows_unwritten(patch: pytest.MonkeyPatch) -> None:
    """Writing takes a second each, and a device of known times doesn't look at files of rows."""
    for precision in WRITERS:
        patch.setitem(WRITERS, precision, lambda module, shape, folder: folder / "nothing.onnx")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FormulaDevice:
    """What every search of the test measures on."""
    rows_unwritten(monkeypatch)
    made = FormulaDevice()
    monkeypatch.setattr(ladder, "open_device", lambda text, threads: made)
    return made


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Graphs are made once for all tests; what was measured is each test's own."""
    monkeypatch.setattr(
        "edgewise.search.survey.STORE", f"{tmp_path_factory.mktemp('store')}/devices.sqlite"
    )


@pytest.fixture
def two_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast the machine is: so that searches can be compared."""
    monkeypatch.setattr("edgewise.training.start.plan_epochs", lambda *arguments: 2)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's zeros and ones: 40 to train, 20 to select by, 20 to test."""
    return write_photos(tmp_path_factory.mktemp("photos"), test_label=lambda label: label)


@pytest.fixture(scope="module")
def found(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """A finished search: in fp32 96 px is too dear for 6 ms, in int8 it is not."""
    root, device = tmp_path_factory.mktemp("found") / "search", FormulaDevice()
    with pytest.MonkeyPatch.context() as patch:
        rows_unwritten(patch)
        patch.setattr(ladder, "open_device", lambda text, threads: device)
        patch.setattr("edgewise.training.start.plan_epochs", lambda *arguments: 2)
        patch.setattr("edgewise.search.survey.STORE", str(root.with_name("devices.sqlite")))
        return run(request_for(photos, "latency=6ms"), root), root, device
