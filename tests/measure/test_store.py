"""The store gives back what was put in, and only that."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from edgewise.errors import EdgewiseError, UsageError
from edgewise.measure import store
from edgewise.measure.choose import choose
from edgewise.measure.store import Row, Store, machine_fingerprint

ROW = Row(
    session="2026-01-01T00:00:00",
    machine="m",
    cpu="Example",
    cores=2,
    load=0.25,
    model="mobilenet_v2",
    graph="g",
    imgsz=224,
    batch=1,
    threads=1,
    library="edgewise",
    runtime="torch",
    version="2.0",
    precision="fp32",
    median_ms=1 / 3,
    low_ms=0.3,
    high_ms=0.4,
    p90_ms=0.5,
    p99_ms=0.6,
    runs=60,
    rounds_ms=(0.1, 1 / 3),
    first_ms=9.0,
    peak_bytes=10**9,
    weight_bytes=4,
    largest_error=1e-7,
    correlation=1.0,
    agreement=1.0,
)
FAILED = replace(
    *(ROW,),
    runtime="ncnn",
    status="failed",
    reason="no 'Swish'; \"quoted\"\nand more",
    **dict.fromkeys(("load", "median_ms", "peak_bytes", "correlation")),
    rounds_ms=(),
)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "bench.sqlite"
    Store(path).add([ROW])
    Store(path).add([FAILED])
    assert Store(path).rows() == [ROW, FAILED]
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT median_ms, runs FROM measurements").fetchone() == (
            1 / 3,
            60,
        )


def test_the_last_row_of_the_same_thing_counts(tmp_path: Path) -> None:
    again = replace(ROW, session="2026-02-01T00:00:00", median_ms=7.0)
    others = [
        replace(ROW, **{name: value})
        for name, value in {
            "machine": "other",
            "graph": "other",
            "version": "2.1",
            "threads": 2,
            "precision": "int8",
            "library": "timm",
            "runtime": "onnxruntime",
        }.items()
    ]
    store = Store(tmp_path / "bench.sqlite")
    store.add([ROW, *others, again])
    assert store.latest() == [*others, again]
    assert store.latest(["resnet18"]) == []


def test_an_empty_store_writes_no_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "bench.sqlite")
    assert store.rows() == []
    assert not store.path.exists()


def test_half_of_what_was_added_is_never_there(tmp_path: Path) -> None:
    store = Store(tmp_path / "bench.sqlite")
    store.add([ROW])
    unfit = replace(FAILED, cpu=object())  # type: ignore[arg-type]
    with pytest.raises((sqlite3.Error, EdgewiseError)):
        store.add([FAILED, unfit])
    assert store.rows() == [ROW]


def test_a_store_that_was_begun_only_is_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a full disk leaves it, or a kill."""
    for name in ("full", "killed"):
        path = tmp_path / f"{name}.sqlite"
        if name == "full":
            path.touch()
        else:
            with monkeypatch.context() as patch, pytest.raises(EdgewiseError, match="can't use"):
                patch.setattr(store, "VERSION", "(")  # the table is made by then
                Store(path).add([ROW])
            assert path.is_file()
        assert Store(path).rows() == []
        Store(path).add([ROW])
        assert Store(path).rows() == [ROW]


def test_only_benchs_own_store_can_be_named_by_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    for name, mend in (("bench", "Move it away, or .* --store"), ("devices", r"Move it away\.$")):
        path = tmp_path / f"{name}.sqlite"
        path.write_text("no database " * 100)
        with pytest.raises(UsageError, match=mend):
            Store(path)


def test_another_kind_of_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database " * 100)
    with pytest.raises(UsageError, match=r"notes\.txt is not a store of measurements"):
        Store(path)
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE other (a)")
    with pytest.raises(UsageError, match=r"foreign\.sqlite is not a store of this version"):
        Store(foreign)


def test_a_folder_that_can_not_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgewiseError, match=r"can't make .* EDGEWISE_CACHE"):
        Store(tmp_path / "file" / "bench.sqlite").add([ROW])


def test_the_fingerprint_of_the_machine_is_steady() -> None:
    assert machine_fingerprint() == machine_fingerprint()
    assert len(machine_fingerprint()) == 12


def timed(milliseconds: float, **changes: object) -> Row:
    rounds = tuple(milliseconds * factor for factor in (0.98, 1.0, 1.0, 1.0, 1.02, 1.01))
    return replace(ROW, median_ms=milliseconds, rounds_ms=rounds, **changes)  # type: ignore[arg-type]


def test_the_fastest_right_one_is_chosen_with_the_factor_to_each_other() -> None:
    rows = [
        timed(10.0),
        timed(4.0, runtime="onnxruntime"),
        timed(2.0, runtime="openvino", status="wrong"),
        timed(3.0, runtime="onnxruntime", library="timm"),
        replace(FAILED, session=ROW.session),
    ]
    (choice,) = choose(rows, "mobilenet_v2", "m")
    assert choice.best.runtime == "onnxruntime"
    assert choice.best.library == "edgewise"
    factors = {(row.library, row.runtime): times.value for row, times in choice.others}
    assert factors == {("timm", "onnxruntime"): 0.75, ("edgewise", "torch"): 2.5}
    assert choice.ties == ()


def test_what_may_be_as_fast_is_a_tie() -> None:
    shaken = replace(timed(4.01, runtime="torch-compile"), rounds_ms=(3.9, 4.2, 3.8, 4.1, 4.0, 4.0))
    (choice,) = choose([timed(4.0), shaken], "mobilenet_v2", "m")
    assert choice.ties == (shaken,)


def test_only_the_last_session_here_is_asked() -> None:
    rows = [
        timed(1.0, runtime="old"),
        timed(5.0, session="2026-03-01", runtime="new"),
        timed(0.1, session="2026-04-01", machine="elsewhere"),
        timed(3.0, threads=2, runtime="two"),
    ]
    choices = choose(rows, "mobilenet_v2", "m")
    assert {choice.best.runtime for choice in choices} == {"new", "two"}


def test_what_only_earlier_sessions_had_is_told_as_it_was_last() -> None:
    slower = timed(6.0, session="2026-02-02", runtime="onnxruntime", version="9")
    rows = [
        timed(5.0, runtime="onnxruntime"),
        timed(9.0, runtime="torch"),
        timed(7.0, runtime="openvino"),
        slower,
        timed(7.0, session="2026-02-02", runtime="ncnn", status="wrong"),
        timed(9.0, session="2026-03-01", runtime="torch"),
        timed(9.0, session="2026-03-01", runtime="openvino", status="wrong"),
    ]
    (choice,) = choose(rows, "mobilenet_v2", "m")
    assert (choice.best, choice.others) == (rows[5], ())
    assert choice.earlier == (slower,)


def test_a_session_in_which_nothing_was_right_does_not_count() -> None:
    later = {"session": "2026-03-01"}
    rows = [
        timed(5.0, runtime="onnxruntime"),
        timed(4.0, runtime="openvino"),
        timed(9.0, runtime="torch"),
        replace(FAILED, **later, runtime="openvino"),  # so it is out, though it was the fastest
        timed(3.0, **later, library="timm"),
    ]
    (choice,) = choose(rows, "mobilenet_v2", "m")
    assert choice.best == rows[0]
    assert [row for row, _ in choice.others] == [rows[2]]
    assert choice.earlier == ()


@pytest.mark.parametrize("rows", [[], [replace(ROW, machine="other")]])
def test_nothing_to_choose_from_says_what_to_run(rows: list[Row]) -> None:
    with pytest.raises(UsageError, match="Run: edgewise bench mobilenet_v2"):
        choose(rows, "mobilenet_v2", "m")


@pytest.mark.parametrize("rows", [[FAILED], [FAILED, replace(ROW, status="wrong")]])
def test_nothing_that_is_right_says_where_it_is_told_why(rows: list[Row]) -> None:
    words = r"nothing ran it and gave the right answers.* edgewise bench mobilenet_v2 --show"
    with pytest.raises(UsageError, match=words):
        choose(rows, "mobilenet_v2", "m")
