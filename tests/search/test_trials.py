"""The images of a search: what they are parted by."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.data.dataset import Dataset, Sample
from edgewise.errors import UsageError
from edgewise.search.trials import with_test


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
