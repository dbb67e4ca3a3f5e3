"""The ways to ship a network: all that the table of formats has, each computation once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.deploy.formats import FORMATS, PRECISIONS, Format, Reader
from edgewise.errors import UsageError
from edgewise.search.device_client import PACKAGES
from edgewise.search.ways import Way, ways_to


@pytest.fixture
def all_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every package were installed."""
    monkeypatch.setattr(Format, "missing", lambda format: "")
    monkeypatch.setattr(Reader, "version", lambda reader: "1.0")


def words(formats: str, precisions: str, runtimes: str) -> tuple[list[str], tuple[str, ...]]:
    asked = (names.split(",") for names in (formats, precisions, runtimes))
    found, reasons = ways_to(*asked, "ssh:pi@board")
    return [f"{way.format} {way.precision} {way.runtime}" for way in found], reasons


@pytest.mark.usefixtures("all_here")
def test_openvino_gets_its_own_files_where_they_are_asked_for() -> None:
    both = "onnxruntime,openvino"
    onnx = ["onnx fp32 onnxruntime", "onnx int8 onnxruntime"]
    found, reasons = words("onnx,openvino", "fp32,int8", both)
    assert (found, reasons) == ([*onnx, "openvino fp32 openvino", "openvino int8 openvino"], ())
    alone, _ = words("onnx", "fp32,bf16", both)
    assert alone == ["onnx fp32 onnxruntime", "onnx fp32 openvino"]
    assert words("openvino", "fp16", both)[0] == ["openvino fp16 openvino"]


@pytest.mark.usefixtures("all_here")
def test_everything_is_in_the_table_and_nothing_twice() -> None:
    found, reasons = ways_to(list(FORMATS), PRECISIONS, PACKAGES, "local")
    assert len(set(found)) == len(found)
    for way in found:
        format = FORMATS[way.format]
        assert way.precision in format.precisions
        assert way.runtime in [reader.name for reader in format.readers]
    assert {way.runtime for way in found} == set(PACKAGES)
    assert [reason.partition(":")[0] for reason in reasons] == [
        *("coreml", "tensorrt", "torch-export")
    ]
    assert "of the run that the tested file is in: edgewise export RUN --format" in reasons[0]


@pytest.mark.usefixtures("all_here")
def test_a_device_without_the_runtime_is_told_what_to_install() -> None:
    found, reasons = words("onnx,openvino,litert", "fp32,bf16", "onnxruntime")
    assert found == ["onnx fp32 onnxruntime"]
    assert reasons == (
        "openvino: ssh:pi@board has no openvino. Install it there: pip install numpy openvino",
        "litert: ssh:pi@board has no litert. Install it there: pip install numpy ai-edge-litert",
    )


def test_what_is_missing_here_is_named_and_openvino_gets_onnx_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        Format, "missing", lambda format: "" if format.name == "onnx" else format.packages[0]
    )
    monkeypatch.setattr(Reader, "version", lambda reader: "1.0")
    found, (openvino, litert) = words("onnx,openvino,litert", "fp32", "onnxruntime,openvino")
    assert found == ["onnx fp32 onnxruntime", "onnx fp32 openvino"]
    assert "pip install 'edgewise[openvino]'" in openvino
    assert "litert: " in litert and "pip install 'edgewise[litert]'" in litert


def test_what_can_be_written_but_not_checked_here_is_no_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Format, "missing", lambda format: "")
    monkeypatch.setattr(Reader, "version", lambda reader: None)
    found, (reason,) = words("ncnn", "fp32", "ncnn")
    assert found == []
    assert "package 'ncnn'" in reason and "edgewise[ncnn]" in reason


@pytest.mark.usefixtures("all_here")
def test_a_precision_that_no_format_has() -> None:
    found, (own, precision) = words("onnx", "bf16", "onnxruntime")
    assert found == []
    assert own == "onnx: it has no bf16 here, but fp32, int8"
    assert precision == "bf16: onnx can't have it; add --format openvino"
    found, reasons = words("onnx,ncnn", "int8", "onnxruntime,ncnn")
    assert found == ["onnx int8 onnxruntime"]
    assert reasons == ("ncnn: it has no int8 here, but fp32, fp16, bf16",)
    with pytest.raises(UsageError, match="unknown precision 'int4'"):
        words("onnx", "int4", "onnxruntime")
    with pytest.raises(UsageError, match="unknown format 'onx'"):
        words("onx", "int8", "onnxruntime")


@pytest.mark.usefixtures("all_here")
def test_the_docs_have_the_same_table() -> None:
    text = Path(__file__).parents[2].joinpath("docs", "run.md").read_text(encoding="utf-8")
    lines = text.partition("## Formats")[2].partition("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line][2:]
    written = {
        (name.strip("`"), precision, runtime.strip("`"))
        for name, precisions, runtimes in rows
        for precision in precisions.partition(";")[0].split(", ")
        for runtime in runtimes.split(", ")
    }
    found, _ = ways_to(list(FORMATS), PRECISIONS, PACKAGES, "local")
    assert written == {(way.format, way.precision, way.runtime) for way in found}


def test_the_format_is_named_where_it_is_not_the_runtimes_own() -> None:
    assert str(Way("onnx", "int8", "onnxruntime")) == "int8 in onnxruntime"
    assert str(Way("onnx", "int8", "openvino")) == "onnx int8 in openvino"
    assert str(Way("openvino", "bf16", "openvino")) == "bf16 in openvino"
    assert str(Way("litert", "fp16", "litert")) == "fp16 in litert"
    assert Way.of({"precision": "int8", "runtime": "openvino"}).format == "onnx"  # of old searches
