"""The rung that narrows: its clock, its steps, and what it says where it can't."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from row_formula import SIZE, small_spec
from search_device import FormulaDevice

from edgewise.errors import EdgewiseError
from edgewise.measure.rounds import summary
from edgewise.model import Model
from edgewise.network import build
from edgewise.preprocess import Preprocess
from edgewise.run_folder import Run
from edgewise.search import latency_table_times
from edgewise.search.adapted import Clock, narrow, stand_in
from edgewise.search.budget import Budget, Spent
from edgewise.search.costs import Candidate, Cost
from edgewise.search.device import Measured, TimedFile
from edgewise.search.netadapt import steps_to
from edgewise.weights.folder import save_model

BUDGET = Budget.parse("latency=3ms@p90")


class Drifting(FormulaDevice):
    """Takes a nanosecond for each byte of a file, its slowest calls twice that; all by `slower`."""

    def _measured(self, file: TimedFile) -> Measured:
        ms = self.slower * file.path.stat().st_size / 1e6
        return Measured(summary([[ms] * 8 + [2 * ms] * 2] * 20, 5))


def model(stages: int) -> Model:
    torch.manual_seed(0)
    rule = Preprocess(SIZE, 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3)
    head = replace(small_spec().head, conv=16, hidden=())  # else most of a file is its head
    spec = replace(small_spec(), stages=small_spec().stages[:stages], head=head)
    return Model(build(spec).eval(), rule, tuple("abcdefg"))


def test_a_device_that_slows_down_changes_no_ratio(tmp_path: Path) -> None:
    device, whole, narrower = Drifting(), model(2), model(1)
    measure = Clock(device, "fp32", "onnxruntime").measuring(whole, BUDGET, tmp_path / "first")
    whole_ms, narrower_ms = measure(whole), measure(narrower)
    assert whole_ms == pytest.approx(2 * (tmp_path / "first" / "first.onnx").stat().st_size / 1e6)
    assert narrower_ms < 0.95 * whole_ms
    device.slower = 3.0
    assert measure(narrower) == pytest.approx(narrower_ms)
    again = Clock(device, "fp32", "onnxruntime").measuring(whole, BUDGET, tmp_path / "first")
    assert again(narrower) == pytest.approx(narrower_ms)  # a search that goes on later
    assert measure(whole) == pytest.approx(whole_ms)


def test_a_file_that_fails_is_said(tmp_path: Path) -> None:
    device = FormulaDevice(broken="first.onnx")
    with pytest.raises(EdgewiseError, match=r"can't be timed: crashed \(SIGSEGV\)"):
        Clock(device, "fp32", "onnxruntime").measuring(model(2), BUDGET, tmp_path / "first")


def test_a_row_that_can_not_be_timed_ends_the_narrowing_and_not_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that goes away is no outcome: it is asked again by who goes on."""

    def unwritten(module: object, shape: object, folder: Path) -> Path:
        return folder / "row.onnx"

    def away(*given: object) -> None:
        raise EdgewiseError("ssh:pi@board went away")

    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    monkeypatch.setitem(latency_table_times.WRITERS, "fp32", unwritten)
    original = Run(tmp_path / "run")
    save_model(model(2), original.model)
    device = FormulaDevice(broken="row.onnx")
    clock = Clock(device, "fp32", "onnxruntime")
    made = narrow(original, clock, BUDGET, tmp_path / "netadapt", 1.0)
    assert made == {
        "failure": "local could not time an empty call: crashed (SIGSEGV)",
        "fits": False,
    }
    monkeypatch.setattr(device, "measure", away)
    with pytest.raises(EdgewiseError, match="went away"):
        narrow(original, clock, BUDGET, tmp_path / "netadapt", 1.0)


def test_how_many_steps_it_takes() -> None:
    """NetAdapt's: 2.5 % of the initial latency, 4 % less in each further step (its section 4.1)."""
    assert steps_to(1.0) == 0
    assert steps_to(0.975) == 1
    assert steps_to(0.97) == 2  # 2.5 and 2.4 %
    left, steps = 1.0, 0
    while left > 0.5:
        left, steps = left - 0.025 * 0.96**steps, steps + 1
    assert steps_to(0.5) == steps
    assert steps_to(0.3) is None  # 2.5 / (1 - 0.96) = 62.5 %, and no more


def test_an_onnx_file_stands_in_for_another() -> None:
    """Of the same network and size, the fastest at the budget's percentile."""

    def cost(ms: float, *way: str, imgsz: int = 96) -> Cost:
        precision, runtime, format = way
        return Cost(Candidate("a", imgsz, precision, runtime, format), Spent(9 * ms, ms, ms, 1))

    least = cost(2.0, "int8", "litert", "litert")
    slow, fast = cost(9.0, "fp32", "onnxruntime", "onnx"), cost(5.0, "int8", "openvino", "onnx")
    failed = Cost(Candidate("a", 96, "int8", "onnxruntime"), None, failure="crashed")
    smaller = cost(1.0, "int8", "onnxruntime", "onnx", imgsz=64)
    found = [least, slow, fast, failed, smaller]
    assert stand_in(least.candidate, found, BUDGET) == (fast.candidate, 2.5)
    assert stand_in(slow.candidate, found, BUDGET) == (slow.candidate, 1.0)
    assert stand_in(least.candidate, [least, failed, smaller], BUDGET) is None
