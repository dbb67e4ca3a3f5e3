"""Files of other formats than ONNX: as `Format.write` makes them, once, and never by halves."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from search_device import FormulaDevice

from edgewise.deploy.formats import FORMATS, Job
from edgewise.deploy.isolated import Apart
from edgewise.errors import CantWrite, EdgewiseError
from edgewise.files import write_bytes
from edgewise.measure.store import Store
from edgewise.model import Model
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from edgewise.search import graphs, timing_files
from edgewise.search.budget import Budget
from edgewise.search.costs import Candidate
from edgewise.search.device import open_device
from edgewise.search.entrants import entrants
from edgewise.search.survey import Survey, survey
from edgewise.search.timing_files import timed_files, timing_file
from edgewise.search.ways import Way
from edgewise.timing.subject import randomise
from edgewise.weights.create import create_model

pytest.importorskip("onnxruntime")
BF16 = Candidate("tiny", 64, "bf16", "openvino", "openvino")
needs_openvino = pytest.mark.skipif(
    bool(FORMATS["openvino"].missing()), reason="openvino is not installed"
)


class Here(Apart):
    """Work in this process: what it loads may stay, and what it breaks too."""

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)


class Breaking(Here):
    """Leaves half of a file."""

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        args[-1].write_text("<half")
        raise EdgewiseError("openvino can't express this network: it lacks the operator magic")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    return tmp_path


def by_hand(format: str, precision: str, imgsz: int, folder: Path) -> Path:
    """What `Format.write` makes of the same random weights."""
    torch.manual_seed(0)
    network = create_model("tiny", num_classes=2).eval()
    noise = np.random.default_rng(0).integers(0, 256, (4, imgsz, imgsz, 3), dtype=np.uint8)
    rule = Preprocess(imgsz, 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD)
    with torch.no_grad():
        randomise(network, rule.normalise(torch.from_numpy(noise)))
    path = folder / FORMATS[format].file
    images = noise if precision == "int8" else None
    FORMATS[format].write(Job(Model(network, rule, ("0", "1")), precision, path, images, ()))
    return path


@needs_openvino
def test_it_is_what_the_format_writes(tmp_path: Path) -> None:
    made = timing_file(Candidate("tiny", 96, "fp16", "openvino", "openvino"), 2, Here())
    expected = by_hand("openvino", "fp16", 96, tmp_path)
    assert made.name == "model.xml"
    assert made.with_suffix(".bin").read_bytes() == expected.with_suffix(".bin").read_bytes()
    pixels = np.random.default_rng(1).integers(0, 256, (1, 96, 96, 3), dtype=np.uint8)
    (reader,) = FORMATS["openvino"].readers  # the names in an .xml are numbered anew each time
    ours, theirs = (reader.open(path, None).run(pixels) for path in (made, expected))
    np.testing.assert_array_equal(ours, theirs)


@needs_openvino
def test_it_is_kept_until_a_writer_is_another(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing_files, "write_random", lambda *given: given[-1].write_text("made"))
    first = timing_file(BF16, 2, Here())
    with monkeypatch.context() as patch:
        patch.setattr(timing_files, "write_random", None)  # it would be called
        assert timing_file(BF16, 2, Here()) == first
        version = metadata.version
        patch.setattr(metadata, "version", lambda name: "9" + version(name))
        with pytest.raises(TypeError):
            timing_file(BF16, 2, Here())
    monkeypatch.setattr(timing_files, "__version__", "99")  # of ours
    assert timing_file(BF16, 2, Here()) != first
    assert first.read_text() == "made"


def test_data_of_about_as_many_classes_has_the_same_files(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "write_random", lambda *given: write_bytes(given[-1], b"made"))
    (seven,), (ten,), (eleven,) = (
        timed_files([Candidate("tiny", 64, "fp32", "onnxruntime", "onnx")], classes)[0].values()
        for classes in (7, 10, 11)
    )
    assert seven.path == ten.path != eleven.path


@pytest.mark.parametrize(
    ("classes", "timed"),
    [(2, 10), (10, 10), (11, 20), (99, 100), (100, 100), (101, 200), (1000, 1000), (1001, 2000)],
)
def test_classes_are_rounded_up_to_one_digit(classes: int, timed: int) -> None:
    assert timing_files.round_up(classes) == timed


def test_half_a_file_is_never_seen(cache: Path) -> None:
    with pytest.raises(EdgewiseError, match="magic"):
        timing_file(BF16, 2, Breaking())
    assert [path for path in (cache / "graphs").rglob("*") if path.is_file()] == []
    assert not list((cache / "graphs").rglob("openvino-*"))


def test_a_full_disk_is_no_fault_of_a_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As which a search would remember it; however it is met with."""

    def full(*given: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    class Full(Here):
        def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            full()

    plain = Candidate("tiny", 64, "fp32", "onnxruntime")
    for name, candidate in (("Apart", BF16), ("timing_graph", plain)):
        with monkeypatch.context() as patch:
            patch.setattr(timing_files, name, Full if name == "Apart" else full)
            with pytest.raises(CantWrite, match="No space left on device"):
                timed_files([candidate], 2)
    proto = pytest.importorskip("onnx").ModelProto()
    monkeypatch.setattr("edgewise.deploy.onnx.graph_of", lambda model: proto)  # takes seconds
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CantWrite, match=r"can't write .*fp32-64\.onnx: No space left on device"):
        timed_files([plain], 2)


def test_a_format_that_cannot_express_a_network_fails_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(timing_files, "Apart", Breaking)
    device = FormulaDevice()
    work = Survey(device, device.facts(), 2, Store(tmp_path / "devices.sqlite"))
    ways = [Way("onnx", "fp32", "onnxruntime"), Way("openvino", "bf16", "openvino")]
    found = survey(entrants(("tiny",)), ways, Budget.parse("latency=60ms"), work)
    assert [(c.candidate.imgsz, c.candidate.format) for c in found] == [
        *((64, "onnx"), (64, "openvino"), (224, "onnx"))  # not tried again at 224
    ]
    assert found[1].spent is None
    assert found[1].failure.endswith("it lacks the operator magic")
    assert found[2].spent and found[2].spent.median_ms == 224**2 / 1000


@needs_openvino
def test_what_is_asked_of_the_device(tmp_path: Path) -> None:
    """All parts count, and the runtime is told the precision; written in a process of its own."""
    device = FormulaDevice()
    device.runtimes["openvino"] = "2026"
    work = Survey(device, device.facts(), 2, Store(tmp_path / "devices.sqlite"))
    for _ in range(2):  # measured, then looked up
        (cost,) = work.costs([BF16])
        assert cost.spent
        (asked,) = device.asked
        parts = [asked.path, asked.path.with_suffix(".bin")]
        assert cost.spent.size_bytes == sum(part.stat().st_size for part in parts)
        assert (asked.runtime, asked.precision, asked.shape) == ("openvino", "bf16", (1, 64, 64, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "precision"),
    [(name, p) for name in ("litert", "executorch", "ncnn") for p in FORMATS[name].precisions],
)
def test_every_format_is_written_and_timed(format: str, precision: str) -> None:
    """In a process of its own, and for real."""
    if missing := FORMATS[format].missing():
        pytest.skip(f"{missing} is not installed")
    device = open_device("local")
    runtime = FORMATS[format].readers[0].name
    files, failures = timed_files([Candidate("tiny", 64, precision, runtime, format)], 2)
    assert failures == {}
    ((key, seen),) = device.measure(list(files.values()), 0.1).items()
    assert seen.timing and not seen.failure, key
