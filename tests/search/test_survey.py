"""Measuring before training: what is asked of the device, and what is looked up."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from search_device import FormulaDevice

from edgewise.cli.run_text import told
from edgewise.measure.store import Store
from edgewise.search.budget import Budget
from edgewise.search.costs import Candidate, Cost, as_of_now
from edgewise.search.device import Measured, TimedFile
from edgewise.search.device_worker import BROKEN
from edgewise.search.entrants import entrants
from edgewise.search.survey import Survey, doubtful, survey
from edgewise.search.ways import Way

pytest.importorskip("onnxruntime")
WAYS = [Way("onnx", precision, "onnxruntime") for precision in ("fp32", "int8")]


@pytest.fixture
def work(tmp_path: Path) -> tuple[Survey, FormulaDevice]:
    device = FormulaDevice()
    return Survey(device, device.facts(), 2, Store(tmp_path / "devices.sqlite")), device


def sizes(found: list[Cost], precision: str) -> list[int]:
    return [c.candidate.imgsz for c in found if c.candidate.precision == precision]


def test_the_sizes_around_the_budget(work: tuple[Survey, FormulaDevice]) -> None:
    # 1 us a pixel in fp32: 160 px fits in 26 ms, 192 px does not; in int8 224 px fits
    found = survey(entrants(("tiny",)), WAYS, Budget.parse("latency=26ms"), work[0])
    assert sizes(found, "fp32") == sizes(found, "int8") == [64, 160, 192, 224]
    spent = {(c.candidate.imgsz, c.candidate.precision): c.spent for c in found}
    assert spent[160, "fp32"].median_ms == 25.6
    assert spent[160, "int8"].median_ms == 12.8
    assert spent[160, "fp32"].size_bytes > 1.5 * spent[160, "int8"].size_bytes


def test_a_way_that_is_hopeless_is_left_alone(work: tuple[Survey, FormulaDevice]) -> None:
    """64 px take 4.1 ms in fp32, four times the budget, and half of that in int8."""
    found = survey(entrants(("tiny",)), WAYS, Budget.parse("latency=1.02ms"), work[0])
    assert sizes(found, "fp32") == [64]
    assert sizes(found, "int8") == [64, 224]


def test_what_was_measured_is_looked_up(work: tuple[Survey, FormulaDevice]) -> None:
    surveyor, device = work
    budget = Budget.parse("latency=26ms")
    first = survey(entrants(("tiny",)), WAYS[:1], budget, surveyor)
    asked = len(device.asked)
    assert asked == len(first) == 4
    again = survey(entrants(("tiny",)), WAYS[:1], budget, surveyor)
    assert again == [replace(cost, stored=True) for cost in first]
    assert not any(cost.stored for cost in first)
    assert len(device.asked) == asked


def test_a_slower_device_is_told_of_what_was_measured_before_and_of_what_is_new(
    work: tuple[Survey, FormulaDevice],
) -> None:
    surveyor, device = work
    old, new = (Candidate("tiny", imgsz, "fp32", "onnxruntime") for imgsz in (64, 96))
    surveyor.costs([old])
    device.slower = 2.0
    found = surveyor.costs([old, new])

    def factors(some: list[Cost]) -> tuple[float, float]:
        drift = surveyor.drift(some)
        return drift["factor"], drift["since"]

    assert factors(found) == (2.0, 1.0)
    device.slower = 3.0
    assert factors(found) == (3.0, 1.5)
    assert factors(found[1:]) == (1.5, 1.5)


def test_what_was_measured_while_something_else_ran_is_measured_anew(
    work: tuple[Survey, FormulaDevice],
) -> None:
    """In this search, and for the next one; what is as far off as the others is not."""
    surveyor, device = work
    candidates = [Candidate("tiny", imgsz, "fp32", "onnxruntime") for imgsz in (64, 96, 128, 160)]
    surveyor.costs(candidates[:3])
    device.slower = 3.0
    surveyor.costs(candidates[3:])
    device.slower = 1.02
    found = surveyor.costs(candidates)
    assert doubtful(found, Budget.parse("latency=30ms")) == []  # 160 px: 77 ms, and none larger
    drift = surveyor.drift(found[:3], found[3:])
    assert drift["factor"] == pytest.approx(1.02)
    costs = as_of_now(found, (), drift)
    assert [cost.taken.median_ms for cost in costs] == pytest.approx(
        [1.02 * imgsz**2 / 1000 for imgsz in (64, 96, 128, 160)]
    )
    kept = [cost.taken.median_ms for cost in surveyor.costs(candidates)]
    assert kept == pytest.approx([64**2 / 1000, 96**2 / 1000, 128**2 / 1000, 1.02 * 160**2 / 1000])


def test_a_smaller_image_that_took_longer_is_doubtful(work: tuple[Survey, FormulaDevice]) -> None:
    """If it is too dear by that, and the larger one is near the budget."""
    surveyor, device = work
    sizes = (96, 128, 160, 192)
    for imgsz, slower in zip(sizes, (1.0, 3.0, 2.0, 1.0), strict=True):
        device.slower = slower
        surveyor.costs([Candidate("tiny", imgsz, "fp32", "onnxruntime")])
    found = surveyor.costs([Candidate("tiny", s, "fp32", "onnxruntime") for s in sizes])

    def of(budget: str) -> list[int]:
        return [c.candidate.imgsz for c in doubtful(found, Budget.parse(budget))]

    # 9.2 ms, 49 (that are 16), 51 (that are 26) and 37
    assert of("latency=30ms") == [128, 160]
    assert of("latency=50ms") == [160]
    assert of("latency=60ms") == []
    assert of("latency=20ms") == []


def test_another_device_or_number_of_threads_is_measured(
    work: tuple[Survey, FormulaDevice],
) -> None:
    surveyor, device = work
    wanted = [Candidate("tiny", 64, "fp32", "onnxruntime")]
    surveyor.costs(wanted)
    device.threads = 2
    surveyor.costs(wanted)
    assert len(device.asked) == 2


def test_a_budget_far_below_everything_ends_at_once(work: tuple[Survey, FormulaDevice]) -> None:
    surveyor, device = work
    every = (*entrants(("tiny",)), *entrants(("mobilenet_v1",)))
    found = survey(every, WAYS[:1], Budget.parse("latency=1ms"), surveyor)
    assert [c.candidate.model for c in found] == ["tiny"]
    assert len(device.asked) == 1


def test_a_size_far_below_everything_says_nothing_of_the_others(
    work: tuple[Survey, FormulaDevice],
) -> None:
    """More sums may come in a smaller file."""
    every = entrants(("tiny", "tiny224"))
    found = survey(every, WAYS[:1], Budget.parse("latency=60ms,size=1KB"), work[0])
    assert [c.candidate.network for c in found] == [("tiny", 64), ("tiny224", 64)]


def test_a_network_that_cannot_be_run_says_nothing_of_the_others(
    work: tuple[Survey, FormulaDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have an operator that the device lacks."""
    surveyor, device = work
    timed = device._measured

    def refuse(file: TimedFile) -> Measured:
        lacking = file.key.startswith("tiny at")
        return Measured(None, failure="no such operator") if lacking else timed(file)

    monkeypatch.setattr(device, "_measured", refuse)
    every = entrants(("tiny", "tiny224"))
    found = survey(every, WAYS, Budget.parse("latency=60ms"), surveyor)
    assert {(c.candidate.model, c.candidate.imgsz) for c in found if c.failure} == {("tiny", 64)}
    assert {c.candidate.imgsz for c in found if c.spent} == {64, 224}
    assert found[0].failure  # it was the first to be tried


def test_a_file_that_crashes_has_its_reason(tmp_path: Path) -> None:
    device = FormulaDevice(broken="int8")
    surveyor = Survey(device, device.facts(), 2, Store(tmp_path / "devices.sqlite"))
    wanted = [Candidate("tiny", 64, precision, "onnxruntime") for precision in ("int8", "fp32")]
    crashed, fine = surveyor.costs(wanted)
    assert crashed.spent is None
    assert "SIGSEGV" in crashed.failure
    assert fine.spent is not None


def test_what_crashed_is_tried_again_and_what_was_refused_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FormulaDevice()
    surveyor = Survey(device, device.facts(), 2, Store(tmp_path / "devices.sqlite"))
    wanted = [Candidate("tiny", 64, precision, "onnxruntime") for precision in ("int8", "fp32")]
    reasons = {
        "int8": "crashed (SIGKILL), most likely for want of memory",
        "fp32": "NotImplemented: no such operator",
    }

    def refuse(file: TimedFile) -> Measured:
        return Measured(None, failure=reasons[file.path.stem.partition("-")[0]])

    with monkeypatch.context() as patch:
        patch.setattr(device, "_measured", refuse)
        assert [cost.failure for cost in surveyor.costs(wanted)] == list(reasons.values())
    crashed, refused = surveyor.costs(wanted)  # other processes were ended meanwhile
    assert crashed.spent and not crashed.failure
    assert refused.failure == reasons["fp32"]
    assert len(device.asked) == 3
    assert [cost.spent for cost in surveyor.costs(wanted)] == [crashed.spent, None]
    assert len(device.asked) == 3


@pytest.mark.parametrize(
    "reason",
    [
        f"{BROKEN}onnxruntime: ImportError: libopenblas.so: cannot open shared object file",
        "ImportError: numpy.core.multiarray failed to import",  # as rows said it once
        "ModuleNotFoundError: No module named 'torch'",  # which ExecuTorch needs
    ],
)
def test_a_board_that_was_mended_is_measured(
    work: tuple[Survey, FormulaDevice], monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    surveyor, device = work
    wanted = [Candidate("tiny", 64, "fp32", "onnxruntime")]
    with monkeypatch.context() as patch:
        patch.setattr(device, "_measured", lambda file: Measured(None, failure=reason))
        (broken,) = surveyor.costs(wanted)
    (mended,) = surveyor.costs(wanted)
    assert (broken.spent, broken.failure) == (None, reason)
    assert mended.spent and not mended.failure


def test_a_runtime_that_is_broken_is_told() -> None:
    candidate = Candidate("tiny", 64, "fp32", "onnxruntime")
    reasons = [f"{BROKEN}openvino: OSError: no libtbb"] * 2
    costs = [asdict(Cost(candidate, None, failure=reason)) for reason in (*reasons, "refused")]
    assert told("survey", {"costs": costs}).splitlines() == [
        "measured: 3 files of 1 network, 3 of which failed",
        "warning: the device can't import openvino: OSError: no libtbb",
    ]
