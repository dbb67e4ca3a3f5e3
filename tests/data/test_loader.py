"""Batches: the same whatever the number of workers, and the same after a resume."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photos import picture, write_photos
from PIL import Image

from edgewise.data.augment import Augment
from edgewise.data.dataset import Sample
from edgewise.data.decode import ImageError
from edgewise.data.loader import Batches, View, evaluation_batches, training_batches
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

PREPROCESS = Preprocess(24, 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD)
AUGMENT = Augment(magnitude=5)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    """33 pictures; the label of each is its number."""
    root = write_photos(tmp_path_factory.mktemp("photos"), {"a": 33})
    return tuple(Sample(root / f"a/{number}.png", number, "") for number in range(33))


def view(epoch: int) -> View:
    return View(replace(PREPROCESS, size=24 if epoch < 5 else 16), AUGMENT)


def training(samples: tuple[Sample, ...], epochs: range = range(1), **changes: Any) -> Batches:
    options = {"batch": 8, "workers": 0, "seed": 1} | changes
    return training_batches(samples, view, epochs=epochs, **options)


def drain(batches: Batches) -> list[tuple[np.ndarray, list[int]]]:
    return [(pixels.numpy(), labels.tolist()) for pixels, labels in batches]


def same(one: list[tuple[np.ndarray, list[int]]], two: list[tuple[np.ndarray, list[int]]]) -> bool:
    return len(one) == len(two) and all(
        (a[0] == b[0]).all() and a[1] == b[1] for a, b in zip(one, two, strict=True)
    )


def test_workers_make_no_difference(samples: tuple[Sample, ...]) -> None:
    assert same(drain(training(samples)), drain(training(samples, workers=2)))
    one, two = (
        drain(evaluation_batches(samples, PREPROCESS, batch=8, workers=workers))
        for workers in (0, 2)
    )
    assert same(one, two)


def without_shared_memory(worker: int) -> None:
    """In a process that may write no file of more than 100 bytes, there is room for no batch."""
    import resource  # which Windows has not

    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    with pytest.raises(RuntimeError):
        torch.zeros(101, dtype=torch.uint8).share_memory_()


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is a file there")
def test_batches_come_without_shared_memory_too(samples: tuple[Sample, ...]) -> None:
    batches = training(samples, workers=2)
    batches._loader.worker_init_fn = without_shared_memory
    batches._loader.timeout = 10  # seconds; else a batch that is lost is waited for for ever
    assert same(drain(batches), drain(training(samples)))


def test_the_place_of_the_augmentation_makes_no_difference(samples: tuple[Sample, ...]) -> None:
    """Through a change of size, too, and torch's own random state is left alone."""
    epochs, device = range(4, 6), torch.device("cpu")
    expected, before = drain(training(samples, epochs)), torch.get_rng_state()
    for workers in (0, 2):
        assert same(drain(training(samples, epochs, workers=workers, device=device)), expected)
    assert (torch.get_rng_state() == before).all()


def test_holes_that_a_device_makes_are_the_same_after_a_resume_and_in_several_processes(
    samples: tuple[Sample, ...],
) -> None:
    seen = View(PREPROCESS, Augment(policy="none", erase=0.5))
    settings = {"batch": 8, "seed": 1, "epochs": range(2), "device": torch.device("cpu")}

    def holed(workers: int = 0, **changes: Any) -> list[tuple[np.ndarray, list[int]]]:
        return drain(
            training_batches(samples, lambda epoch: seen, workers=workers, **settings, **changes)
        )

    whole = holed()
    assert same(holed(2), whole)
    assert same(holed(2, start=2), whole[2:])
    for rank in (0, 1):
        part = [(pixels[rank::2], labels[rank::2]) for pixels, labels in whole]
        assert same(holed(share=(rank, 2)), part)


@pytest.mark.parametrize("start", [1, 3, 4])
def test_resume_in_an_epoch_is_its_tail(samples: tuple[Sample, ...], start: int) -> None:
    whole = drain(training(samples, range(3, 4)))
    assert same(drain(training(samples, range(3, 4), start=start)), whole[start:])


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_in_a_row_are_each_of_them_alone(samples: tuple[Sample, ...], workers: int) -> None:
    # Epoch 5 is smaller, and a batch of 10 leaves 3 images over in each.
    row = training(samples, range(3, 6), start=2, batch=10, workers=workers)
    alone = [drain(training(samples, range(epoch, epoch + 1), batch=10)) for epoch in range(3, 6)]
    assert same(drain(row), [*alone[0][2:], *alone[1], *alone[2]])
    assert len(row) == 10
    assert alone[2][0][0].shape == (10, 16, 16, 3)


def test_an_epoch_has_each_image_once(samples: tuple[Sample, ...]) -> None:
    batches = training(samples)
    sizes, seen = [], Counter()
    for pixels, labels in batches:
        assert pixels.shape == (len(labels), 24, 24, 3)
        assert (pixels.dtype, labels.dtype) == (torch.uint8, torch.int64)
        sizes.append(len(labels))
        seen.update(labels.tolist())
    assert seen == dict.fromkeys(range(33), 1)
    assert sizes == [8, 8, 8, 9]  # the one left over is not on its own
    assert len(batches) == 4
    assert [len(labels) for _, labels in drain(training(samples, batch=10))] == [10, 10, 10, 3]
    assert [len(labels) for _, labels in drain(training(samples, batch=1))] == [1] * 33


def test_epochs_and_seeds_differ_in_order_and_in_pixels(samples: tuple[Sample, ...]) -> None:
    runs = [
        drain(training(samples, range(epoch, epoch + 1), seed=seed))
        for seed in (1, 2)
        for epoch in (0, 1)
    ]
    orders = {tuple(label for _, labels in run for label in labels) for run in runs}
    first_image = {
        pixels[labels.index(0)].tobytes() for run in runs for pixels, labels in run if 0 in labels
    }
    assert len(orders) == len(first_image) == 4


def test_each_image_has_chances_of_its_own(samples: tuple[Sample, ...]) -> None:
    alike = (samples[0],) * 16
    views = {view.tobytes() for pixels, _ in drain(training(alike)) for view in pixels}
    assert len(views) == 16


def test_evaluation_is_in_order_and_preprocessed(samples: tuple[Sample, ...]) -> None:
    batches = drain(evaluation_batches(samples, PREPROCESS, batch=16, workers=0))
    assert [labels for _, labels in batches] == [
        list(range(16)),
        list(range(16, 32)),
        [32],
    ]
    # 40 x 30 -> 32 x 24 (shorter side to 24) -> the middle 24 columns
    expected = np.asarray(picture(5).resize((32, 24), Image.Resampling.BILINEAR))[:, 4:28]
    assert (batches[0][0][5] == expected).all()
    assert drain(evaluation_batches((), PREPROCESS, batch=16, workers=0)) == []


def test_torchs_random_state_is_left_alone(samples: tuple[Sample, ...]) -> None:
    before = torch.get_rng_state()
    drain(training(samples))
    drain(evaluation_batches(samples, PREPROCESS, batch=8, workers=0))
    assert (torch.get_rng_state() == before).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_went_bad(tmp_path: Path, workers: int) -> None:
    root = write_photos(tmp_path, {"a": 6})
    samples = [Sample(root / f"a/{number}.png", 0, "") for number in range(6)]
    (root / "a/4.png").write_bytes(b"")
    for batches in (
        training_batches(samples, view, batch=2, workers=workers, seed=0, epochs=range(1)),
        evaluation_batches(samples, PREPROCESS, batch=2, workers=workers),
    ):
        with pytest.raises(ImageError, match=r"a/4.png .* not now: empty file") as caught:
            drain(batches)
        assert "Traceback" not in str(caught.value)


def test_a_file_of_other_bytes_than_were_checked(tmp_path: Path) -> None:
    root = write_photos(tmp_path, {"a": 4})
    samples = [
        Sample(path, 0, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted((root / "a").iterdir())
    ]
    picture(9).save(samples[2].path)
    for batches in (
        training_batches(samples, view, batch=2, workers=0, seed=0, epochs=range(1)),
        evaluation_batches(samples, PREPROCESS, batch=2, workers=0),
    ):
        with pytest.raises(ImageError, match=r"a/2.png .* other bytes than when the run began"):
            drain(batches)


WAITS_FOR_CTRL_C = """
import signal
import sys
from pathlib import Path
from edgewise.data.dataset import Sample
from edgewise.data.loader import evaluation_batches
from edgewise.preprocess import Preprocess

if __name__ == "__main__":
    preprocess = Preprocess(24, 1.0, "bilinear", (0, 0, 0), (1, 1, 1))
    samples = [Sample(Path("photo.png"), 0, "")] * 100_000
    interrupted, after = [], 0
    for _ in evaluation_batches(samples, preprocess, batch=2, workers=2):
        if sys.argv[1] == "ends its step":
            signal.signal(signal.SIGINT, lambda number, frame: interrupted.append(number))
        print("batch", flush=True)
        after += len(interrupted)
        if after > 100:  # more than workers have made ahead
            break
"""


@pytest.mark.parametrize("parent", ["stops", "ends its step"])
def test_ctrl_c_is_answered_by_the_parent_alone(tmp_path: Path, parent: str) -> None:
    picture(0).save(tmp_path / "photo.png")
    (tmp_path / "script.py").write_text(WAITS_FOR_CTRL_C)
    process = subprocess.Popen(
        [sys.executable, "script.py", parent],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(3):
        assert process.stdout.readline() == "batch\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    if parent == "stops":
        # A worker may say that the parent hung up on it, but none was interrupted itself.
        assert errors.count("KeyboardInterrupt") == 1, errors
    else:
        # On one core, DataLoader warns of its workers.
        assert process.returncode == 0 and "Error" not in errors, errors
