"""`edgewise profile`: the table, JSON, CSV, page and picture."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from commandline import edgewise
from html_page import Page
from PIL import Image
from small import small_model, write_onnx

import edgewise as package
from edgewise.weights.folder import save_model


def test_the_table_of_a_network() -> None:
    called = edgewise("profile", "mobilenet_v2")
    assert called.status == 0
    lines = called.output.splitlines()
    assert lines[:2] == [
        "mobilenet_v2, input 1 x 3 x 224 x 224",
        "3,504,872 parameters, 300,774,272 MACs",
    ]
    assert "6.02 MB of activations at the peak, in stages.1.0.depthwise.conv" in lines
    assert "Weights: 14 MB in fp32, 7.01 MB in fp16, 3.61 MB in int8" in lines
    rows = [" ".join(line.split()) for line in lines]
    assert "stages.1 17 14 k 54.9 M 18.3% 7.6 M 2.56 M" in rows
    assert "depthwise 17 64.2 k 20.7 M 6.9% 0 2.3 M" in rows
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", ["efficientnet_b3", "mobilenetv2_050"])
def test_width_1_is_the_network_itself_at_its_own_size(name: str) -> None:
    assert edgewise("profile", name, "--width", 1).output == edgewise("profile", name).output


def test_width_multiplies_that_of_another_librarys_name() -> None:
    lines = edgewise("profile", "mobilenetv2_050", "--width", 0.7).output.splitlines()
    assert lines[1] == "1,677,128 parameters, 59,285,808 MACs"


def test_depth_folds_the_tree() -> None:
    def names(depth: int) -> list[str]:
        output = edgewise("profile", "mobilenet_v1", "--depth", depth).output
        tree = output.split("\n\n")[1] if depth else ""
        return [line.split("  ")[0] or line.split()[0] for line in tree.splitlines()[1:]]

    assert names(0) == []
    assert names(1) == ["stem", *(f"stages.{i}" for i in range(5)), "head"]
    assert {"stem.conv", "stages.4.1", "head.classifier"} <= set(names(2))
    called = edgewise("profile", "mobilenet_v1", "--depth", 2).output
    assert "\nstages.4 " in called
    assert "\n  stages.4.1 " in called


def test_json_is_the_profile_of_python() -> None:
    called = edgewise(
        *("profile", "mobilenet_v2", "--width", 0.35, "--imgsz", 96, "--batch", 3, "--in-chans", 1),
        "--json",
    )
    assert called.status == 0
    found = json.loads(called.output)
    spec = package.create_model("mobilenet_v2", width=0.35).spec
    wanted = package.profile(spec, 96, batch=3, in_chans=1)
    assert found["inputs"] == [[3, 1, 96, 96]]
    for name in ("params", "macs", "elementwise", "activations", "peak_memory", "weight_bytes"):
        assert found[name] == getattr(wanted, name)
    assert [layer["macs"] for layer in found["layers"]] == [x.macs for x in wanted.layers]
    assert found["unknown"] == []
    assert {"stages", "kinds", "intensity", "peak_layer"} <= found.keys()


def test_csv_has_a_row_a_layer(tmp_path: Path) -> None:
    path = tmp_path / "layers.csv"
    assert edgewise("profile", "convnext_atto", "--imgsz", 64, "--csv", path).status == 0
    rows = list(csv.DictReader(path.open()))
    profile = package.profile("convnext_atto", 64)
    assert [row["name"] for row in rows] == [layer.name for layer in profile.layers]
    assert sum(int(row["macs"]) for row in rows) == profile.macs
    assert rows[0]["inputs"] == "1x3x64x64 40x3x4x4 40"


def test_csv_of_a_file_that_only_reshapes_has_headings_alone(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 18])],
    )
    opsets = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "flat.onnx")
    flat, full = tmp_path / "flat.csv", tmp_path / "full.csv"
    called = edgewise("profile", tmp_path / "flat.onnx", "--csv", flat)
    assert called.status == 0 and "0 parameters, 0 MACs" in called.output
    edgewise("profile", "mobilenet_v1", "--imgsz", 32, "--csv", full)
    assert flat.read_text().splitlines() == full.read_text().splitlines()[:1]


def test_the_page_has_a_bar_for_each_layer(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert edgewise("profile", "mobilenet_v4_hybrid_medium", "--html", path).status == 0
    page = Page(path.read_text(encoding="utf-8"))
    profile = package.profile("mobilenet_v4_hybrid_medium")
    counted = [layer for layer in profile.layers if layer.macs]
    assert len([d for d in page.named("div") if d.get("class") == "layer"]) == len(counted)
    assert "1,271,183,360" in page.words
    assert [row[0] for row in page.tables["By stage"]] == [
        "stage",
        *(stage.name for stage in profile.stages),
    ]
    widths = [
        float(str(i["style"]).partition(":")[2])
        for i in page.named("i")
        if str(i.get("style")).startswith("--share")
    ]
    assert max(widths) == 1
    assert "://" not in path.read_text(encoding="utf-8")


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    path = tmp_path / "bars.png"
    assert edgewise("profile", "mobilenet_v1", "--png", path).status == 0
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width == 1100
    wrong = edgewise("profile", "mobilenet_v1", "--png", tmp_path / "bars.gif")
    assert (wrong.status, "ends in .png" in wrong.errors) == (2, True)


def test_a_model_folder_and_its_export(tmp_path: Path) -> None:
    model = small_model("mobilenet_v3_large", ("a", "b"), 48)
    save_model(model, tmp_path / "model")
    write_onnx(model, tmp_path / "<b>.onnx")
    folder, file = (
        json.loads(edgewise("profile", tmp_path / source, "--json").output)
        for source in ("model", "<b>.onnx")
    )
    assert folder["inputs"] == [[1, 3, 48, 48]]
    assert (folder["macs"], file["name"]) == (file["macs"], "<b>")
    page = tmp_path / "page.html"
    assert edgewise("profile", tmp_path / "<b>.onnx", "--html", page).status == 0
    assert "&lt;b&gt;" in page.read_text(encoding="utf-8")


def test_unknown_operators_are_printed(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [helper.make_node("Strange", ["x"], ["y"], domain="com.example", name="odd")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 3, 3])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "s.onnx")
    called = edgewise("profile", tmp_path / "s.onnx", "--html", tmp_path / "s.html")
    assert called.status == 0
    assert "Strange in odd: (1, 2, 3, 3) -> (1, 2, 3, 3)" in called.output
    assert "Strange" in Page((tmp_path / "s.html").read_text(encoding="utf-8")).words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mobilenet_v22"], "Nearest: mobilenet_v2"),
        (["convnext_atto", "--imgsz", 31], "The smallest is 32."),
        (["none.onnx"], "no such file: none.onnx"),
        (["none.onnx", "--width", 0.5], "--width is for a model's name"),
        (["mobilenet_v2", "--batch", 0], "--batch"),
        (["mobilenet_v2", "--imgsz", 0], "--imgsz"),
        (["none.onnx", "--imgsz", -5], "--imgsz"),
        (["no/folder"], "is no model"),
        (["mobilenet_v2", "--html", "."], "File '.' is a directory"),
        (["mobilenet_v2", "--csv", "/"], "File '/' is a directory"),
        (["mobilenet_v2", "--png", "."], "File '.' is a directory"),
    ],
)
def test_bad_input(arguments: list[object], words: str) -> None:
    called = edgewise("profile", *arguments)
    assert called.status == 2
    assert words in called.errors
    assert called.output == ""
