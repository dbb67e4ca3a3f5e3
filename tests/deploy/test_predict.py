"""From files to answers: which files, in which order, and what of those that can't be read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commandline import edgewise
from photos import picture, write_photos
from PIL import Image

from edgewise.data.decode import ImageError, decode
from edgewise.deploy.artifact import MAIN
from edgewise.deploy.decoded import decode_batches
from edgewise.deploy.export import export
from edgewise.deploy.predict import BATCH, find_images, predict
from edgewise.deploy.predictor import open_predictor
from edgewise.deploy.runner import Runner, load
from edgewise.errors import UsageError
from edgewise.preprocess import Preprocess
from edgewise.run_folder import Run


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is the one above it."""
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos", {"a": 3, "b": 2})
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    picture(4).save(tmp_path / "photos" / "a" / "cut.jpg")
    cut = tmp_path / "photos" / "a" / "cut.jpg"
    cut.write_bytes(cut.read_bytes()[:500])
    picture(5).save(tmp_path / "photos" / "b" / "[x].png")
    return Path("photos")


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (["photos/b"], "b/[x].png b/0.png b/1.png"),
        (["photos"], "a/0.png a/1.png a/2.png a/cut.jpg b/[x].png b/0.png b/1.png"),
        ("photos", "a/0.png a/1.png a/2.png a/cut.jpg b/0.png b/1.png b/[x].png"),
        (["photos/*/0.png"], "a/0.png b/0.png"),
        (["photos/**/1.png"], "a/1.png b/1.png"),
        (["photos/b/[x].png"], "b/[x].png"),  # a name that looks like a pattern
        (["photos/b/1.png", "photos/a/?.png"], "b/1.png a/0.png a/1.png a/2.png"),
        (["photos/gone.png"], "gone.png"),  # its reader says so
        ("photos/b/1.png", "b/1.png"),  # and not each of its letters
        (Path("photos/b"), "b/[x].png b/0.png b/1.png"),
    ],
)
def test_files_folders_and_patterns(
    photos: Path, images: str | Path | list[str], found: str
) -> None:
    paths = [path.relative_to(photos).as_posix() for path in find_images(images)]
    assert sorted(paths) == sorted(found.split())
    assert isinstance(images, Path) or len(images) == 1 or paths == found.split()


@pytest.mark.parametrize("pattern", ["photos/*.jpeg", "photos/c/**", "empty"])
def test_nothing_matched_is_told_before_any_work(photos: Path, pattern: str, exported: Run) -> None:
    Path("empty").mkdir()
    with pytest.raises(UsageError, match="no"):
        predict("this model is not even opened", ["photos/a/0.png", pattern])
    said = edgewise("predict", exported.root, pattern, "--json")
    assert said.status == 2 and said.output == ""
    assert f"'{pattern}'" in said.errors


def test_answers_are_the_models_in_order(photos: Path, exported: Run) -> None:
    """Against one picture at a time; a batch of 2 leaves one over and has the bad file inside."""
    predictor = open_predictor(exported.root)
    files = ["a/1.png", "a/cut.jpg", "b/1.png", "a/0.png", "gone.png", "b/0.png"]
    predictions = list(predict(exported.root, [photos / file for file in files], topk=2, batch=2))
    assert [prediction.path for prediction in predictions] == [photos / file for file in files]
    for prediction in predictions:
        if prediction.path.name in ("cut.jpg", "gone.png"):
            assert prediction.error and not prediction.top
            continue
        with Image.open(prediction.path) as image:
            pixels = predictor.preprocess.pixels(image)
        (row,) = predictor.probabilities(pixels[None])
        assert [guess.index for guess in prediction.top] == np.argsort(row)[::-1][:2].tolist()
        for guess in prediction.top:
            assert guess.label == predictor.labels[guess.index]
            assert guess.probability == pytest.approx(row[guess.index], abs=2e-6)
    assert predictions[4].error == "no such file"


def test_memory_is_bounded(photos: Path) -> None:
    """However many paths there are, few are taken before their answers are."""
    taken = 0

    def paths() -> Iterator[Path]:
        nonlocal taken
        while taken < 100_000:
            taken += 1
            yield photos / "a" / "0.png"

    rule = Preprocess(8, 1.0, "bilinear", (127.0,) * 3, (64.0,) * 3)
    batches = decode_batches(paths(), rule, batch=4)
    expected = rule.pixels(decode(photos / "a" / "0.png"))
    for number in range(1, 6):
        assert all(np.array_equal(item.pixels, expected) for item in next(batches))
        assert taken <= 4 * (number + 2)
    batches.close()  # type: ignore[attr-defined]


def test_json_is_one_array_and_the_status_tells_of_bad_files(photos: Path, exported: Run) -> None:
    said = edgewise("predict", exported.root, "photos/a/0.png", "photos/a/cut.jpg", "--json")
    assert said.status == 1
    good, bad = json.loads(said.output)
    assert good["path"] == str(Path("photos/a/0.png"))
    assert len(good["top"]) == 3  # all the classes there are, of five asked for
    assert all(set(guess) == {"index", "label", "probability"} for guess in good["top"])
    assert set(bad) == {"path", "error"} and "damaged" in bad["error"]
    assert edgewise("predict", exported.root, "photos/a/0.png", "--json").status == 0


def test_every_source_prints_the_same_json(photos: Path, exported: Run) -> None:
    sources = (exported.root, exported.model, exported.exports / MAIN / "model.onnx")
    of_run, of_folder, of_file = (
        json.loads(edgewise("predict", source, "photos/b", "--json").output) for source in sources
    )
    assert of_run == of_folder
    assert len(of_run) == 3
    for ours, theirs in zip(of_run, of_file, strict=True):
        assert ours["path"] == theirs["path"]
        for one, other in zip(ours["top"], theirs["top"], strict=True):
            assert (one["index"], one["label"]) == (other["index"], other["label"])
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_a_loaded_model_answers_for_files_images_and_arrays(photos: Path, exported: Run) -> None:
    runner = load(exported.exports / MAIN, "onnxruntime")
    file = Path("photos/a/0.png")
    image = decode(file)
    kinds = [str(file), file, image, np.asarray(image)]
    answers = runner.probabilities(kinds)
    expected = load(exported.root, "torch").probabilities([file])
    assert np.abs(answers - expected).max() < 1e-5
    assert runner.labels == ("café", "cat", "犬") and runner.runtime.startswith("onnxruntime ")
    first, second = runner.predict([file], topk=2)[0]
    assert first.probability == pytest.approx(expected.max(), abs=1e-5)
    assert first.label == runner.labels[int(expected.argmax())] != second.label
    assert runner.probabilities([]).shape == (0, 3)
    for kind in kinds:
        assert np.array_equal(runner.probabilities(kind), answers[:1])
    with pytest.raises(UsageError, match="topk must be 1 or more, not -1"):
        runner.predict(file, topk=-1)
    with pytest.raises(UsageError, match=r"not float64 of \(2, 2\)"):
        runner.predict([np.zeros((2, 2))])


def test_a_loaded_model_answers_a_batch_at_a_time(exported: Run) -> None:
    predictor = open_predictor(exported.root)
    shapes = []

    class Seen:
        labels, preprocess, runtime = predictor.labels, predictor.preprocess, predictor.runtime

        def probabilities(self, pixels: np.ndarray) -> np.ndarray:
            shapes.append(len(pixels))
            return predictor.probabilities(pixels)

    images = np.random.default_rng(0).integers(0, 256, (2 * BATCH + 1, 33, 33, 3), dtype=np.uint8)
    answers = Runner(Seen()).probabilities(images)
    assert shapes == [BATCH, BATCH, 1]
    pixels = np.stack([predictor.preprocess.pixels(Image.fromarray(image)) for image in images])
    assert np.abs(answers - predictor.probabilities(pixels)).max() < 1e-6


def test_several_threads_get_the_answers_of_one(exported: Run, tmp_path: Path) -> None:
    """One image and many in turns: OpenVINO compiles a graph for each."""
    pytest.importorskip("openvino")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 33, 33, 3), dtype=np.uint8)
    asked = [pixels[at : at + 1 + 4 * (at % 2)] for at in range(35)] * 4
    folder = export(exported.root, "openvino", output=tmp_path).folder
    alone = load(folder, "openvino")
    expected = [alone.probabilities(images) for images in asked]
    runner = load(folder, "openvino")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(runner.probabilities, asked))
    differences = map(np.subtract, answers, expected)
    assert max(np.abs(difference).max() for difference in differences) < 1e-6


def test_images_may_come_one_by_one(photos: Path, exported: Run) -> None:
    runner = load(exported.root, "torch")
    files = sorted(photos.glob("*/[01].png"))
    expected = runner.probabilities(files)
    assert len(expected) == 4
    for images in (iter(files), map(str, files), tuple(files), np.array([*map(str, files)])):
        assert np.array_equal(runner.probabilities(images), expected)
    assert runner.predict(iter(())) == []


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (None, "not NoneType"),
        ([None], "not NoneType"),
        (b"\x89PNG", r"not bytes.*PIL\.Image\.open"),
        ([b"\x89PNG"], "not bytes"),
        ([io.BytesIO()], "not BytesIO"),
        ([["photos/a/0.png"]], "not list"),
        (torch.zeros(4, 5, 3, dtype=torch.uint8), "not Tensor"),
        (np.zeros((40, 30), np.uint8), r"not uint8 of \(40, 30\)"),
        (np.zeros((1, 2, 40, 30, 3), np.uint8), r"not uint8 of \(1, 2, 40, 30, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), "5 x 0 pixels: there is nothing in it"),
        (np.zeros((2, 5, 0, 3), np.uint8), "0 x 5 pixels: there is nothing in it"),
        (Image.new("RGB", (0, 3)), "0 x 3 pixels: there is nothing in it"),
    ],
)
def test_what_is_no_image_is_told_as_it_is(images: Any, words: str, exported: Run) -> None:
    with pytest.raises((UsageError, ImageError), match=words):
        load(exported.model, "torch").predict(images)


def test_a_picture_has_one_answer_as_a_file_and_as_an_image(exported: Run, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = picture(6).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(tmp_path / "clear.png")
    clear.convert("LA").save(tmp_path / "grey.png", exif=turned)
    clear.quantize(16).save(tmp_path / "palette.png", transparency=3)
    deep = np.asarray(picture(7).convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    picture(8).save(tmp_path / "photo.jpg", exif=turned)
    runner = load(exported.root, "torch")
    for path in tmp_path.iterdir():
        of_file, of_image = runner.probabilities([path, Image.open(path)])
        assert np.array_equal(of_file, of_image), path.name
    with pytest.raises(ImageError, match="save it with 8 or 16 bits"):
        runner.predict([Image.new("F", (40, 40))])


def test_people_get_aligned_lines(photos: Path, exported: Run) -> None:
    said = edgewise("predict", exported.root, "photos/a/0.png", "photos/a/cut.jpg", "--topk", 2)
    first, *answers, second, reason = said.output.splitlines()
    assert (first, second) == (str(Path("photos/a/0.png")), str(Path("photos/a/cut.jpg")))
    assert len(answers) == 2 and all("%" in line for line in answers)
    assert reason.startswith("  can't be read: damaged")
    assert "\x1b" not in said.output  # no colours into a file


@pytest.mark.parametrize("option", ["--topk", "--batch"])
def test_numbers_below_one(option: str, photos: Path, exported: Run) -> None:
    said = edgewise("predict", exported.root, "photos/a/0.png", option, 0)
    assert said.status == 2
    assert option.strip("-") in said.errors
