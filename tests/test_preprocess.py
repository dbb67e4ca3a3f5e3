"""The rule from an image to an input. (Against torchvision and timm: tests/weights.)"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgewise.errors import UsageError
from edgewise.preprocess import Preprocess

RULE = Preprocess(4, 1.0, "bilinear", (10.0, 20.0, 30.0), (2.0, 4.0, 8.0))


def test_round_trip() -> None:
    assert Preprocess.from_json(RULE.to_json()) == RULE


def test_the_centre_square_is_kept() -> None:
    """At its own height nothing is resampled: the middle columns come through as they are."""
    columns = np.zeros((4, 10, 3), np.uint8)
    columns[:, :, 0] = np.arange(10)
    pixels = RULE.pixels(Image.fromarray(columns))
    assert pixels[0, :, 0].tolist() == [3, 4, 5, 6]
    assert pixels.shape == (4, 4, 3)


def test_normalise_by_hand() -> None:
    pixels = torch.tensor([[[[10, 28, 14]]]], dtype=torch.uint8)
    assert RULE.normalise(pixels).flatten().tolist() == [0.0, 2.0, -2.0]
    assert RULE.normalise(pixels).shape == (1, 3, 1, 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", "large"),
        ("size", 0),
        ("crop", 1.5),
        ("crop", "half"),
        ("interpolation", "psychic"),
        ("mean", 5),
        ("mean", [1, 2]),
        ("std", [1, 0, 1]),
        ("std", ["a", "b", "c"]),
        ("colour", "BGR"),
    ],
)
def test_nonsense_is_refused(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=r"^preprocess"):
        Preprocess.from_json({**RULE.to_json(), key: value})


def test_missing_and_unknown_keys_are_refused() -> None:
    with pytest.raises(UsageError, match="preprocess: crop: is missing"):
        Preprocess.from_json({"size": 4})
    with pytest.raises(UsageError, match="preprocess: zoom: no such field"):
        Preprocess.from_json({**RULE.to_json(), "zoom": 4})
