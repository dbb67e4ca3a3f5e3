"""The images of a search, what they are parted by; and trainings that can't be."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edgewise.data.dataset import Dataset, Sample
from edgewise.errors import UsageError
from edgewise.search.choosing import _epochs
from edgewise.search.decisions import Numbers
from edgewise.search.entrants import Entrant
from edgewise.search.trials import Trainer, tried, with_test
from edgewise.training.start import TooLittleMemory


def dataset(*val: Sample, test: tuple[Sample, ...] = ()) -> Dataset:
    train = tuple(Sample(Path(f"train-{label}"), label, f"t{label}") for label in (0, 1))
    return Dataset(Path(), ("a", "b"), {"train": train, "val": val, "test": test}, ())


def image(label: int, content: int, copy: int = 0) -> Sample:
    return Sample(Path(f"{label}-{content}-{copy}"), label, f"{content}")


def test_every_other_image_of_a_class_is_to_test_on() -> None:
    images = [image(label, 10 * label + content) for label in (0, 1) for content in range(5)]
    parted = with_test(dataset(*images)).splits
    assert parted["test"] == (images[1], images[3], images[6], images[8])
    assert parted["val"] == tuple(own for own in images if own not in parted["test"])
    given = dataset(*images, test=(image(0, 99),))
    assert with_test(given) is given


def test_copies_stay_together_also_under_two_labels() -> None:
    images = [image(0, content, copy) for content in range(6) for copy in range(content)]
    images += [image(1, content) for content in range(3, 9)]
    parted = with_test(dataset(*images)).splits
    assert sorted(map(str, [*parted["val"], *parted["test"]])) == sorted(map(str, images))
    contents = [{own.sha256 for own in parted[split]} for split in ("val", "test")]
    assert not contents[0] & contents[1]
    assert [{own.label for own in parted[split]} for split in ("val", "test")] == [{0, 1}] * 2


def test_one_image_of_each_class_and_its_copies_are_too_few() -> None:
    images = [image(label, label, copy) for label in (0, 1) for copy in range(3)]
    with pytest.raises(UsageError, match=r"one of each class, without copies"):
        with_test(dataset(*images))


def test_a_network_too_large_for_the_gpu_is_out_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pace is that of the first that it has room for."""

    def lacking() -> Numbers:
        raise TooLittleMemory("the GPU has too little memory", "Use a smaller --model.")

    assert tried(lacking) == {
        "score": 0.0,
        "failure": "the GPU has too little memory",
        "out": True,
    }

    def time_epoch(self: Trainer, model: str, imgsz: int, pretrained: bool) -> tuple[float, float]:
        if model == "large":
            lacking()
        return float(imgsz), 14.0

    monkeypatch.setattr(Trainer, "time_epoch", time_epoch)
    search: Any = SimpleNamespace(trainer=Trainer(dataset()))
    trials: list[Any] = [
        SimpleNamespace(entrant=Entrant(name, 70.0, 224, 10**8, True))
        for name in ("large", "small")
        for name in ("large", "small")
    ]
    entrant, epochs = _epochs(search, trials)
    assert (entrant.model, epochs) == ("small", [(64.0, 14.0), (128.0, 14.0)])
    with pytest.raises(TooLittleMemory, match="smaller --model"):
        _epochs(search, trials[:1])


def test_a_step_without_memory_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def short_of_memory(*given: object, **named: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("edgewise.search.trials.training_seconds", short_of_memory)
    monkeypatch.setattr("edgewise.training.start.batch_that_fits", lambda *given: 0)
    images = dataset(image(0, 1), image(1, 2))
    with pytest.raises(TooLittleMemory, match="too little memory for a batch of 2 at"):
        Trainer(images).time_epoch("tiny", 32, False)
