"""Anybody's ONNX file in a benchmark: its inputs, the right answers, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from commandline import edgewise
from fake_runtime import RUNTIMES
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from small import small_model, write_onnx

from edgewise.deploy.onnx import to_onnx
from edgewise.errors import EdgewiseError, UsageError
from edgewise.measure.store import Store, new_row
from edgewise.model import Classifier
from edgewise.timing import onnx_file, roofline, run, runtimes
from edgewise.timing.onnx_file import (
    FileInput,
    FileSubject,
    file_graph,
    make_file_subject,
    read_input,
    right_answers,
    weight_files,
)
from edgewise.timing.plan import make_plan
from edgewise.timing.runtimes import RUNTIMES as REAL
from edgewise.timing.subject import make_subject, open_subject
from edgewise.timing.worker import Job


def save(path: Path, nodes: list[onnx.NodeProto], shape: list[int | str], **weights: object) -> str:
    """A graph from the float input "x" to "y"."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return str(path)


def in_int8() -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    """Eight numbers in int8 and back, times a matrix."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    return nodes, {"s": np.float32(0.1), "z": np.uint8(0), "w": np.ones((8, 3), np.float32)}


def in_half() -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    """Eight numbers times a matrix, in half of a float."""
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["h", "w"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
    ]
    return nodes, {"w": np.ones((8, 3), np.float16)}


@pytest.fixture
def linear(tmp_path: Path) -> str:
    """Means of the channels, times a matrix."""
    weights = np.random.default_rng(0).standard_normal((3, 5), dtype=np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    return save(tmp_path / "linear.onnx", nodes, ["N", 3, "H", "W"], w=weights)


def test_the_right_answers_are_pytorchs(tmp_path: Path) -> None:
    """Of our own export: bytes in, probabilities out; and of a plain one."""
    model = small_model("mobilenet_v3_small", ("a", "b", "c"), 33)
    write_onnx(model, tmp_path / "ours.onnx")
    subject = make_file_subject(tmp_path / "ours.onnx", None, 2)
    assert subject.inputs.shape == (2, 2, 33, 33, 3) and subject.inputs.dtype == np.uint8
    with torch.no_grad():
        pixels = torch.from_numpy(subject.inputs.reshape(-1, 33, 33, 3))
        expected = Classifier(model).eval()(pixels).numpy()
        assert np.abs(subject.right - expected).max() < 1e-5
        plain = to_onnx(model.network, (torch.zeros(1, 3, 40, 40),), "images", "logits")
        onnx.save(plain, tmp_path / "plain.onnx")
        subject = make_file_subject(tmp_path / "plain.onnx", None, 1)
        logits = model.network(torch.from_numpy(subject.inputs[:, 0])).numpy()
    assert subject.shape == (1, 3, 40, 40)
    assert np.abs(subject.right - logits).max() < 1e-4


def test_onnx_runtime_is_asked_only_where_onnx_has_no_answer(
    linear: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gelu = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    theirs = save(tmp_path / "theirs.onnx", [gelu], [1, 4])
    model = onnx.load(theirs)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, theirs)
    x = np.array([[-1.0, 0.0, 1.0, 2.0]], np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(x)).numpy()
    assert np.abs(right_answers(Path(theirs), "x", x) - expected).max() < 1e-6
    monkeypatch.setattr(onnx_file, "_plain_session", None)
    assert right_answers(Path(linear), "x", np.ones((1, 3, 4, 4), np.float32)).shape == (1, 5)
    with pytest.raises(EdgewiseError, match="nobody can say"):
        right_answers(Path(theirs), "x", x)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_real_runtime_gives_the_right_answers(runtime: str, linear: str) -> None:
    if not REAL[runtime].version():
        pytest.skip(f"{runtime} is not installed")
    subject = make_file_subject(Path(linear), 48, 2)
    prepared = REAL[runtime].prepare_file(subject.path, subject.shape, 1)
    answer = np.concatenate([prepared.run(images) for images in subject.inputs])
    assert answer.shape == (4, 5)
    assert np.abs(answer - subject.right).max() < 1e-5


def test_what_openvino_lacks_is_named(tmp_path: Path) -> None:
    """Its message begins with where in its source it found out."""
    if not REAL["openvino"].version():
        pytest.skip("openvino is not installed")
    magic = helper.make_node("Magic", ["x"], ["y"], domain="me")
    path = save(tmp_path / "odd.onnx", [magic], [1, 4])
    with pytest.raises(EdgewiseError, match=r"openvino can't take it: RuntimeError: .*me\.Magic"):
        REAL["openvino"].prepare_file(Path(path), (1, 4), 1)


def test_free_sides_are_filled_and_another_process_sees_the_same(
    linear: str, tmp_path: Path
) -> None:
    (group,) = make_plan([linear], RUNTIMES, ["right"], imgsz=48, batch=2)
    assert (group.imgsz, group.batch, [str(c) for c in group.candidates]) == (48, 2, ["right fp32"])
    (group,) = make_plan([linear], RUNTIMES, ["right"])
    assert (group.imgsz, group.batch) == (224, 1)
    made = make_file_subject(Path(linear), 48, 2)
    (tmp_path / "shared").mkdir()
    made.save(tmp_path / "shared")
    opened = open_subject(tmp_path / "shared")
    assert opened.graph == made.graph != make_file_subject(Path(linear), 64, 2).graph
    assert np.array_equal(opened.inputs, made.inputs) and np.array_equal(opened.right, made.right)


@pytest.mark.parametrize("shape", [[1, 3, 48, 32], ["N", 3, 48, "W"]])
def test_an_image_needs_not_be_square(
    shape: list[int | str], linear: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a file is timed and counted at its own shape, and its rows are found again."""
    model = onnx.load(linear)
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, shape))
    onnx.save(model, linear)
    wide = (1, 3, 48, 32 if shape[3] == 32 else 224)
    (group,) = make_plan([linear], RUNTIMES, ["right"])
    assert group.imgsz == 0
    subject = make_subject(linear, group.imgsz, group.batch)
    assert subject.shape == wide
    monkeypatch.setattr(runtimes, "RUNTIMES", RUNTIMES)
    fixed = roofline.Ceiling("fp32", 1, 1.0, ((2**28, 1e3),))
    monkeypatch.setattr(roofline, "measure_ceilings", lambda precisions, threads: {"fp32": fixed})
    store = ["--store", tmp_path / "s.sqlite"]
    roof = edgewise("bench", linear, "--roofline", *store)
    assert roof.status == 0, roof.errors
    assert f"{linear}, batch 1, 1 thread, fp32: at least" in roof.output
    assert f"not measured yet: edgewise bench {linear}\n" in roof.output
    row = new_row("2026-01-01", 0.1, linear, subject.graph, 0, 1, 1)
    ours = {"library": "edgewise", "runtime": "right", "precision": "fp32"}
    Store(store[1]).add([replace(row, **ours, median_ms=2.0, rounds_ms=(2.0,) * 6)])
    said = edgewise("bench", linear, "--choose", *store)
    assert f"{linear}, batch 1, 1 thread: right fp32, 2 ms" in said.output
    assert "best measured: right, 2 ms" in edgewise("bench", linear, "--roofline", *store).output


def test_only_square_images_have_one_size() -> None:
    for shape, imgsz in (
        ((1, 3, 48, 48), 48),
        ((1, 48, 48, 3), 48),
        ((1, 3, 48, 32), 0),
        ((1, 48, 32, 3), 0),
        ((1, 8), 0),
    ):
        assert FileInput("x", shape, np.dtype(np.float32), "fp32").imgsz == imgsz


@pytest.mark.parametrize(("precision", "ceiling"), [("int8", "int8"), ("fp16", "bf16")])
def test_the_roofline_of_a_file_is_that_of_its_own_precision(
    precision: str, ceiling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes, weights = in_int8() if precision == "int8" else in_half()
    path = save(tmp_path / "file.onnx", nodes, [1, 8], **weights)
    asked: list[tuple[str, ...]] = []

    def measure(precisions: tuple[str, ...], threads: int) -> dict[str, roofline.Ceiling]:
        asked.append(precisions)
        return {p: roofline.Ceiling(p, threads, 1.0, ((2**28, 1e3),)) for p in precisions}

    monkeypatch.setattr(runtimes, "RUNTIMES", RUNTIMES)
    monkeypatch.setattr(roofline, "measure_ceilings", measure)
    row = new_row("2026-01-01", 0.1, path, file_graph(Path(path), (1, 8)), 0, 1, 1)
    ours = {"library": "edgewise", "runtime": "right", "precision": precision}
    store = ["--store", tmp_path / "s.sqlite"]
    roof = ("bench", path, "--roofline", *store)
    assert f"not measured yet: edgewise bench {path}\n" in edgewise(*roof).output
    Store(store[1]).add([replace(row, **ours, median_ms=2.0, rounds_ms=(2.0,) * 6)])
    said = edgewise(*roof).output
    assert asked == [(ceiling,)] * 2
    assert f"1 thread, {precision}: at least" in said
    assert "best measured: right, 2 ms" in said


def test_a_file_that_multiplies_nothing_is_no_number_of_times_its_least_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "relu.onnx", [helper.make_node("Relu", ["x"], ["y"])], [1, 8])
    monkeypatch.setattr(runtimes, "RUNTIMES", RUNTIMES)
    fixed = roofline.Ceiling("fp32", 1, 1.0, ((2**28, 1e3),))
    monkeypatch.setattr(roofline, "measure_ceilings", lambda precisions, threads: {"fp32": fixed})
    row = new_row("2026-01-01", 0.1, path, file_graph(Path(path), (1, 8)), 0, 1, 1)
    ours = {"library": "edgewise", "runtime": "right", "precision": "fp32"}
    store = ["--store", tmp_path / "s.sqlite"]
    Store(store[1]).add([replace(row, **ours, median_ms=2.0, rounds_ms=(2.0,) * 6)])
    said = edgewise("bench", path, "--roofline", *store)
    assert "at least 0 ms" in said.output and "best measured: right, 2 ms\n" in said.output
    (network,) = json.loads(edgewise("bench", path, "--roofline", "--json", *store).output)[
        "networks"
    ]
    assert network["measured"] == {"runtime": "right", "median_ms": 2.0, "times_ideal": None}


def test_weights_in_a_file_beside_it_are_part_of_it(linear: str, tmp_path: Path) -> None:
    apart, saved = tmp_path / "apart", tmp_path / "saved"
    data = apart / "weights" / "linear.data"
    for folder in (data.parent, saved):
        folder.mkdir(parents=True)
    options = {"save_as_external_data": True, "size_threshold": 0}
    onnx.save(onnx.load(linear), apart / "a.onnx", location="weights/linear.data", **options)
    subject = make_file_subject(apart / "a.onnx", 48, 2)
    assert np.array_equal(subject.right, make_file_subject(Path(linear), 48, 2).right)
    assert subject.bytes == (apart / "a.onnx").stat().st_size + data.stat().st_size
    subject.save(saved)
    opened = open_subject(saved)
    assert isinstance(opened, FileSubject)
    assert opened.graph == subject.graph
    prepared = REAL["onnxruntime"].prepare_file(opened.path, opened.shape, 1)
    answer = np.concatenate([prepared.run(images) for images in opened.inputs])
    assert np.abs(answer - opened.right).max() < 1e-5
    data.write_bytes(bytes(data.stat().st_size))
    assert subject.graph != opened.graph  # other weights in the same graph
    data.unlink()
    with pytest.raises(UsageError, match=r"no such file: .*linear\.data, with weights of a\.onnx"):
        make_plan([str(apart / "a.onnx")], RUNTIMES)
    model = onnx.load(apart / "a.onnx", load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../linear.onnx"
    onnx.save(model, apart / "b.onnx")
    with pytest.raises(UsageError, match=r"b\.onnx looks for weights in \.\./linear\.onnx"):
        make_plan([str(apart / "b.onnx")], RUNTIMES)


def test_constants_of_nodes_and_of_inner_graphs_are_looked_for_too(tmp_path: Path) -> None:
    def apart(name: str) -> onnx.TensorProto:
        tensor = numpy_helper.from_array(np.ones(4, np.float32), name)
        external_data_helper.set_external_data(tensor, f"{name}.data")
        (tmp_path / f"{name}.data").write_bytes(tensor.raw_data)
        return tensor

    y = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])]
    constant = helper.make_node("Constant", [], ["y"], value=apart("inner"))
    branch = helper.make_graph([constant], "branch", [], y)
    nodes = [
        helper.make_node("Constant", [], ["c"], value=apart("outer")),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
    ]
    save(tmp_path / "nested.onnx", nodes, [4], yes=True)
    assert weight_files(tmp_path / "nested.onnx") == [
        tmp_path / "inner.data",
        tmp_path / "outer.data",
    ]


def test_a_file_has_its_own_precision(tmp_path: Path) -> None:
    nodes, weights = in_int8()
    path = save(tmp_path / "int8.onnx", nodes, [1, 8], **weights)
    assert read_input(Path(path), None, 1).precision == "int8"
    nodes, weights = in_half()
    path = save(tmp_path / "half.onnx", nodes, [1, 8], **weights)
    taken = read_input(Path(path), None, 1)
    assert (taken.precision, taken.shape, taken.imgsz) == ("fp16", (1, 8), 0)


def test_what_can_not_be_timed(linear: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run by onnxruntime, openvino, not by torch"):
        make_plan([linear], REAL, ["torch"])
    with pytest.raises(UsageError, match=r"no such file: .*gone\.onnx"):
        make_plan([str(tmp_path / "gone.onnx")], RUNTIMES)
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(UsageError, match=r"text\.onnx is not an ONNX file"):
        make_plan([str(tmp_path / "text.onnx")], RUNTIMES)
    fixed = save(tmp_path / "fixed.onnx", [helper.make_node("Relu", ["x"], ["y"])], [1, 3, 32, 32])
    with pytest.raises(UsageError, match="fixed at 32, not 64"):
        make_plan([fixed], RUNTIMES, imgsz=64)
    two = onnx.load(fixed)
    two.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    onnx.save(two, tmp_path / "two.onnx")
    with pytest.raises(UsageError, match="takes 2 inputs"):
        make_plan([str(tmp_path / "two.onnx")], RUNTIMES)
    odd = save(
        tmp_path / "odd.onnx", [helper.make_node("Magic", ["x"], ["y"], domain="me")], [1, 4]
    )
    with pytest.raises(EdgewiseError, match="nobody can say what its right answers are"):
        right_answers(Path(odd), "x", np.zeros((1, 4), np.float32))


def test_a_file_without_right_answers_fails_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worker(job: Job) -> None:
        raise EdgewiseError(f"{job.model} came to a worker")

    monkeypatch.setattr(run, "Worker", worker)
    magic = helper.make_node("Magic", ["x"], ["y"], domain="me")
    odd = save(tmp_path / "odd.onnx", [magic], ["N", 3, "H", "W"])
    model = onnx.load(odd)
    model.opset_import.append(helper.make_opsetid("me", 1))
    onnx.save(model, odd)
    plan = make_plan([odd, "tiny"], RUNTIMES, ["right", "wrong"], imgsz=32)
    first, second = run.bench(plan, RUNTIMES)
    assert [(row.model, row.runtime, row.status) for row in first] == [
        (odd, "right", "failed"),
        (odd, "wrong", "failed"),
    ]
    assert "nobody can say what its right answers are" in first[0].reason
    assert {row.graph for row in first} == {file_graph(Path(odd), (1, 3, 32, 32))}
    assert {row.reason for row in second} == {"tiny came to a worker"}


def test_numbers_of_another_file_of_that_name_are_not_its_own(
    linear: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "RUNTIMES", RUNTIMES)
    fixed = roofline.Ceiling("fp32", 1, 1.0, ((2**28, 1e3),))
    monkeypatch.setattr(roofline, "measure_ceilings", lambda precisions, threads: {"fp32": fixed})
    row = new_row("2026-01-01", 0.1, linear, file_graph(Path(linear), (1, 3, 32, 32)), 32, 1, 1)
    ours = {"library": "edgewise", "runtime": "right", "precision": "fp32"}
    store = ["--store", tmp_path / "s.sqlite"]
    Store(store[1]).add([replace(row, **ours, median_ms=2.0, rounds_ms=(2.0,) * 6)])
    chosen = edgewise("bench", linear, "--choose", *store)
    assert chosen.status == 0 and "right fp32, 2 ms" in chosen.output
    roof = ("bench", linear, "--roofline", "--imgsz", 32, *store)
    assert "best measured: right, 2 ms" in edgewise(*roof).output
    save(Path(linear), [helper.make_node("Relu", ["x"], ["y"])], ["N", 3, "H", "W"])
    chosen = edgewise("bench", linear, "--choose", *store)
    assert chosen.status == 2 and f"Run: edgewise bench {linear}" in chosen.errors
    assert "not measured yet" in edgewise(*roof).output


@pytest.mark.slow
def test_the_verb(linear: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One reads it, one wrongly, one can't, and one has no use for ONNX files."""
    monkeypatch.setattr(runtimes, "RUNTIMES", RUNTIMES)
    store = ["--store", tmp_path / "s.sqlite"]
    said = edgewise("bench", linear, "--imgsz", 32, "--seconds", 0.1, "--json", *store)
    rows = {row["runtime"]: row for row in json.loads(said.output)}
    assert said.status == 1
    assert {name: row["status"] for name, row in rows.items()} == {
        "right": "ok",
        "wrong": "wrong",
        "refuses": "failed",
    }
    assert "no operator Det" in rows["refuses"]["reason"]
    assert rows["right"]["imgsz"] == 32 and rows["right"]["model"] == linear
    chosen = edgewise("bench", linear, "--choose", *store)
    assert chosen.status == 0 and "right fp32" in chosen.output
    wide = save(tmp_path / "wide.onnx", [helper.make_node("Flatten", ["x"], ["y"])], [1, 3, 48, 32])
    said = edgewise("bench", wide, "--runtime", "right", "--seconds", 0.1, *store)
    assert said.status == 0 and f"{wide}, batch 1, 1 thread" in said.output, said.errors
