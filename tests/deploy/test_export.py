"""Many formats at once, and what goes wrong: nothing half, and the others go on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commandline import edgewise
from photos import write_photos
from small import small_model

from edgewise.data.dataset import read_dataset
from edgewise.data.decode import decode
from edgewise.deploy import artifact as artifact_module
from edgewise.deploy import formats, onnx
from edgewise.deploy.artifact import GOLDEN, INFO, MAIN, Artifact, Info, making
from edgewise.deploy.calibration import IMAGES, calibration_pixels
from edgewise.deploy.engine import EnginePredictor, normalised, softmax
from edgewise.deploy.export import export
from edgewise.deploy.formats import FORMATS, Job, format_named, format_of
from edgewise.deploy.isolated import Apart, isolated
from edgewise.deploy.predictor import open_predictor
from edgewise.deploy.verification import Seen
from edgewise.deploy.verify import verify, verify_alone
from edgewise.errors import CantWrite, EdgewiseError, UsageError
from edgewise.files import MANIFEST, changed_files, read_json, write_json
from edgewise.preprocess import Preprocess
from edgewise.run_folder import Run
from edgewise.weights.folder import load_model, save_model

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


def no_space(*args: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["write_golden", "write_manifest"])
def test_a_full_disk_leaves_no_half(where: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in run.exports.rglob("*") if path.is_file()}
    module = "export" if where == "write_golden" else "artifact"
    monkeypatch.setattr(f"edgewise.deploy.{module}.{where}", no_space)
    said = edgewise("export", run.root)
    assert said.status == 1 and "No space left on device" in said.errors
    with pytest.raises(CantWrite):
        export(run.root)
    assert {path: path.read_bytes() for path in run.exports.rglob("*") if path.is_file()} == before
    assert [path.name for path in run.exports.iterdir()] == [MAIN]


def test_a_full_temporary_folder_is_named_and_stops_no_other_file(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("numpy.savez", lambda *_, **__: no_space())
    said = edgewise("export", run.root, "--precision", "int8,fp32")
    assert said.status == 1 and "passed" in said.output
    words = f"onnx-int8: can't write the images for int8 in the temporary folder {tmp_path} "
    assert f"failed: {words}" in said.errors
    assert "No space left on device" in said.errors and "TMPDIR" in said.errors
    with pytest.raises(CantWrite):  # which is no fault of the network: a search tries it again
        export(run.root, precision="int8")


def test_openvinos_own_words_for_a_full_disk_stop_no_other_format(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr("openvino.save_model", full)
    said = edgewise("export", run.root, "--format", "openvino,onnx")
    assert said.status == 1 and "passed" in said.output
    assert "can't write" in said.errors and "Free some space" in said.errors, said.errors
    assert [path.name for path in run.exports.iterdir()] == [MAIN]


def test_what_a_kill_left_is_taken_away(run: Run) -> None:
    for end in ("partial", "old"):
        left = run.exports / f".{MAIN}.{end}"
        left.mkdir()
        (left / "model.onnx").write_bytes(b"half")
    assert [seen.name for seen in verify(run).artifacts] == [MAIN]
    export(run.root)
    assert [path.name for path in run.exports.iterdir()] == [MAIN]


def test_a_link_stays_one_and_what_it_leads_to_is_made_anew(tmp_path: Path) -> None:
    disk, link = tmp_path / "disk" / MAIN, tmp_path / "export" / MAIN
    link.parent.mkdir()
    link.symlink_to(disk)
    for content in (b"first", b"second"):
        with making(link) as staging:
            (staging / INFO).write_bytes(content)
        assert link.is_symlink() and (disk / INFO).read_bytes() == content
    for folder in (link.parent, disk.parent):
        assert [path.name for path in folder.iterdir()] == [MAIN]
    # As one was left when a link was taken for the old folder.
    (disk.parent / f".{MAIN}.old").symlink_to(tmp_path / "export")
    with making(disk) as staging:
        (staging / INFO).write_bytes(b"third")
    assert [path.name for path in disk.parent.iterdir()] == [MAIN]
    assert (link / INFO).read_bytes() == b"third"


def test_somebody_elses_folder_is_not_touched(run: Run, tmp_path: Path) -> None:
    (tmp_path / MAIN).mkdir()
    (tmp_path / MAIN / "letter.txt").write_text("dear")
    said = edgewise("export", run.model, "--output", tmp_path)
    assert said.status == 2 and "onnx-fp32 holds something else" in said.errors
    assert (tmp_path / MAIN / "letter.txt").read_text() == "dear"
    said = edgewise("export", run.model, "--output", tmp_path / "new")
    assert said.status == 0 and str(tmp_path / "new" / MAIN) in said.output


def test_what_lost_a_file_is_made_anew(tmp_path: Path) -> None:
    for lost in (INFO, GOLDEN, MANIFEST):
        for content in (b"old", b"new"):
            with making(tmp_path / lost) as folder:
                for name in (INFO, GOLDEN):
                    (folder / name).write_bytes(content)
            if content == b"old":
                (tmp_path / lost / lost).unlink()
        assert (tmp_path / lost / INFO).read_bytes() == b"new"
    model = small_model("mobilenet_v2", ("a", "b"), size=33)
    save_model(model, tmp_path / "model")  # it has a manifest of its own
    (tmp_path / MAIN).write_text("dear")
    for name, words in (("model", "model holds something else"), (MAIN, f"{MAIN} is a file")):
        with pytest.raises(UsageError, match=words), making(tmp_path / name):
            pass
    assert load_model(tmp_path / "model").labels == model.labels
    assert (tmp_path / MAIN).read_text() == "dear"


def test_the_second_of_two_exports_into_one_folder_waits(tmp_path: Path) -> None:
    begun = threading.Event()

    def second() -> None:
        begun.set()
        with making(tmp_path / MAIN) as staging:
            (staging / INFO).write_bytes(b"second")

    with ThreadPoolExecutor(1) as pool:
        with making(tmp_path / MAIN) as staging:
            done = pool.submit(second)
            begun.wait()
            time.sleep(0.2)  # in which it took away what is being made here
            (staging / INFO).write_bytes(b"first")
        done.result()
    assert (tmp_path / MAIN / INFO).read_bytes() == b"second"
    assert [path.name for path in tmp_path.iterdir()] == [MAIN]


def crash() -> None:
    os.abort()


def test_a_crash_is_an_error_and_no_more() -> None:
    assert isolated(len, "abc") == 3
    with pytest.raises(EdgewiseError, match="its process crashed"):
        isolated(crash)
    with pytest.raises(UsageError, match="unknown format"):
        isolated(format_named, "nothing")


def test_a_process_of_its_own_has_our_environment_as_it_is_now(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    isolated(len, "abc")
    monkeypatch.setenv("EDGEWISE_TRIED", "now")
    monkeypatch.chdir(tmp_path)
    assert isolated(os.getenv, "EDGEWISE_TRIED") == "now"
    assert isolated(os.getcwd) == str(tmp_path)
    monkeypatch.delenv("EDGEWISE_TRIED")
    assert isolated(os.getenv, "EDGEWISE_TRIED") is None


def test_after_a_crash_the_next_call_has_a_fresh_process() -> None:
    with Apart() as apart:
        first, second = apart.call(os.getpid), apart.call(os.getpid)
        assert first == second != os.getpid()
        with pytest.raises(EdgewiseError, match="its process crashed"):
            apart.call(crash)
        assert apart.call(os.getpid) != first


UNGUARDED = """
from edgewise.deploy import isolated
def work(): return "its own work"
isolated.PRELOADED.clear()  # to be quick
print("once")
print(isolated.isolated(WORK))
"""


@pytest.mark.parametrize("how", [("script.py",), ("-m", "script")])
def test_a_script_needs_no_guard_around_its_calls(how: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(UNGUARDED.replace("(WORK)", "(len, 'abc')"))
    done = subprocess.run([sys.executable, *how], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("once\n3\n", "")


def test_work_of_a_scripts_own_needs_the_script(tmp_path: Path) -> None:
    script = UNGUARDED.replace("WORK", "work").replace("print", "if __name__ == '__main__': print")
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("once\nits own work\n", "")
    (tmp_path / "script.py").write_text(UNGUARDED.replace("WORK", "work"))
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True)
    assert "NotStartedError: can't start a process" in done.stderr


def test_calibration_sees_the_runs_training_images_as_the_model_does(run: Run) -> None:
    rule = open_predictor(run.model).preprocess
    labels = ("café", "cat", "犬")
    pixels = calibration_pixels(run.root, None, rule, labels)
    train = pictures(run, "train")
    assert 0 < len(train) <= IMAGES and pixels.shape == (len(pixels), 33, 33, 3)
    assert {image.tobytes() for image in pixels} == train
    assert (pixels == calibration_pixels(run.root, None, rule, labels)).all()


def test_calibration_takes_pictures_that_are_in_no_class_folder(run: Run, tmp_path: Path) -> None:
    rule = open_predictor(run.model).preprocess
    flat = write_photos(tmp_path / "photos", {"all": 3}) / "all"
    shown = {rule.pixels(decode(path)).tobytes() for path in flat.iterdir()}
    for source in (run.root, run.model):
        pixels = calibration_pixels(source, flat, rule, ("café", "cat", "犬"))
        assert {image.tobytes() for image in pixels} == shown


def pictures(run: Run, split: str) -> set[bytes]:
    rule = open_predictor(run.model).preprocess
    return {rule.pixels(decode(s.path)).tobytes() for s in read_dataset(run).splits[split]}


def test_what_int8_costs_is_seen_on_images_that_the_run_has_not_learned(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []
    write, held_out = onnx.write, pictures(run, "val")
    monkeypatch.setattr(onnx, "write", lambda job: jobs.append(job) or write(job))
    export(run.root, precision="int8")
    export(run.root, precision="int8", keep_float=())  # nothing is to be chosen
    assert Artifact.read(run.exports / "onnx-int8").info.keep_float == ()
    said = edgewise("export", run.root, "--precision", "int8", "--keep-float", "auto:0.5%")
    assert said.status == 0, said.errors
    shutil.rmtree(next(iter(read_dataset(run).splits["val"])).path.parents[1])
    for model in (run.root, run.model):  # its photos are gone; there never were any
        calibrate = write_photos(run.root / "others", {"cat": 5, "犬": 5})
        export(model, precision="int8", output=run.root / "files", calibrate=calibrate)
    with_photos, all_in_int8, stricter, without, of_a_model = jobs
    info = Artifact.read(run.root / "files" / "onnx-int8").info
    assert (info.keep_float, info.calibrate) == (None, str(calibrate))
    asked = Artifact.read(run.exports / "onnx-int8").info
    assert (asked.keep_float, asked.most_changed) == (None, 0.005)
    assert (with_photos.most_changed, stricter.most_changed) == (0.02, 0.005)
    for job in (with_photos, stricter):
        assert job.checked is not None
        assert {image.tobytes() for image in job.checked} == held_out
    assert all_in_int8.checked is without.checked is of_a_model.checked is None


def drop_train(run: Run, tmp_path: Path) -> Path | None:
    for sample in read_dataset(run).splits["train"]:
        sample.path.unlink()
    return None


def of_other_classes(run: Run, tmp_path: Path) -> Path | None:
    return write_photos(tmp_path / "others", {"cat": 3, "dog": 3})


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (drop_train, r"none of \d+ can be read"),
        (of_other_classes, "has the class 'dog', which the model doesn't know"),
    ],
)
def test_calibration_that_makes_no_sense(
    harm: Callable[[Run, Path], Path | None], says: str, run: Run, tmp_path: Path
) -> None:
    rule = open_predictor(run.model).preprocess
    with pytest.raises(EdgewiseError, match=says):
        calibration_pixels(run.root, harm(run, tmp_path), rule, ("café", "cat", "犬"))
    with pytest.raises(UsageError, match="--calibrate photos/"):
        calibration_pixels("mobilenet_v2", None, rule, ("a",))


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
