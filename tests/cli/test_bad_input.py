"""Bad input through the command line: the status, a message that names the thing, nothing lost."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from commandline import edgewise
from photos import picture, png_bomb, write_photos

TRAIN = "--model tiny --no-pretrained --epochs 2 --batch 8 --imgsz 32 --workers 0"
BAD = {
    "truncated.jpg": "truncated",
    "text.jpg": "not an image",
    "empty.jpg": "0 bytes",
    "bomb.png": "over the limit",
}


def write_bad_images(folder: Path) -> None:
    whole = folder / "whole.jpg"
    picture(0, 200, 200).save(whole)
    data = whole.read_bytes()
    whole.unlink()
    (folder / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (folder / "text.jpg").write_text("a shopping list")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "bomb.png").write_bytes(png_bomb(12_000, 12_000))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, four of them bad, and a run on them; not to be changed."""
    root = tmp_path_factory.mktemp("trained")
    photos = write_photos(root / "photos", {"daisy": 14, "Löwenzahn": 12, "薔薇": 12})
    write_bad_images(photos / "daisy")
    before = digests(photos)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        called = edgewise("train", "photos", *TRAIN.split(), "--name", "first")
    assert called.status == 0, called.errors
    assert digests(photos) == before
    return root


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    shutil.copytree(trained / "photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(*arguments: object) -> str:
    """What a call that must be refused says."""
    called = edgewise(*arguments)
    assert called.status == 2, called.output + called.errors
    assert "Traceback" not in called.errors
    return called.errors


def test_no_such_folder(here: Path) -> None:
    assert "nowhere" in refused("train", "nowhere")


def test_empty_folder(here: Path) -> None:
    (here / "empty").mkdir()
    assert "photos/daisy/1.jpg" in refused("train", "empty")  # what was expected


def test_one_class_only(here: Path) -> None:
    shutil.rmtree(here / "photos" / "薔薇")
    shutil.rmtree(here / "photos" / "Löwenzahn")
    assert "daisy" in refused("train", "photos", *TRAIN.split(), "--name", "second")
    assert not (here / "runs" / "second").exists()


def test_class_with_one_image(here: Path) -> None:
    write_photos(here / "photos", {"tulip": 1})
    assert "tulip" in refused("train", "photos", *TRAIN.split(), "--name", "second")
    assert not (here / "runs" / "second").exists()


def test_bad_images_are_listed_with_their_reason(here: Path) -> None:
    with (here / "runs/first/quarantine.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {Path(row["path"]).name for row in rows} == set(BAD)
    for row in rows:
        assert BAD[Path(row["path"]).name] in row["reason"]
        assert row["label"] == "daisy"


def test_bad_images_are_told_at_the_evaluation(here: Path) -> None:
    with (here / "runs/first/quarantine.csv").open(encoding="utf-8", newline="") as file:
        split_of = {Path(row["path"]).name: row["split"] for row in csv.DictReader(file)}
    told = set()
    for split in ("train", "val", "test"):
        called = edgewise("eval", "runs/first", "--split", split, "--json")
        assert called.status == 0
        evaluation = json.loads(called.output)
        names = {Path(item["path"]).name for item in evaluation["skipped"]}
        assert names == {name for name, of in split_of.items() if of == split}
        assert all(name in called.errors for name in names)
        told |= names
    assert told == set(BAD)


def test_unknown_model(here: Path) -> None:
    message = refused("train", "photos", "--model", "mobilnet_v3")
    assert "mobilenet_v3_large, mobilenet_v3_small" in message
    assert "efficientnet_lite0" in refused("predict", "eficientnet_lite0", "photos")


def test_unknown_format(here: Path) -> None:
    message = refused("export", "runs/first", "--format", "onxx")
    assert "onxx" in message
    assert "onnx" in message


def test_unknown_verb_and_option(here: Path) -> None:
    assert "export" in refused("exprot", "runs/first")
    assert "--epochs" in refused("train", "photos", "--epoch", "3")
    assert "--epochs" in refused("train", "photos", "--epochs", "0")


def test_resume_of_a_run_that_does_not_exist(here: Path) -> None:
    assert "runs/nothing" in refused("train", "--resume", "runs/nothing")
    assert "photos" in refused("train", "--resume", "photos")


def test_resume_from_a_cut_off_checkpoint(here: Path) -> None:
    last = here / "runs/first/checkpoints/last.safetensors"
    last.write_bytes(last.read_bytes()[:1000])
    before = (here / "runs/first/model/model.safetensors").read_bytes()
    called = edgewise("train", "--resume", "runs/first")
    assert called.status == 0
    assert "last.safetensors is cut off" in called.errors
    assert "going on from" in called.errors
    assert "previous.safetensors" in called.errors
    assert "epoch 2/2" in called.output  # done again, and as before
    assert (here / "runs/first/model/model.safetensors").read_bytes() == before


def test_used_name(here: Path) -> None:
    before = digests(here / "runs")
    assert "--resume" in refused("train", "photos", *TRAIN.split(), "--name", "first")
    assert digests(here / "runs") == before


def test_onnx_file_of_another_maker(here: Path) -> None:
    from onnx import TensorProto, helper, save

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([node], "theirs", [value], [output])
    for name, opset in (("theirs.onnx", 18), ("future.onnx", 9999)):
        opsets = [helper.make_opsetid("", opset)]
        save(helper.make_model(graph, ir_version=10, opset_imports=opsets), here / name)
    (here / "letter.onnx").write_text("Dear Sir or Madam")
    reasons = {
        "theirs.onnx": "theirs.onnx was not exported by edgewise",
        "future.onnx": "a version that this onnxruntime doesn't know",
        "letter.onnx": "it is not an ONNX file",
    }
    for name, reason in reasons.items():
        message = refused("predict", name, "photos/daisy")
        assert reason in message
        assert len(message) < 600


def test_spec_edited_into_nonsense(here: Path) -> None:
    path = here / "runs/first/model/spec.json"
    spec = json.loads(path.read_text())
    spec["stages"][1][0]["kernel"] = "banana"
    path.write_text(json.dumps(spec))
    for verb in (["predict", "runs/first", "photos/daisy"], ["export", "runs/first"]):
        message = refused(*verb)
        assert "spec.json" in message
        assert "stages[1][0].kernel" in message


def test_weights_changed_on_disk(here: Path) -> None:
    path = here / "runs/first/model/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert "model.safetensors" in refused("predict", "runs/first", "photos/daisy")


def test_predict_goes_on_past_a_bad_file(here: Path) -> None:
    called = edgewise("predict", "runs/first", "photos/daisy/*", "--json")
    assert called.status == 1
    answers = json.loads(called.output)
    wrong = {Path(answer["path"]).name for answer in answers if "error" in answer}
    assert wrong == set(BAD)
    assert sum("top" in answer for answer in answers) == 14


def test_the_whole_way(here: Path) -> None:
    for line in ("eval runs/first", "export runs/first --format onnx", "verify runs/first"):
        called = edgewise(*line.split())
        assert called.status == 0, called.errors
    called = edgewise("report", "runs/first")
    assert called.status == 0, called.errors
    assert "薔薇" in (here / "runs/first/report.html").read_text(encoding="utf-8")
    assert (here / "runs/first/MODEL_CARD.md").is_file()
    # A broken promise is found out.
    onnx = here / "runs/first/export/onnx-fp32/model.onnx"
    onnx.write_bytes(onnx.read_bytes()[:-1] + b"\x00")
    called = edgewise("verify", "runs/first")
    assert called.status == 1
    assert "model.onnx" in called.output + called.errors
