"""Many formats at once, and what goes wrong: nothing half, and the others go on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commandline import edgewise
from photos import write_photos

from edgewise.deploy import artifact as artifact_module
from edgewise.deploy import formats
from edgewise.deploy.artifact import INFO, MAIN, Artifact, Info, making
from edgewise.deploy.engine import EnginePredictor, normalised, softmax
from edgewise.deploy.export import export
from edgewise.deploy.formats import FORMATS, format_named, format_of
from edgewise.deploy.predictor import open_predictor
from edgewise.deploy.verification import Seen
from edgewise.deploy.verify import verify, verify_alone
from edgewise.errors import EdgewiseError, UsageError
from edgewise.files import changed_files, read_json, write_json
from edgewise.preprocess import Preprocess
from edgewise.run_folder import Run

pytest.importorskip("openvino")


def test_the_table_of_formats_is_sound() -> None:
    for format in FORMATS.values():
        assert format_of(Path("here", format.file)) is format
        assert set(format.precisions) <= set(formats.PRECISIONS)
    with pytest.raises(UsageError, match=r"unknown format 'onxx'\. Nearest: onnx"):
        format_named("onxx")


def test_all_of_a_run_are_verified_and_tabled(run: Run) -> None:
    said = edgewise("export", run.root, "--format", "onnx,openvino", "--precision", "fp32,fp16")
    assert said.status == 0, said.errors
    assert said.errors.splitlines() == [
        "exporting onnx-fp32", "exporting openvino-fp32", "exporting openvino-fp16",
    ]  # fmt: skip
    rows = [line.split() for line in said.output.splitlines()[1:4]]
    assert [row[:2] for row in rows] == [
        ["onnx", "fp32"],
        ["openvino", "fp16"],
        ["openvino", "fp32"],
    ]
    assert all(row[-1] == "passed" for row in rows)
    half, full = (
        Artifact.read(run.exports / f"openvino-{precision}") for precision in ("fp16", "fp32")
    )
    assert half.bytes < 0.75 * full.bytes
    pixels = np.random.default_rng(1).integers(0, 256, (3, 33, 33, 3), dtype=np.uint8)
    expected = open_predictor(run.model).probabilities(pixels)
    for folder, tolerance in ((full.folder, 1e-5), (half.folder, 1e-2)):
        assert np.abs(open_predictor(folder).probabilities(pixels) - expected).max() < tolerance
        assert changed_files(folder) == []


def test_one_artefact_of_a_run_and_one_that_was_copied_out(run: Run, tmp_path: Path) -> None:
    export(run.root, "openvino")
    said = edgewise("verify", run.exports / "openvino-fp32", "--json")
    assert [item["name"] for item in json.loads(said.output)["artifacts"]] == ["openvino-fp32"]
    copy = shutil.copytree(run.exports / "openvino-fp32", tmp_path / "board")
    said = edgewise("verify", copy)
    assert said.status == 0 and "16 golden inputs alone" in said.output, said.output
    seen = verify_alone(copy)
    assert seen.agreement == 1.0 and seen.images == 0
    assert seen.golden_largest_difference is not None and seen.golden_largest_difference < 1e-5
    file = copy / "model.bin"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 64
    file.write_bytes(data)
    said = edgewise("verify", copy)
    assert said.status == 1 and "model.bin was changed after it was written" in said.output


def test_metadata_that_is_not_text_is_an_error_of_the_file(run: Run) -> None:
    file = export(run.root, "openvino").path
    file.write_bytes(file.read_bytes().replace("é".encode(), b"\x43\xa9"))
    with pytest.raises(UsageError, match=r"model\.xml can't be read as an OpenVINO model"):
        open_predictor(file.parent)
    seen = {item.name: item for item in verify(run).artifacts}
    assert seen[MAIN].status == "passed" and seen["openvino-fp32"].status == "failed"


def test_the_folder_that_is_named_is_the_one_that_is_verified(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = shutil.copytree(run.exports, run.root / "second") / MAIN
    (second / "model.onnx").write_bytes(b"another file")
    said = edgewise("verify", second)  # has the name of a good one in the run
    assert said.status == 1 and "model.onnx was changed" in said.output, said.output
    monkeypatch.chdir(run.exports / MAIN)
    said = edgewise("verify", ".", "--json")
    assert [item["name"] for item in json.loads(said.output)["artifacts"]] == [MAIN]
    Path(INFO).unlink()
    said = edgewise("verify", ".")  # what is left of an artefact
    assert said.status == 1 and f"has no {INFO}" in said.output, said
    monkeypatch.chdir(second)
    assert f"failure: {MAIN}: " in edgewise("verify", ".").output


def test_files_that_go_elsewhere_are_held_to_the_run_too(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify(run)
    told = run.verification.read_text()
    for output in (tmp_path / "board", run.root / "second"):
        said = edgewise("export", run.root, "--output", output)
        assert said.status == 0, said.errors
        assert said.output.splitlines()[1].split()[-1] == "passed"
        assert Artifact.is_artifact(output / MAIN)
    wrong = Seen(MAIN, "").failed("it was changed")
    monkeypatch.setattr("edgewise.deploy.verify._check", lambda *_: wrong)
    said = edgewise("export", run.root, "--output", tmp_path / "board")
    assert said.status == 1 and f"failed: {MAIN}: it was changed" in said.errors
    assert run.verification.read_text() == told  # that of the run's own files


def test_a_format_whose_package_is_missing_lets_the_others_go_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(run.exports)
    missing = formats.Format(
        *("nowhere", "model.nowhere", "", "nowhere", ("no-such-package",), ("fp32",), "onnx"),
    )
    monkeypatch.setitem(FORMATS, "nowhere", missing)
    command = ("export", run.root, "--format")
    said = edgewise(*command, "nowhere")
    assert said.status == 2 and "pip install 'edgewise[nowhere]'" in said.errors
    with pytest.raises(UsageError, match="needs the package 'no-such-package'"):
        export(run.root, "nowhere")
    said = edgewise(*command, "nowhere,onnx")
    assert said.status == 1
    assert "failed: nowhere-fp32" in said.errors and "passed" in said.output
    assert {path.name for path in run.exports.iterdir()} == {MAIN}


def test_a_file_that_answers_otherwise_is_not_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = EnginePredictor.probabilities
    monkeypatch.setattr(
        EnginePredictor, "probabilities", lambda self, pixels: right(self, pixels)[:, ::-1]
    )
    said = edgewise("export", run.root)
    assert said.status == 1 and "onnx-fp32 does not give the model's answers" in said.errors
    monkeypatch.undo()
    assert changed_files(run.exports / MAIN) == []  # the one that was there


@pytest.mark.parametrize(("format", "precision"), [("onnx", "int8"), ("openvino", "fp16")])
def test_answers_that_are_no_numbers_are_not_kept_in_any_precision(
    format: str, precision: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = EnginePredictor.probabilities
    monkeypatch.setattr(
        EnginePredictor, "probabilities", lambda self, pixels: right(self, pixels) * np.nan
    )
    options = ("--calibrate", write_photos(tmp_path / "photos", {"cat": 4}))
    said = edgewise(
        *("export", run.model, "--format", format, "--precision", precision),
        *(options if precision == "int8" else ()),
        *("--output", tmp_path / "files"),
    )
    assert said.status == 1, said.output
    assert f"{format}-{precision} does not give the model's answers" in said.errors
    assert "a probability is not a number" in said.errors
    assert not list((tmp_path / "files").iterdir())


def test_how_often_a_file_of_no_run_agrees_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("export", run.model, "--format", "openvino", "--precision", "fp32,fp16")
    said = edgewise(*command, "--output", tmp_path / "right")
    assert said.status == 0, said.errors
    lines = said.output.splitlines()
    assert lines[0].split() == ["FOLDER", "SIZE", "AGREES"]
    assert lines[1].endswith("16 of 16") and "warning" not in said.output
    right = EnginePredictor.probabilities
    monkeypatch.setattr(
        EnginePredictor, "probabilities", lambda self, pixels: right(self, pixels)[:, [1, 2, 0]]
    )
    said = edgewise(*command[:-1], "fp16", "--output", tmp_path / "wrong")
    assert said.output.splitlines()[1].endswith("0 of 16"), said.output
    assert "warning: openvino-fp16 has another top class than the model for 16 of" in said.output


def test_layers_to_keep_in_float_may_have_spaces_between_them(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def refuse(*arguments: object) -> None:
        asked.append(arguments[-2])
        raise EdgewiseError("enough")

    monkeypatch.setattr("edgewise.deploy.export.export", refuse)
    edgewise("export", run.root, "--precision", "int8", "--keep-float", "stem, head")
    assert asked == [("stem", "head")]


@pytest.mark.parametrize("option", ["--calibrate", "--keep-float"])
def test_what_is_for_int8_is_not_passed_over_without_it(option: str, run: Run) -> None:
    for precision in ("fp32", "fp32,fp16"):
        said = edgewise("export", run.root, "--precision", precision, option, "auto")
        assert said.status == 2 and f"{option} is for int8 files" in said.errors


def test_what_int8_may_change_is_a_part(run: Run) -> None:
    said = edgewise("export", run.root, "--precision", "int8", "--keep-float", "auto:most")
    assert said.status == 2 and "'most' is not a part such as 30% or 0.3" in said.errors


def test_info_goes_through_its_files(tmp_path: Path) -> None:
    rule = Preprocess(8, 1.0, "bilinear", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    asked = {"keep_float": ("stem",), "calibrate": "my photos"}
    info = Info("m", "onnx", "int8", ("a", "é"), rule, batch=1, float_layers=("stem",), **asked)
    with making(tmp_path / "made") as folder:
        info.write(folder)
        (folder / "m").write_bytes(b"12345")
    made = Artifact.read(tmp_path / "made")
    assert (made.info, made.bytes, made.path.name) == (info, 5, "m")
    older = read_json(tmp_path / "made" / INFO)
    write_json(tmp_path / "made" / INFO, {k: v for k, v in older.items() if k not in asked})
    assert Artifact.read(tmp_path / "made").info == replace(info, keep_float=None, calibrate="")
    (tmp_path / "made" / INFO).write_text("{}")
    with pytest.raises(UsageError, match=r"made: artifact\.json"):
        Artifact.read(tmp_path / "made")
    assert artifact_module.OURS


def test_what_a_file_leaves_to_us_is_done() -> None:
    """Normalised by hand in float64; softmax against SciPy's; single images where it must be."""
    from scipy.special import softmax as theirs

    rule = Preprocess(4, 1.0, "bilinear", (120.0, 110.0, 100.0), (50.0, 60.0, 70.0))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    info = Info("m", "x", "fp32", ("a", "b"), rule, "normalised", "logits", batch=1)
    by_hand = (pixels - np.array(rule.mean)) / np.array(rule.std)
    assert np.abs(normalised(pixels, info) - by_hand.transpose(0, 3, 1, 2)).max() < 1e-6
    logits = np.float32([[1, 2], [1000, -1000]])
    assert np.allclose(softmax(logits), theirs(logits, axis=1), atol=1e-7)

    class Means:
        """Its logits are the means of two channels."""

        def __init__(self) -> None:
            self.info, self.runtime = info, "means 1"

        def run(self, inputs: np.ndarray) -> np.ndarray:
            assert inputs.shape == (1, 3, 4, 4)
            return inputs.mean((2, 3))[:, :2]

    answers = EnginePredictor(Means()).probabilities(pixels)
    assert np.allclose(answers, theirs(by_hand.mean((1, 2))[:, :2], axis=1), atol=1e-6)
    info = replace(info, labels=("a", "b", "c"))
    with pytest.raises(EdgewiseError, match="m gives 2 answers, and has 3 labels"):
        EnginePredictor(Means()).probabilities(pixels)
    info = replace(info, input="pixels")
    with pytest.raises(EdgewiseError, match=r"m can't be computed by means 1 \(AssertionError"):
        EnginePredictor(Means()).probabilities(pixels)
