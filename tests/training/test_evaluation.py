"""An evaluation against scikit-learn on the answers that it wrote, and with files gone bad."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from photos import picture
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix

from edgewise.data.dataset import load_dataset, read_dataset
from edgewise.data.decode import ImageError
from edgewise.errors import EdgewiseError, UsageError
from edgewise.model import Classifier
from edgewise.run_folder import Run
from edgewise.training import evaluate as evaluate_module
from edgewise.training.evaluate import PixelsOf, evaluate, images_at_once
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.training.start import preprocess_of
from edgewise.training.trial import training_seconds
from edgewise.weights.folder import load_model


@pytest.fixture
def run(reference: Run, tmp_path: Path) -> Run:
    """A copy of the reference run, to write into."""
    return Run(shutil.copytree(reference.root, tmp_path / "run"))


def test_files_agree_with_each_other_and_with_scikit_learn(run: Run) -> None:
    evaluation = evaluate(run)
    with (run.evaluation / "test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    true, predicted = [row["label"] for row in rows], [row["predicted"] for row in rows]
    stored = json.loads((run.evaluation / "test.json").read_text(encoding="utf-8"))
    assert stored["split"] == "test"
    assert stored["images"] == len(rows) == len(read_dataset(run).splits["test"])
    assert stored["skipped"] == []
    assert stored["top1"] == evaluation.top1 == accuracy_score(true, predicted)
    assert stored["top5"] is None  # of three classes
    expected = confusion_matrix(true, predicted, labels=stored["classes"])
    assert stored["confusion"] == expected.tolist()
    assert [score["support"] for score in stored["per_class"]] == expected.sum(axis=1).tolist()
    assert sum(bin["count"] for bin in stored["calibration"]) == len(rows)


def test_probabilities_are_the_models_own(run: Run) -> None:
    evaluate(run, "val")
    model = load_model(run.model)
    sample = read_dataset(run).splits["val"][3]
    # The whole chain by other means: 8 x 8 pixels to 32 x 32, normalised, through the network.
    image = Image.open(sample.path).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    with torch.no_grad():
        expected = model.network(x[None]).softmax(1)[0]
    with (run.evaluation / "val.csv").open(encoding="utf-8", newline="") as file:
        row = list(csv.DictReader(file))[3]
    assert row["path"] == f"{sample.path.parent.name}/{sample.path.name}"
    assert float(row["probability"]) == pytest.approx(float(expected.max()), abs=1e-5)
    assert float(row["probability_label"]) == pytest.approx(float(expected[sample.label]), abs=1e-5)


def test_bad_files_are_listed_not_dropped(recipe: Recipe, tmp_path: Path) -> None:
    photos = Path(shutil.copytree(recipe.data, tmp_path / "photos"))
    for number in range(12):  # some of them land in test
        (photos / "4" / f"text{number}.png").write_text(f"no image {number}")
    run = train(replace(recipe, data=str(photos), epochs=1), tmp_path / "run")
    in_test = {bad.path.name for bad in read_dataset(run).quarantined if bad.split == "test"}
    assert in_test

    gone, other, *_ = (sample.path for sample in read_dataset(run).splits["test"])
    gone.unlink()
    picture(0).save(other)
    evaluation = evaluate(run)
    listed = {Path(item.path).name: item.reason for item in evaluation.skipped}
    assert set(listed) == in_test | {gone.name, other.name}
    assert all(listed.values())
    assert listed[other.name] == "it holds other bytes than when the run began"
    assert evaluation.images == len(read_dataset(run).splits["test"]) - 2


def test_without_test_images_it_is_the_validation_ones(run: Run) -> None:
    lines = run.split.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.split(",")[2] != "test"]
    run.split.write_text("\n".join(kept) + "\n", encoding="utf-8")
    assert evaluate(run).split == "val"
    with pytest.raises(
        UsageError, match=r"no images in the split test. Give --split train or val."
    ):
        evaluate(run, "test")


def test_bad_calls(run: Run) -> None:
    with pytest.raises(UsageError, match=r"split 'tset'.*test"):
        evaluate(run, "tset")
    shutil.rmtree(run.model)
    with pytest.raises(UsageError, match="no trained model yet"):
        evaluate(run)


def test_few_images_are_decoded_once_and_many_each_time(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shutil.copytree(recipe.data, tmp_path / "digits")
    dataset, preprocess = load_dataset(root, workers=1), preprocess_of(recipe)
    samples = dataset.splits["val"]
    few = PixelsOf(samples, preprocess, 4, 0)
    monkeypatch.setattr(evaluate_module, "KEPT_BYTES", len(samples) * 32 * 32 * 3 - 1)
    many = PixelsOf(samples, preprocess, 4, 0)
    next(iter(few))  # of a round that ends too early nothing is kept
    expected = np.stack([preprocess.pixels(Image.open(s.path).convert("RGB")) for s in samples])
    for pixels in (few, many):
        assert np.array_equal(np.concatenate(list(pixels)), expected)
    shutil.rmtree(root)
    assert np.array_equal(np.concatenate(list(few)), expected)
    assert len(few) == len(list(few)) == -(-len(samples) // 4)
    with pytest.raises(ImageError):
        list(many)


@pytest.mark.parametrize(
    ("batch", "accumulate", "processes", "images"),
    [
        (16, 1, 1, 16),
        (16, 4, 1, 4),
        (4096, 4, 8, 128),
        (4096, 4, 1, 128),
        (64, 4, 8, 2),
        (8, 4, 4, 1),
    ],
)
def test_no_more_images_are_classified_at_once_than_learned_from(
    recipe: Recipe, batch: int, accumulate: int, processes: int, images: int
) -> None:
    asked = replace(recipe, batch=batch, accumulate=accumulate)
    assert images_at_once(asked, processes) == images


def test_all_who_evaluate_take_so_many_at_once(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of an epoch, `eval`, and the trial that times both."""
    forward, sizes = Classifier.forward, []

    def watched(self: Classifier, pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return forward(self, pixels)

    monkeypatch.setattr(Classifier, "forward", watched)
    asked = replace(recipe, epochs=1, accumulate=4)
    run = train(asked, tmp_path / "run")
    evaluate(run)
    training_seconds(
        replace(asked, train_imgsz=32, magnitude=0), preprocess_of(recipe), read_dataset(run)
    )
    assert len(sizes) > 6 and max(sizes) == 4


def test_a_gpu_too_small_for_the_validation_does_not_blame_the_batch(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short_of_memory(self: Classifier, pixels: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Classifier, "forward", short_of_memory)
    with pytest.raises(
        EdgewiseError, match=r"classify \d+ images of 32 pixels.*accumulate"
    ) as told:
        train(replace(recipe, epochs=1), tmp_path / "run")
    assert "would fit" not in str(told.value) and "--batch" not in str(told.value)
