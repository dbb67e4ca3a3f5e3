"""Rows as files on a device: what is written, what is timed, what is kept."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from all_kinds import SIZE, small_network
from in_process import InProcess, timing
from row_formula import small_spec
from torch import nn

from edgewise.errors import CantWrite, EdgewiseError, UsageError
from edgewise.measure.store import Store
from edgewise.search import latency_table_parts, latency_table_times
from edgewise.search.device import DeviceFacts, Measured, TimedFile
from edgewise.search.latency_table import LatencyTable
from edgewise.search.latency_table_parts import EmptyCall, Part, Whole, rows_of
from edgewise.search.latency_table_times import TOGETHER, CantTime, DeviceTimes
from edgewise.search.local import LocalDevice
from edgewise.spec import Conv, Spec
from edgewise.timing.runtimes import RUNTIMES, random_images


class Told(InProcess):
    """A device that says what it was told to say, by the file's key, and else 3 ms."""

    def __init__(self, **answers: float | None) -> None:
        super().__init__()
        self.answers, self.calls = answers, 0
        self.itself = super().facts()

    def facts(self) -> DeviceFacts:
        return self.itself

    def measure(
        self,
        files: Sequence[TimedFile],
        seconds: float = 2.0,
        on_step: Callable[[str], None] = lambda what: None,
    ) -> dict[str, Measured]:
        self.calls += 1
        self.files += files
        told = {file.key: self.answers.get(file.key, 3.0) for file in files}
        return {
            key: Measured(timing(ms)) if ms is not None else Measured(None, failure="out of luck")
            for key, ms in told.items()
        }


EMPTY = EmptyCall().graph


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "rows.sqlite")


@pytest.fixture
def unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing takes a second each, and these tests don't look at the files."""

    def nothing(module: nn.Module, shape: object, folder: Path) -> Path:
        return folder / "nothing.onnx"

    monkeypatch.setitem(latency_table_times.WRITERS, "fp32", nothing)


def tiny_spec() -> Spec:
    """A row with squeeze-excite, one without, and one that is added to its input."""
    spec = small_spec()
    return replace(spec, stages=spec.stages[:3])


def parts(count: int) -> list[Part]:
    row = rows_of(small_spec(), 32)["stem"]
    assert isinstance(row.row, Conv)
    return [replace(row, row=replace(row.row, out=8 * n)) for n in range(1, count + 1)]


class Kept(InProcess):
    """Takes down what each file answers."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, np.ndarray] = {}

    def measure(
        self,
        files: Sequence[TimedFile],
        seconds: float = 2.0,
        on_step: Callable[[str], None] = lambda what: None,
    ) -> dict[str, Measured]:
        for file in files:
            prepared = RUNTIMES[file.runtime].prepare_file(file.path, file.shape, 1)
            self.answers[file.key] = prepared.run(random_images(file.shape)[0])
        return super().measure(files, 0.05, on_step)


@pytest.mark.slow
def test_a_rows_file_answers_as_the_row_does(store: Store) -> None:
    pytest.importorskip("onnxruntime")
    device, spec = Kept(), tiny_spec()
    every: list[Part] = [*rows_of(spec, 32).values(), Whole(spec, 32)]
    times = DeviceTimes(device, store=store).of(every)
    assert all(ms >= 0 for ms in times.values())
    assert times[every[-1]] > 0
    for part in every:
        torch.manual_seed(0)
        module = part.module()
        with torch.no_grad():
            right = module(torch.from_numpy(random_images(part.shape)[0])).numpy().reshape(1, -1)
        np.testing.assert_allclose(device.answers[part.graph], right, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mobilenet_v3_small", "mobilenet_v4_hybrid_medium"])
def test_rows_in_int8_run_too(family: str, store: Store) -> None:
    pytest.importorskip("onnxruntime")
    device, spec = Kept(), small_network(family).spec
    rows = list(rows_of(spec, SIZE).values())
    some = list({type(row.row): row for row in rows}.values())
    times = DeviceTimes(device, precision="int8", store=store).of(some)
    assert all(ms >= 0 for ms in times.values())
    assert len(times) == len(some)


@pytest.mark.usefixtures("unwritten")
def test_what_an_empty_call_costs_is_taken_off(store: Store) -> None:
    one, two = parts(2)
    device = Told(**{EMPTY: 1.0, one.graph: 5.0, two.graph: 0.5})
    assert DeviceTimes(device, store=store).of([one, two]) == {one: 4.0, two: 0.0}
    # Each from the empty call that it was timed in turns with.
    three = parts(3)[2]
    later = Told(**{EMPTY: 2.0, three.graph: 5.0})
    times = DeviceTimes(later, store=store)
    assert times.of([one, three]) == {one: 4.0, three: 3.0}
    assert DeviceTimes(Told(), store=store).of([one, three]) == {one: 4.0, three: 3.0}


@pytest.mark.usefixtures("unwritten")
def test_nothing_is_measured_twice(store: Store) -> None:
    device, every = Told(), parts(3)
    times = DeviceTimes(device, store=store)
    times.of([*every, *every])
    times.of(every)
    assert sorted(file.key for file in device.files) == sorted([EMPTY, *(p.graph for p in every)])
    again = Told()
    DeviceTimes(again, store=store).of(every)
    assert again.calls == 0


@pytest.mark.usefixtures("unwritten")
@pytest.mark.parametrize("what", ["machine", "threads", "version"])
def test_what_was_measured_otherwise_is_measured_again(what: str, store: Store) -> None:
    (part,) = parts(1)
    DeviceTimes(Told(), store=store).of([part])
    other = Told()
    if what == "threads":
        other.threads = 2
    elif what == "machine":
        other.itself = replace(other.itself, fingerprint="ba9876543210")
    else:
        other.itself = replace(other.itself, runtimes={"onnxruntime": "0.0.1"})
    DeviceTimes(other, store=store).of([part])
    assert other.calls == 1


@pytest.mark.usefixtures("unwritten")
def test_another_version_measures_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    DeviceTimes(Told(), store=store).of(parts(1))
    monkeypatch.setattr(latency_table_parts, "__version__", "999")
    newer = Told()
    DeviceTimes(newer, store=store).of(parts(1))
    assert newer.calls == 1
    assert len(store.rows()) == 4


@pytest.mark.usefixtures("unwritten")
def test_so_many_are_timed_in_turns_and_an_empty_call_with_each(store: Store) -> None:
    device = Told()
    DeviceTimes(device, store=store).of(parts(TOGETHER + 1))
    assert device.calls == 2
    assert [file.key for file in device.files].count(EMPTY) == 2


@pytest.mark.usefixtures("unwritten")
def test_a_device_has_room_for_the_empty_call_beside_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It parts what it is given into as many as it has processes for."""
    groups: list[list[str]] = []

    def timed(
        self: LocalDevice, files: Sequence[TimedFile], seconds: float, hear: Callable[..., None]
    ) -> None:
        groups.append([file.key for file in files])
        for file in files:
            timing = {"rounds": [[3.0] * 5] * 20, "warmup": 5, "bytes": 1}
            hear({"event": "timed", "key": file.key, **timing})

    monkeypatch.setattr(LocalDevice, "_measure", timed)
    monkeypatch.setattr(LocalDevice, "_missing", lambda self, file: "")
    monkeypatch.setattr(LocalDevice, "facts", lambda self: Told().facts())
    DeviceTimes(LocalDevice(1), store=store).of(parts(20))
    assert len(groups) == 3
    assert all(EMPTY in group for group in groups)


@pytest.mark.usefixtures("unwritten")
def test_one_that_fails_is_named_and_the_others_are_kept(store: Store) -> None:
    one, two, three = parts(3)
    times = DeviceTimes(Told(**{two.graph: None}), store=store)
    with pytest.raises(EdgewiseError, match=r"here could not time Conv of 3 .* 32 px: out of luck"):
        times.of([one, two, three])
    mended = Told()
    DeviceTimes(mended, store=store).of([one, two, three])
    assert [file.key for file in mended.files] == [EMPTY, two.graph]


@pytest.mark.usefixtures("unwritten")
def test_without_an_empty_call_nothing_is_kept(store: Store) -> None:
    with pytest.raises(EdgewiseError, match="an empty call: out of luck"):
        DeviceTimes(Told(**{EMPTY: None}), store=store).of(parts(2))
    assert store.rows() == []


@pytest.mark.usefixtures("unwritten")
def test_torchs_random_state_is_left_alone(store: Store) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    DeviceTimes(Told(), store=store).of(parts(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_runtime_that_is_not_there() -> None:
    device = Told()
    device.itself = replace(device.itself, runtimes={})
    with pytest.raises(
        UsageError, match=r"here has no runtime at all, and no onnxruntime.*Install"
    ):
        DeviceTimes(device)
    with pytest.raises(UsageError, match=r"here has onnxruntime, and no openvino"):
        DeviceTimes(Told(), "openvino")
    with pytest.raises(UsageError, match=r"ONNX files.*'litert'.*onnxruntime"):
        DeviceTimes(Told(), "litert")
    with pytest.raises(UsageError, match="precision 'bf16'"):
        DeviceTimes(Told(), precision="bf16")


@pytest.mark.slow
def test_the_additivity_of_a_real_network(store: Store) -> None:
    pytest.importorskip("onnxruntime")
    table = LatencyTable(tiny_spec(), 64, DeviceTimes(InProcess(), store=store))
    found = table.additivity()
    assert found.whole_ms > 0
    assert found.sum_ms == pytest.approx(sum(found.rows_ms.values()))
    assert -0.9 < found.error < 4  # rows alone are converted to and from the runtime's layout


def test_a_row_that_can_not_be_written_is_told_from_a_full_disk(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without onnxscript: it ends in the same each time, a full disk does not."""

    def fails(error: Exception) -> None:
        def write(module: nn.Module, shape: object, folder: Path) -> Path:
            raise error

        monkeypatch.setitem(latency_table_times.WRITERS, "fp32", write)

    fails(ImportError("No module named 'onnxscript'"))
    with pytest.raises(CantTime, match=r"can't write an empty call: .*onnxscript"):
        DeviceTimes(Told(), store=store).of(parts(1))
    fails(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(CantWrite, match="No space left"):
        DeviceTimes(Told(), store=store).of(parts(1))
