"""`edgewise bench`: what it prints, keeps and refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fake_runtime
import pytest
from commandline import edgewise

from edgewise.errors import EdgewiseError, UsageError
from edgewise.families import variant
from edgewise.measure.count import count
from edgewise.measure.store import Row, Store, machine_fingerprint
from edgewise.timing import roofline, runtimes


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "RUNTIMES", fake_runtime.RUNTIMES)


def timed(runtime: str, milliseconds: float, **changes: object) -> Row:
    row = Row(
        *("2026-01-01", machine_fingerprint(), "Example", 2, 0.1, "mobilenet_v2", "g", 224, 1, 1),
        *("edgewise", runtime, "2.0", "fp32"),
        median_ms=milliseconds,
        low_ms=0.99 * milliseconds,
        high_ms=1.01 * milliseconds,
        p90_ms=2 * milliseconds,
        p99_ms=3 * milliseconds,
        first_ms=4 * milliseconds,
        rounds_ms=tuple(milliseconds * factor for factor in (0.99, 1, 1, 1, 1, 1.01)),
        peak_bytes=300_000_000,
        weight_bytes=14_000_000,
    )
    return replace(row, **changes)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "bench.sqlite"
    Store(path).add(
        [
            timed("torch", 25.0),
            timed("onnxruntime", 7.5, load=1.9, high_ms=9.0),
            timed("onnxruntime", 6.0, precision="int8", status="wrong", reason="it is far off"),
            timed("torch", 30.0, library="timm"),
        ]
    )
    return path


def test_show_prints_the_fastest_first_and_what_was_wrong(store: Path) -> None:
    called = edgewise("bench", "--show", "--store", store)
    assert called.status == 0
    lines = called.output.splitlines()
    assert lines[0] == "mobilenet_v2, 224 px, batch 1, 1 thread"
    assert lines[1].split()[:4] == ["LIBRARY", "RUNTIME", "PRECISION", "MEDIAN"]
    assert [line.split()[:2] for line in lines[3:5]] == [
        ["edgewise", "onnxruntime"],
        ["edgewise", "torch"],
    ]
    assert "7.5 ms" in called.output and "7.42-9" in called.output and "300 MB" in called.output
    assert "wrong: edgewise onnxruntime int8: it is far off" in called.output
    assert "wide intervals, over 10% of the median: onnxruntime fp32" in called.output


def test_show_has_a_table_for_each_session_that_has_last_rows(tmp_path: Path) -> None:
    """ONNX Runtime was timed once more, alone: what was timed with it before stays together."""
    path = tmp_path / "bench.sqlite"
    first = [timed(name, 5.0) for name in ("torch", "onnxruntime", "openvino")]
    Store(path).add(first)
    Store(path).add([timed("onnxruntime", 4.0, session="2026-02-01")])
    tables = edgewise("bench", "--show", "--store", path).output.strip().split("\n\n")
    runtimes = [[line.split()[1] for line in table.splitlines()[2:]] for table in tables]
    assert runtimes == [["torch", "openvino"], ["onnxruntime"]]


def test_show_as_json_has_the_columns_of_the_store(store: Path) -> None:
    found = json.loads(edgewise("bench", "--show", "--json", "--store", store).output)
    assert [Row(**{**row, "rounds_ms": tuple(row["rounds_ms"])}) for row in found] == Store(
        store
    ).rows()


def test_show_of_an_empty_store_says_so(tmp_path: Path) -> None:
    called = edgewise("bench", "--show", "--store", tmp_path / "none.sqlite")
    assert (called.status, called.output) == (0, "")
    assert "nothing was measured yet" in called.errors


@pytest.mark.parametrize("arguments", [["--show"], ["mobilenet_v2"]])
def test_a_cache_that_can_not_be_read_is_named_before_anything_is_measured(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a name that is too long: root, who may run these tests, may read what others may not."""
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / ("x" * 300)))
    monkeypatch.setattr("edgewise.timing.run.bench", None)
    called = edgewise("bench", *arguments)
    assert (called.status, called.output) == (1, "")
    assert "can't read" in called.errors and "EDGEWISE_CACHE" in called.errors


def test_a_cache_that_can_not_be_written_is_named_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("edgewise.timing.run.bench", None)
    called = edgewise("bench", "mobilenet_v2")
    assert called.status == 1
    assert "can't make" in called.errors and "EDGEWISE_CACHE" in called.errors


def test_choose_says_which_and_by_how_much(store: Path) -> None:
    called = edgewise("bench", "mobilenet_v2", "--choose", "--store", store)
    assert called.status == 0
    assert called.output.splitlines()[0] == (
        "mobilenet_v2, 224 px, batch 1, 1 thread: onnxruntime fp32, 7.5 ms (7.42-9)"
    )
    assert "3.33 x as fast as torch fp32 (" in called.output
    assert "4.00 x as fast as timm in torch fp32 (" in called.output
    (choice,) = json.loads(
        edgewise("bench", "mobilenet_v2", "--choose", "--json", "--store", store).output
    )
    assert choice["best"]["runtime"] == "onnxruntime"


def test_choose_names_what_the_last_session_lacks(store: Path) -> None:
    Store(store).add([timed("torch", 25.0, session="2026-02-01")])
    lines = edgewise("bench", "mobilenet_v2", "--choose", "--store", store).output.splitlines()
    assert lines == [
        "mobilenet_v2, 224 px, batch 1, 1 thread: torch fp32, 25 ms (24.8-25.2)",
        "  not in the last session: onnxruntime fp32, which took 7.5 ms on 2026-01-01",
        "  not in the last session: timm in torch fp32, which took 30 ms on 2026-01-01",
    ]


def test_chart_writes_a_page_and_a_picture(store: Path, tmp_path: Path) -> None:
    called = edgewise("bench", "--show", "--store", store, "--chart", tmp_path / "charts")
    assert called.status == 0
    assert {path.name for path in (tmp_path / "charts").iterdir()} == {"pareto.html", "pareto.png"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the networks to measure"),
        (["mobilenet_v2", "--show", "--choose"], "give one of --show, --choose"),
        (["mobilenet_v7"], "unknown model 'mobilenet_v7'"),
        (["mobilenet_v2", "--runtime", "absent"], "pip install 'edgewise[openvino]'"),
        (["mobilenet_v2", "--threads", "1,x"], "'1,x' is not a list of whole numbers"),
        (["convnext_tiny", "--imgsz", "8"], "The smallest that convnext_tiny takes is 32"),
        (["mobilenet_v2", "--choose"], "Run: edgewise bench mobilenet_v2"),
        (["mobilenet_v2", "--against", "keras"], "unknown library 'keras'"),
        (
            ["x", "--choose", "--imgsz", "224", "--runtime", "torch", "--chart", "charts"],
            "--choose takes no --runtime, --imgsz, --chart.",
        ),
        (["--show", "--threads", "1", "--chart", "charts"], "--show takes no --threads."),
        (["x", "--roofline", "--seconds", "1"], "--roofline takes no --seconds."),
        (
            ["mobilenetv2_050", "--chart", "charts"],
            "a chart needs published networks: there is no published accuracy of mobilenetv2_050",
        ),
    ],
)
def test_a_wrong_call_is_refused(arguments: list[str], message: str, tmp_path: Path) -> None:
    called = edgewise("bench", *arguments, "--store", tmp_path / "bench.sqlite")
    assert (called.status, called.output) == (2, "")
    assert message in called.errors
    assert not any(tmp_path.iterdir())


def test_roofline_holds_the_least_time_against_the_best_measured(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 GMAC/s and a thousand GB/s: arithmetic holds, and each million MACs takes 1 ms."""
    fixed = roofline.Ceiling("fp32", 1, 1.0, ((2**20, 1e3), (2**28, 1e3)))
    Store(store).add([timed("torch-cuda", 0.5)])  # on a GPU, which has other ceilings
    monkeypatch.setattr(roofline, "measure_ceilings", lambda precisions, threads: {"fp32": fixed})
    arguments = ("bench", "mobilenet_v2", "--roofline", "--store", store)
    found = json.loads(edgewise(*arguments, "--json").output)
    (network,) = found["networks"]
    macs = count(variant("mobilenet_v2").spec(), 224).macs
    assert network["ideal_ms"] == pytest.approx(macs / 1e6)
    assert network["measured"]["runtime"] == "onnxruntime"
    assert network["measured"]["times_ideal"] == pytest.approx(7.5 / (macs / 1e6))
    assert {layer["by"] for layer in network["layers"]} == {"arithmetic"}
    text = edgewise(*arguments).output
    assert "fp32, 1 thread: 1 GMAC/s" in text
    assert "mobilenet_v2, 224 px, batch 1, 1 thread, fp32: at least 301 ms" in text
    assert "best measured: onnxruntime, 7.5 ms" in text


def test_roofline_says_how_to_measure_what_it_was_asked_for(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = roofline.Ceiling("int8", 1, 1.0, ((2**28, 1e3),))
    monkeypatch.setattr(roofline, "measure_ceilings", lambda precisions, threads: {"int8": fixed})
    asked = ("--imgsz", 96, "--batch", 2, "--precision", "int8")
    called = edgewise("bench", "mobilenet_v2", "--roofline", *asked, "--store", store)
    words = "not measured yet: edgewise bench mobilenet_v2 --imgsz 96 --batch 2 --precision int8\n"
    assert words in called.output, called.errors


@pytest.mark.parametrize(
    ("error", "status"), [(EdgewiseError("the disk is full"), 1), (UsageError("no such file"), 2)]
)
def test_an_error_does_not_hide_what_was_measured_before(
    error: EdgewiseError, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bench(*arguments: object) -> Iterator[list[Row]]:
        yield from measured
        raise error

    monkeypatch.setattr("edgewise.timing.run.bench", bench)
    path = tmp_path / "bench.sqlite"
    for measured in ([], [[timed("torch", 25.0)]]):
        called = edgewise("bench", "mobilenet_v2", "mobilenet_v1", "--store", path)
        assert (called.status, bool(called.output)) == (status, bool(measured))
        assert called.errors.endswith(f"Error: {error}\n")
        assert "nothing was measured yet" not in called.errors
    assert "25 ms" in called.output
    assert len(Store(path).rows()) == 1


def test_a_chart_of_nothing_does_not_hide_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bench.sqlite"
    arguments = ("bench", "mobilenet_v2", "--chart", tmp_path / "charts", "--store", path)

    def interrupted(*arguments: object) -> Iterator[list[Row]]:
        signal.raise_signal(signal.SIGINT)  # in the first preparation
        yield []

    monkeypatch.setattr("edgewise.timing.run.bench", interrupted)
    called = edgewise(*arguments)
    assert called.status == 130
    assert "no chart: nothing to draw" in called.errors
    assert called.errors.endswith(f"stopped; what was measured is in {path}\n")

    bad = [
        timed("wrong", 5.0, status="wrong", reason="it is far off"),
        timed("refuses", 5.0, status="failed", reason="it has no operator Swish"),
    ]
    for rows in (bad, bad[1:]):
        monkeypatch.setattr("edgewise.timing.run.bench", lambda *_, rows=rows: iter([rows]))
        called = edgewise(*arguments)
        assert called.status == 1
        assert "failed: edgewise refuses fp32: it has no operator Swish" in called.output
        assert "no chart: nothing to draw" in called.errors and "Error" not in called.errors

    def ended(*arguments: object) -> Iterator[list[Row]]:
        yield bad
        raise EdgewiseError("the disk is full")

    monkeypatch.setattr("edgewise.timing.run.bench", ended)
    called = edgewise(*arguments)
    assert called.status == 1
    assert called.errors.endswith("Error: the disk is full\n")
    assert not (tmp_path / "charts").exists()

    shown = edgewise("bench", "--show", *arguments[2:])
    assert shown.status == 2
    assert "Error: nothing to draw" in shown.errors


@pytest.mark.slow
def test_a_wrong_runtime_is_exit_status_1_and_everything_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "bench.sqlite"
    called = edgewise(
        *("bench", "tiny", "--runtime", "right,wrong,refuses", "--imgsz", 32),
        *("--seconds", 0.1, "--store", path),
    )
    assert called.status == 1
    assert "tiny, 32 px, batch 1, 1 thread" in called.output
    assert "wrong: edgewise wrong fp32: its logits are up to" in called.output
    assert "failed: edgewise refuses fp32: it has no operator Swish" in called.output
    assert [(row.runtime, row.status) for row in Store(path).rows()] == [
        ("right", "ok"),
        ("wrong", "wrong"),
        ("refuses", "failed"),
    ]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a process group there")
def test_ctrl_c_keeps_the_rows_of_the_networks_before(tmp_path: Path) -> None:
    """Sent to the whole group, as a terminal does, once the first network is in the store."""
    path = tmp_path / "bench.sqlite"
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "from edgewise.cli.main import main; main()", "bench"),
            *("mobilenet_v3_small", "mobilenet_v2", "--runtime", "torch", "--imgsz", "32"),
            *("--seconds", "0.5", "--store", str(path)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (path.is_file() and Store(path).rows()) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert Store(path).rows()[0].model == "mobilenet_v3_small"
    assert "mobilenet_v3_small, 32 px, batch 1, 1 thread" in output
    assert "stopped; what was measured is in" in errors
    assert "Traceback" not in errors
