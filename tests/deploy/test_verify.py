"""`verify` passes what is right, and names each thing that was done to a run to make it wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from closed import close
from commandline import edgewise
from not_installed import READS_ONNX, not_installed
from onnx import helper, numpy_helper
from scipy.stats import binomtest
from small import small_model

from edgewise.cli.artifacts import verified_table
from edgewise.data.dataset import read_dataset
from edgewise.data.decode import decode
from edgewise.deploy.artifact import GOLDEN, INFO, MAIN
from edgewise.deploy.formats import FORMATS
from edgewise.deploy.isolated import NotStartedError
from edgewise.deploy.predictor import open_predictor, ways
from edgewise.deploy.verification import NOT_RUN, Seen, Verification
from edgewise.deploy.verify import TOLERANCE, verify, verify_alone
from edgewise.errors import EdgewiseError
from edgewise.files import MANIFEST, sha256_file, write_manifest
from edgewise.run_folder import Run
from edgewise.weights.folder import load_model, save_model


def rewrite(run: Run, change: Callable[[onnx.ModelProto], None]) -> None:
    """Changes the exported file and makes its manifest fit, as a careful forger would."""
    path = run.exports / MAIN / "model.onnx"
    file = onnx.load(path)
    change(file)
    onnx.save(file, path)
    remake_manifest(path.parent)


def remake_manifest(folder: Path) -> None:
    write_manifest(folder, [file.name for file in folder.iterdir() if file.name != MANIFEST])


def edit_metadata(file: onnx.ModelProto, **changes: object) -> None:
    entries = {entry.key: entry.value for entry in file.metadata_props}
    ours = {**json.loads(entries["edgewise"]), **changes}
    helper.set_model_props(file, {"edgewise": json.dumps(ours)})


def test_an_untouched_run_passes(run: Run) -> None:
    predictor = open_predictor(run.model)
    samples = read_dataset(run).splits["val"]
    pixels = np.stack([predictor.preprocess.pixels(decode(sample.path)) for sample in samples])
    top = predictor.probabilities(pixels).argmax(1)
    right = [sample.label == best for sample, best in zip(samples, top, strict=True)]
    said = edgewise("verify", run.root)
    assert said.status == 0, said.output
    assert said.output.splitlines()[-1] == "PASS"
    whole = json.loads(run.verification.read_text())
    (seen,) = whole["artifacts"]
    assert whole["passed"] and whole["skipped"] == [] and whole["split"] == "val"
    assert (seen["status"], seen["failures"]) == ("passed", [])
    again = json.loads(edgewise("verify", run.root, "--json").output)
    for told in (whole, again):
        for time in ("median_ms", "p90_ms"):
            assert told["artifacts"][0].pop(time) > 0
    assert again == whole
    assert seen["images"] == len(pixels) > 0
    assert seen["golden"] == 16
    assert seen["agreement"] == 1.0
    accuracy = pytest.approx(sum(right) / len(right))
    assert seen["accuracy_model"] == seen["accuracy"] == accuracy
    interval = binomtest(sum(right), len(right)).proportion_ci(method="wilson")
    assert (seen["accuracy_low"], seen["accuracy_high"]) == pytest.approx(tuple(interval))
    assert 0 <= seen["largest_difference"] < 1e-5
    assert 0 <= seen["golden_largest_difference"] < 1e-5
    assert (seen["name"], seen["format"], seen["precision"]) == (MAIN, "onnx", "fp32")
    assert seen["file"] == "export/onnx-fp32/model.onnx"
    assert seen["runtime"].startswith("onnxruntime ")
    assert seen["bytes"] == (run.exports / MAIN / "model.onnx").stat().st_size


def flip_a_byte(run: Run) -> None:
    path = run.exports / MAIN / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_off(run: Run) -> None:
    path = run.exports / MAIN / "model.onnx"
    path.write_bytes(path.read_bytes()[:1000])


def drop(name: str) -> Callable[[Run], None]:
    return lambda run: (run.exports / MAIN / name).unlink()


def cut_manifest(lines: int, more: int = 0) -> Callable[[Run], None]:
    """Keeps so many lines, and so many bytes of the next."""

    def harm(run: Run) -> None:
        path = run.exports / MAIN / MANIFEST
        whole = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(whole[:lines]) + whole[lines][:more])

    return harm


def damage_golden(run: Run) -> None:
    """The first compressed byte, behind the first member's header, name and extra field."""
    path = run.exports / MAIN / GOLDEN
    data = bytearray(path.read_bytes())
    name, extra = (int.from_bytes(data[at : at + 2], "little") for at in (26, 28))
    data[30 + name + extra] |= 0b110  # a kind of block that there is not
    path.write_bytes(data)


def golden_of(**arrays: np.ndarray) -> Callable[[Run], None]:
    def harm(run: Run) -> None:
        path = run.exports / MAIN / GOLDEN
        with np.load(path) as kept:
            np.savez(path, **{**kept, **arrays})

    return harm


def damage_metadata(run: Run) -> None:
    path = run.exports / MAIN / "model.onnx"
    data = path.read_bytes()
    assert "é".encode() in data
    path.write_bytes(data.replace("é".encode(), b"\x43\xa9"))


def say(field: str, value: object) -> Callable[[Run], None]:
    """In artifact.json."""

    def harm(run: Run) -> None:
        path = run.exports / MAIN / INFO
        path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))

    return harm


def drop_label_of_the_model(run: Run) -> None:
    path = run.model / "labels.txt"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(True)[:-1]), "utf-8")


def drop_label_of_the_file(run: Run) -> None:
    rewrite(run, lambda file: edit_metadata(file, labels=["café", "cat"]))


def swap_labels_of_the_file(run: Run) -> None:
    rewrite(run, lambda file: edit_metadata(file, labels=["cat", "café", "犬"]))


def other_crop(run: Run) -> None:
    rule = json.loads((run.model / "preprocess.json").read_text())
    rewrite(run, lambda file: edit_metadata(file, preprocess={**rule, "crop": 1.0}))


def scale_a_weight(by: float) -> Callable[[Run], None]:
    def change(file: onnx.ModelProto) -> None:
        (tensor,) = (t for t in file.graph.initializer if t.name.endswith("classifier.weight"))
        values = numpy_helper.to_array(tensor) * np.float32(by)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    return lambda run: rewrite(run, change)


def train_on(run: Run) -> None:
    model = load_model(run.model)
    with torch.no_grad():
        model.network.head.classifier.weight.mul_(-1)
    save_model(model, run.model)


def disagree_on_images_elsewhere(run: Run) -> None:
    """A CSV file names images by whole paths, wherever they are."""
    photos = read_dataset(run).root
    elsewhere = photos.rename(photos.with_name("elsewhere"))
    photos.mkdir()
    header, *rows = run.split.read_text(encoding="utf-8").splitlines()
    rows = [f"{elsewhere}/{row}" for row in rows]
    run.split.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    scale_a_weight(-1)(run)


def other_labels_and_fewer(run: Run) -> None:
    """A model of two classes in the place of the one that was exported."""
    save_model(small_model("mobilenet_v2", ("café", "cat"), size=33), run.model)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (flip_a_byte, ["export/onnx-fp32/model.onnx was changed"]),
        (cut_off, ["export/onnx-fp32/model.onnx was changed", "can't be read as ONNX"]),
        (
            lambda run: (run.exports / MAIN / "model.onnx").unlink(),
            ["export/onnx-fp32/model.onnx is missing"],
        ),
        (
            lambda run: (run.exports / MAIN / "golden.npz").unlink(),
            ["export/onnx-fp32/golden.npz is missing"],
        ),
        (damage_golden, ["golden.npz was changed", "golden.npz: Error -3 while decompressing"]),
        (golden_of(pixels=np.zeros((16, 33, 33), np.uint8)), ["arrays don't fit together"]),
        (golden_of(answers=np.zeros((16, 2), np.float32)), ["arrays don't fit together"]),
        (damage_metadata, ["model.onnx was changed", "can't be read as ONNX", "can't decode"]),
        (drop("labels.txt"), ["onnx-fp32/labels.txt is missing", "no such file"]),
        (say("format", "onny"), ["artifact.json was changed", "unknown format 'onny'"]),
        (say("precision", "fp33"), ["unknown precision 'fp33'"]),
        (say("precision", "bf16"), ["onnx has no bf16 here"]),
        (say("batch", -1), ["artifact.json: batch: must be one of 0, 1, not -1"]),
        (say("input", "pixelt"), ["input: must be one of pixels, normalised, not 'pixelt'"]),
        (say("file", "../model.onnx"), ["must be the name of a file in the folder"]),
        (say("file", "model.onnz"), ["model.onnz is missing"]),
        (say("input", "normalised"), ["model.onnx can't be computed by onnxruntime"]),
        (cut_manifest(0), ["MANIFEST.sha256 is empty", "golden.npz is not in MANIFEST.sha256"]),
        (cut_manifest(2), ["onnx-fp32/model.onnx is not in MANIFEST.sha256"]),
        (cut_manifest(1, 40), ["MANIFEST.sha256 is damaged in line 2"]),
        (lambda run: (run.model / "spec.json").unlink(), ["model folder: it has no spec.json"]),
        (drop_label_of_the_model, ["labels.txt", "2 labels for the 3 classes"]),
        (drop_label_of_the_file, ["model.onnx", "2 labels", "don't fit its graph"]),
        (swap_labels_of_the_file, ["label 0 is 'cat', in the model 'café'"]),
        (other_crop, ["crop=1.0", "crop=0.9"]),
        (scale_a_weight(0.5), ["golden inputs", "probabilities differ by up to"]),
        (scale_a_weight(-1), ["images have another top class", "such as"]),
        (disagree_on_images_elsewhere, ["images have another top class", "/elsewhere/"]),
        (scale_a_weight(float("nan")), ["probabilities differ by up to 1.0e+00"]),
        (train_on, ["it was trained on since", "images have another top class"]),
        (other_labels_and_fewer, ["has 3 labels, the model 2:"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_wrong_is_named(harm: Callable[[Run], None], words: list[str], run: Run) -> None:
    harm(run)
    said = edgewise("verify", run.root)
    assert said.status == 1
    assert said.output.splitlines()[-1] == "FAIL"
    assert all(word in said.output.replace("\\", "/") for word in words), said.output
    seen = json.loads(run.verification.read_text())  # what failed is on record
    assert not seen["passed"] and seen["artifacts"][0]["failures"]
    assert "NaN" not in run.verification.read_text()


def test_a_runtime_that_is_not_installed_is_no_fault_of_the_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = shutil.copytree(run.exports / MAIN, tmp_path / MAIN)
    verify(run)
    told = json.loads(run.verification.read_text())
    not_installed(monkeypatch, *READS_ONNX)
    for folder in (run.root, alone):
        said = edgewise("verify", folder)
        assert said.status == 2, said.output
        assert said.output.splitlines()[-1] == "NOT ALL RUN"
        assert NOT_RUN in said.output and "failure" not in said.output
        assert "pip install 'edgewise[onnx]'" in said.output
        seen = json.loads(edgewise("verify", folder, "--json").output)
        (item,) = seen.get("artifacts", [seen])
        assert (item["status"], item["runtime"], item["failures"]) == (NOT_RUN, "", [])
    assert json.loads(run.verification.read_text()) == told  # seen where it was installed
    run.verification.unlink()
    assert verify(run).passed
    (item,) = json.loads(run.verification.read_text())["artifacts"]
    assert item["status"] == NOT_RUN
    flip_a_byte(run)
    said = edgewise("verify", run.root)
    assert said.status == 1 and "model.onnx was changed" in said.output


def test_a_process_that_does_not_start_is_no_fault_of_the_file(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_started(_work: object) -> None:
        raise NotStartedError("can't start a process")

    monkeypatch.setattr("edgewise.deploy.verify.TRUSTED", ())
    monkeypatch.setattr("edgewise.deploy.verify.isolated", not_started)
    with pytest.raises(NotStartedError):
        verify(run)
    assert not run.verification.exists()
    with pytest.raises(NotStartedError):
        verify_alone(run.exports / MAIN)


def test_what_was_seen_is_told_where_it_can_not_be_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, value: object) -> None:
        raise EdgewiseError(f"can't write {path}: Read-only file system")

    monkeypatch.setattr("edgewise.deploy.verify.write_json", read_only)
    said = edgewise("verify", run.root)
    assert said.status == 0 and said.output.splitlines()[-1] == "PASS", said.errors
    assert said.errors == f"not kept: can't write {run.verification}: Read-only file system\n"
    flip_a_byte(run)
    assert edgewise("verify", run.root).output.splitlines()[-1] == "FAIL"


def test_verifying_one_file_keeps_the_record_of_the_others(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgewise.deploy.verify.SECONDS", 0.01)
    others = [run.exports / name for name in ("again", "gone", "other")]
    for folder in others:
        shutil.copytree(run.exports / MAIN, folder)
    verify(run)
    assert [seen.name for seen in verify(run, ["again"]).artifacts] == ["again"]
    assert recorded(run) == ["again", "gone", MAIN, "other"]
    assert list(ways(run.root)) == ["torch", *ways(run.exports / MAIN)]  # `predict` has it still
    shutil.rmtree(run.exports / "gone")
    (run.exports / "other" / "model.onnx").write_bytes(b"another file")
    verify(run, ["again"])
    assert recorded(run) == ["again", MAIN]
    train_on(run)  # what was seen before is of another model
    assert not verify(run, ["again"]).passed
    assert recorded(run) == ["again"]
    edited = json.dumps({"model_sha256": sha256_file(run.weights), "artifacts": [{}]})
    for damaged in ("not JSON", "[]", edited):
        run.verification.write_text(damaged)
        verify(run, ["again"])
        assert recorded(run) == ["again"]


def test_the_table_tells_how_good_the_model_is_in_each_arithmetic() -> None:
    def told(**accuracies: float) -> list[str]:
        seen = tuple(
            replace(Seen(name, "", precision=name), images=200, accuracy_model=accuracy)
            for name, accuracy in accuracies.items()
        )
        lines = verified_table(Verification("", "val", (), 1e-4, 0.01, seen)).splitlines()
        return lines[1 + len(seen) :]

    float_only, int8_only = told(fp16=0.9, fp32=0.9), told(int8=0.9)
    assert float_only == int8_only == told(fp32=0.9, int8=0.9) == [
        "the model in PyTorch: 90.0% of 200 val images"
    ]  # fmt: skip
    assert told(int8=0.95, fp32=0.9) == [  # it learned int8
        "the model in PyTorch in float: 90.0% of 200 val images",
        "the model in PyTorch in int8: 95.0% of 200 val images",
    ]


def recorded(run: Run) -> list[str]:
    return [item["name"] for item in json.loads(run.verification.read_text())["artifacts"]]


def test_a_tie_is_no_disagreement(run: Run) -> None:
    """Two classes that are as good as equal may come in either order."""
    model = load_model(run.model)
    weight, bias = model.network.head.classifier.parameters()
    with torch.no_grad():
        weight[0] = weight[1]
        bias.copy_(torch.tensor([50.0, 50.0, 0.0]))
    save_model(model, run.model)

    def prefer_the_second(file: onnx.ModelProto) -> None:
        arrays = {
            "network.head.classifier.weight": weight.detach().numpy(),
            "network.head.classifier.bias": (bias.detach() + torch.tensor([0, 1e-5, 0])).numpy(),
        }
        for tensor in file.graph.initializer:
            if tensor.name in arrays:
                tensor.CopyFrom(numpy_helper.from_array(arrays.pop(tensor.name), tensor.name))
        assert not arrays

    rewrite(run, prefer_the_second)
    (seen,) = verify(run).artifacts
    assert seen.agreement is not None and seen.agreement < 1
    assert seen.largest_difference is not None and seen.largest_difference < TOLERANCE
    assert not [failure for failure in seen.failures if "top class" in failure]


def test_unreadable_images_are_counted_and_named(run: Run) -> None:
    dataset = read_dataset(run)
    first, second, third, *others = [sample.path for sample in dataset.splits["val"]]
    first.unlink()
    second.write_bytes(b"")
    third.write_bytes(others[0].read_bytes())
    run.quarantine.write_text("path,label,split,reason\ncat/bad.png,cat,val,damaged\n")
    said = edgewise("verify", run.root)
    assert said.status == 0, said.output
    seen = json.loads(run.verification.read_text())
    assert seen["artifacts"][0]["images"] == len(others)
    names = {dataset.relative(path) for path in (first, second, third)}
    assert {item["path"] for item in seen["skipped"]} == names | {"cat/bad.png"}
    assert all(name in said.output for name in names)
    assert "it holds other bytes than when the run began" in said.output
    for path in others:
        path.unlink()
    said = edgewise("verify", run.root)
    assert said.status == 1
    assert "no image of the split val can be read" in said.output


def test_a_run_that_was_not_exported(run: Run) -> None:
    shutil.rmtree(run.exports)
    said = edgewise("verify", run.root)
    assert said.status == 2
    assert f"edgewise export {run.root} --format onnx" in said.errors
    assert not run.verification.exists()


def test_no_run_at_all(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        said = edgewise("verify", path)
        assert said.status == 2 and str(path) in said.errors


def test_images_that_may_not_be_looked_at_are_as_if_gone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that was copied from a user whose home is closed to others."""
    home = run.root / "home"
    data = json.loads(run.data.read_text())
    run.data.write_text(json.dumps({**data, "root": str(home / "photos")}))
    close(home, monkeypatch)
    note = f"can't read the images of this run: {home / 'photos'}: Permission denied"
    for verb in ("export", "verify"):
        said = edgewise(verb, run.root)
        assert said.status == 0 and note in said.output, said.errors
    for command in (("eval",), ("export", "--precision", "int8"), ("train", "--resume")):
        said = edgewise(*command, run.root)
        assert said.status == 2 and note in said.errors


def test_without_its_images_a_run_is_held_to_the_golden_inputs(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgewise.deploy.verify.SECONDS", 0.01)
    verify(run)
    told = run.verification.read_text()
    data = json.loads(run.data.read_text())
    run.data.write_text(json.dumps({**data, "root": str(run.root / "gone")}))
    note = f"the images of this run are gone: {run.root / 'gone'}"
    for command in (("verify", run.root), ("verify", run.exports / MAIN), ("export", run.root)):
        said = edgewise(*command)
        assert said.status == 0, said.errors
        assert said.output.splitlines()[1].split()[-1] == "passed" and note in said.output
    seen = json.loads(edgewise("verify", run.root, "--json").output)
    (item,) = seen["artifacts"]
    assert (item["golden"], item["agreement"], item["images"]) == (16, 1.0, 0)
    assert item["golden_largest_difference"] < 1e-5 and item["accuracy"] is None
    assert seen["gone"].startswith(note)
    for harm, words in (
        (train_on, "it was trained on since"),
        (scale_a_weight(0.5), "the answers of export/onnx-fp32/model.onnx to the golden inputs"),
        (flip_a_byte, "model.onnx was changed"),
    ):
        harm(run)
        said = edgewise("verify", run.root)
        assert said.status == 1 and words in said.output.replace("\\", "/")
    assert run.verification.read_text() == told  # of what was compared on images


def test_an_export_tells_of_its_files_where_they_can_not_be_verified(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = replace(FORMATS["ncnn"], packages=("no-such-package",))
    monkeypatch.setitem(FORMATS, "ncnn", absent)
    run.data.write_text("{}")
    said = edgewise("export", run.root, "--format", "onnx,ncnn")
    assert said.status == 1
    assert str(run.exports / MAIN) in said.output
    failed = [line for line in said.errors.splitlines() if line.startswith("failed: ")]
    assert [line.split()[1] for line in failed] == ["ncnn-fp32:", "verification:"]
