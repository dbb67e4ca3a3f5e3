"""The rung that says where the milliseconds of the chosen file go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from search_device import FormulaDevice
from searches import Found, request_for
from torch.utils.flop_counter import FlopCounterMode

from edgewise.cli.run_text import told
from edgewise.errors import EdgewiseError
from edgewise.run_folder import Run
from edgewise.search import latency_table_times as times_module
from edgewise.search.decisions import Decisions, Numbers
from edgewise.search.request import SearchFolder
from edgewise.search.rows import timed_rows
from edgewise.search.state import State, Watch
from edgewise.weights.folder import load_model

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("two_epochs")


def files_of(found: Found) -> list[Numbers]:
    files: list[Numbers] = Decisions(found[0].decisions).made["files"]["files"]
    return files


def searching(device: FormulaDevice, found: Found, photos: Path, minutes: float = 60.0) -> State:
    """As the finished search was before its last rungs, on another device."""
    search = State(request_for(photos, "latency=6ms", minutes=minutes), found[0], device, Watch())
    search.log = Decisions(SearchFolder(found[1]).decisions)
    return search


def test_each_row_of_the_chosen_network_is_timed_alone(found: Found) -> None:
    """The device takes as long as its input has pixels; PyTorch says what each row's input is."""
    seen = Decisions(found[0].decisions).made["rows"]
    assert (seen["precision"], seen["runtime"]) == ("int8", "onnxruntime")
    network = load_model(Run(found[0].final).model).network
    places = [row["place"] for row in seen["rows"]]
    sides: dict[str, int] = {}
    for place in places:
        network.get_submodule(place).register_forward_pre_hook(
            lambda module, inputs, place=place: sides.update({place: inputs[0].shape[-1]})
        )
    with torch.no_grad(), FlopCounterMode(display=False, depth=9) as counter:
        network(torch.zeros(1, 3, 96, 96))
    assert list(sides) == places  # all of them, in the order of the computation
    flops = counter.get_flop_counts()
    empty = 1 / 2000
    for row in seen["rows"]:
        assert row["ms"] == pytest.approx(sides[row["place"]] ** 2 / 2000 - empty)
        assert 2 * row["macs"] == sum(flops[f"Network.{row['place']}"].values())
    assert 2 * sum(row["macs"] for row in seen["rows"]) == counter.get_total_flops()
    whole = 96**2 / 2000 - empty
    assert seen["whole_ms"] == pytest.approx(whole)
    assert seen["additivity"] == pytest.approx(sum(row["ms"] for row in seen["rows"]) / whole - 1)
    assert told("rows", seen) == (
        f"rows: the dearest of {len(places)} are stem 4.61 ms, stages.0.0 1.15 ms, "
        "stages.1.0 1.15 ms; end to end 4.61 ms, as int8 in onnxruntime "
        f"(the sum of its rows is off by {100 * seen['additivity']:+.1f} %)"
    )


def test_without_time_or_a_runtime_for_them_the_test_is_next(found: Found, photos: Path) -> None:
    search = searching(FormulaDevice(), found, photos, minutes=0.01)
    short = timed_rows(search, files_of(found))
    assert short == {"failure": "there was no time left to time its rows"}
    assert told("rows", short) == "rows: there was no time left to time its rows"
    other = FormulaDevice()
    other.runtimes = {"onnxruntime": "1.0", "ncnn": "1.0"}
    search = searching(other, found, photos)
    search.facts = replace(search.facts, runtimes={"ncnn": "1.0"})
    assert timed_rows(search, files_of(found)) == {
        "failure": "rows are timed as ONNX files, and local reads none"
    }


def test_what_can_not_be_timed_is_said_and_a_device_that_is_gone_is_asked_again(
    found: Found, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(times_module, "FILE", str(tmp_path / "rows.sqlite"))
    monkeypatch.setattr(times_module, "TOGETHER", 1)  # each row takes a second to be written
    search = searching(FormulaDevice(broken=".qdq.onnx"), found, photos)
    failed = timed_rows(search, files_of(found))
    assert failed["failure"].endswith("crashed (SIGSEGV)")

    (tmp_path / "damaged.sqlite").write_bytes(b"no database at all" * 100)
    with monkeypatch.context() as patch:
        patch.setattr(times_module, "FILE", str(tmp_path / "damaged.sqlite"))
        assert "damaged.sqlite" in timed_rows(search, files_of(found))["failure"]

    def away(*given: object) -> None:
        raise EdgewiseError("ssh:pi@board went away")

    monkeypatch.setattr(search.device, "measure", away)
    with pytest.raises(EdgewiseError, match="went away"):
        timed_rows(search, files_of(found))
