"""The images by which int8 is made and judged: of the run, as its model sees them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commandline import edgewise
from photos import picture, write_photos

from edgewise.data.dataset import read_dataset
from edgewise.data.decode import decode
from edgewise.deploy import onnx
from edgewise.deploy.artifact import GOLDEN, Artifact
from edgewise.deploy.calibration import IMAGES, calibration_pixels
from edgewise.deploy.export import export
from edgewise.deploy.formats import Job
from edgewise.deploy.predictor import open_predictor
from edgewise.errors import EdgewiseError, UsageError
from edgewise.run_folder import Run

pytest.importorskip("openvino")


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


def test_a_picture_that_was_overwritten_has_no_part_in_an_export(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody said of what class the new one is, or in which split."""
    jobs: list[Job] = []
    write, rule = onnx.write, open_predictor(run.model).preprocess
    monkeypatch.setattr(onnx, "write", lambda job: jobs.append(job) or write(job))
    new = picture(9_000_000)
    for split in ("train", "val"):
        new.save(read_dataset(run).splits[split][0].path)
    folder = export(run.root, precision="int8").folder
    with np.load(folder / GOLDEN) as golden:
        inputs = golden["pixels"]
    (job,) = jobs
    for images in (job.calibration, job.checked, inputs):
        assert images is not None
        assert rule.pixels(new).tobytes() not in {image.tobytes() for image in images}


def drop_train(run: Run, tmp_path: Path) -> Path | None:
    for sample in read_dataset(run).splits["train"]:
        sample.path.unlink()
    return None


def of_other_classes(run: Run, tmp_path: Path) -> Path | None:
    return write_photos(tmp_path / "others", {"cat": 3, "dog": 3})


def of_one_class(run: Run, tmp_path: Path) -> Path | None:
    return write_photos(tmp_path / "others", {"dog": 3})


def of_a_class_without_train(run: Run, tmp_path: Path) -> Path | None:
    """All pictures below would have been taken: those of val, and of a class that is not known."""
    write_photos(tmp_path / "others" / "train", {"cat": 3, "犬": 3})
    write_photos(tmp_path / "others" / "val", {"cat": 3, "dog": 3})
    return tmp_path / "others"


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (drop_train, r"none of \d+ can be read"),
        (of_one_class, "has the class 'dog', which the model doesn't know"),
        (of_a_class_without_train, "class 'dog' is in val but not in train"),
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
