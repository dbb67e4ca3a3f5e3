"""The promises of the split: stable, fair, and no content on two sides."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from edgewise.data.split import (
    Photo,
    assign,
    copies_across_labels,
    copies_across_splits,
    side,
    split_class,
    to_carve,
)

BOTH = {"val": 0.15, "test": 0.15}


def hashes(count: int, salt: str = "") -> list[str]:
    return [hashlib.sha256(f"{salt}{number}".encode()).hexdigest() for number in range(count)]


def at(position: float) -> str:
    """A hash that lies at this part of the range."""
    return f"{int(position * 2**64):016x}" + "0" * 48


def photo(sha256: str, label: str = "a", split: str | None = None, name: str = "") -> Photo:
    return Photo(Path(name or f"{label}-{split}-{sha256[:8]}.jpg"), label, split, sha256)


def test_side_is_the_hash_as_a_number() -> None:
    positions = {0.0: "val", 0.1499: "val", 0.1501: "test", 0.2999: "test", 0.3001: "train"}
    assert {p: side(at(p), BOTH) for p in positions} == positions
    assert side("f" * 64, BOTH) == "train"


def test_fractions() -> None:
    count = 20_000
    parts = Counter(split_class(hashes(count), BOTH).values())
    for split, fraction in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        five_sigma = 5 * (count * fraction * (1 - fraction)) ** 0.5
        assert abs(parts[split] - count * fraction) < five_sigma


@pytest.mark.parametrize("salt", "abcdef")
def test_adding_and_removing_moves_nothing(salt: str) -> None:
    everything = hashes(600, salt)
    whole = split_class(everything, BOTH)
    for some in (everything[:120], everything[300:], everything[::3]):
        part = split_class(some, BOTH)
        assert part == {sha256: whole[sha256] for sha256 in some}


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (4, (2, 1, 1))],
)
@pytest.mark.parametrize("where", [0.0, 0.1, 0.16, 0.9])
def test_tiny_classes_have_an_image_in_each_part(
    count: int, expected: tuple[int, int, int], where: float
) -> None:
    parts = split_class([at(where + number / 100) for number in range(count)], BOTH)
    counted = Counter(parts.values())
    assert counted.total() == count
    for split, least in zip(("train", "val", "test"), expected, strict=True):
        assert (counted[split] >= 1) == (least >= 1)


def test_the_nearest_is_promoted() -> None:
    parts = split_class([at(0.2), at(0.5), at(0.25), at(0.9)], BOTH)
    assert parts == {at(0.2): "val", at(0.25): "test", at(0.5): "train", at(0.9): "train"}


def test_every_class_is_split_for_itself() -> None:
    few = [photo(at(0.5 + n / 100), "few") for n in range(3)]
    many = [photo(sha256, "many") for sha256 in hashes(300)]
    splits = assign(few + many, BOTH)
    assert sorted(splits[:3]) == ["test", "train", "val"]
    assert splits[3:] == [side(p.sha256, BOTH) for p in many]


def test_copies_are_on_one_side_whatever_their_label() -> None:
    shared = at(0.5)
    photos = [photo(shared, "a", name="1"), photo(at(0.9), "a"), photo(at(0.95), "a"),
              photo(shared, "b", name="2"), photo(at(0.6), "b"), photo(at(0.01), "b"),
              photo(shared, "b", name="3")]  # fmt: skip
    splits = assign(photos, BOTH)
    assert splits[0] == splits[3] == splits[6]


@pytest.mark.parametrize(
    ("given", "carved"),
    [
        ({None}, BOTH),
        ({"train"}, BOTH),
        ({"train", "val"}, {}),
        ({"train", "test"}, {"val": 0.15}),
        ({"train", "val", "test"}, {}),
    ],
)
def test_what_is_carved_from_train(given: set[str | None], carved: dict[str, float]) -> None:
    assert to_carve(given) == carved


def test_given_splits_are_kept() -> None:
    given = [photo(sha256, "a", "test") for sha256 in hashes(50, "t")]
    train = [photo(sha256, "a", "train") for sha256 in hashes(500)]
    splits = assign(given + train, {"val": 0.15})
    assert splits[:50] == ["test"] * 50
    assert set(splits[50:]) == {"train", "val"}
    assert splits[50:] == [side(p.sha256, {"val": 0.15}) for p in train]


def test_copies_across_given_splits_leave_training() -> None:
    one, two, three = hashes(3)
    photos = [photo(one, "a", "train"), photo(one, "a", "val"), photo(one, "a", "test"),
              photo(two, "a", "train", "x"), photo(two, "a", "train", "y"),
              photo(three, "b", "train"), photo(three, "a", "val")]  # fmt: skip
    left_out = copies_across_splits(photos)
    assert left_out == {photos[0]: photos[2], photos[1]: photos[2], photos[5]: photos[6]}
    assert copies_across_labels(photos) == {photos[6]: photos[5]}
