"""Augmentation of whole batches against Pillow's operations on the same images, one by one."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from photos import picture
from PIL import Image

from edgewise.data.augment import Augment, Changes, fill_of, relit
from edgewise.data.device_augment import change
from edgewise.data.policies import OPERATIONS_OF_PAIRS, POLICIES
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

PREPROCESS = Preprocess(45, 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD)
FILL = fill_of(PREPROCESS)
STRENGTHS = (-3.0, -1.0, -0.7, -1 / 30, 0.0, 0.2, 0.5, 0.9, 1.0, 1.9, 2.5, 3.0)
# In float64 and float32 each sum is rounded alike, so on x86 nothing may differ. A processor that
# multiplies and adds in one go may come to the other side of a whole number now and then.
MAY_DIFFER = 0.0 if platform.machine() in ("x86_64", "AMD64") else 0.001
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def pictures(width: int, height: int) -> list[Image.Image]:
    """A smooth one, noise, a dark one of few values, and one of a single colour."""
    random = np.random.default_rng(width)
    noise = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return [
        picture(3, width, height),
        Image.fromarray(noise),
        Image.fromarray(noise // 64 * 9 + 20),
        Image.new("RGB", (width, height), (9, 200, 255)),
    ]


def changed(
    images: Sequence[Image.Image | NDArray[np.uint8]], changes: Sequence[Changes], device: str
) -> NDArray[np.uint8]:
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).to(device)
    before = pixels.clone()
    after = change(pixels, changes, PREPROCESS)
    assert torch.equal(pixels, before)
    assert (after.dtype, after.shape, after.device) == (torch.uint8, pixels.shape, pixels.device)
    return after.cpu().numpy()


def assert_same(ours: NDArray[np.uint8], theirs: Sequence[Image.Image | NDArray[np.uint8]]) -> None:
    different = ours != np.stack([np.asarray(image) for image in theirs])
    assert different.mean() <= MAY_DIFFER, different.mean(axis=(1, 2, 3))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(40, 40), (61, 47), (16, 33), (331, 3)])
@pytest.mark.parametrize("name", OPERATIONS_OF_PAIRS)
def test_an_operation_is_pillows(name: str, size: tuple[int, int], device: str) -> None:
    operation = OPERATIONS_OF_PAIRS[name]
    pairs = [(image, strength) for image in pictures(*size) for strength in STRENGTHS]
    ours = changed(
        [image for image, _ in pairs],
        [Changes(((name, operation.amount(strength)),)) for _, strength in pairs],
        device,
    )
    theirs = [operation(image, strength, FILL) for image, strength in pairs]
    assert_same(ours, theirs)
    assert (ours != np.stack([np.asarray(image) for image, _ in pairs])).any() == (
        name != "identity"
    )


@pytest.mark.parametrize("device", DEVICES)
def test_jitter_is_pillows(device: str) -> None:
    plain, lit = (Augment(policy="none", jitter=jitter) for jitter in (0.0, 1.0))
    images = pictures(45, 45) * 20
    made, todo, expected = [], [], []
    for seed, image in enumerate(images):
        pixels, changes = lit.planned(image, PREPROCESS, np.random.default_rng(seed))
        random = np.random.default_rng(seed)
        view = Image.fromarray(plain.pixels(image, PREPROCESS, random))
        expected.append(relit(view, 1.0, random))
        made.append(pixels)
        todo.append(changes)
    assert_same(changed(made, todo, device), expected)
    assert all(len(changes.steps) == 3 for changes in todo)
    assert len({tuple(name for name, _ in changes.steps) for changes in todo}) == 6  # orders


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("jitter", [0.0, 0.4])
@pytest.mark.parametrize("policy", [*POLICIES, "none"])
def test_a_batch_that_is_planned_is_the_workers(policy: str, jitter: float, device: str) -> None:
    """The same draws, too: after both, the generators stand at the same place."""
    augment = Augment(policy=policy, magnitude=9, jitter=jitter)
    made, todo, expected = [], [], []
    for seed in range(60):
        one, two = np.random.default_rng(seed), np.random.default_rng(seed)
        pixels, changes = augment.planned(picture(seed, 70, 50), PREPROCESS, one)
        expected.append(augment.pixels(picture(seed, 70, 50), PREPROCESS, two))
        assert one.bit_generator.state == two.bit_generator.state
        made.append(pixels)
        todo.append(changes)
    assert_same(changed(made, todo, device), expected)
    assert (np.stack(made) != np.stack(expected)).any() == (policy != "none" or jitter > 0)


@pytest.mark.parametrize("device", DEVICES)
def test_holes_are_the_workers_and_their_noise_is_the_datas(device: str) -> None:
    augment, white = Augment(policy="none", erase=0.5), Image.new("RGB", (60, 60), "white")
    made, todo, expected = [], [], []
    for seed in range(120):
        pixels, changes = augment.planned(white, PREPROCESS, np.random.default_rng(seed))
        expected.append(augment.pixels(white, PREPROCESS, np.random.default_rng(seed)))
        made.append(pixels)
        todo.append(changes)
    holes = np.zeros((120, 45, 45), bool)
    for hole, changes in zip(holes, todo, strict=True):
        if changes.hole:
            left, top, right, bottom = changes.hole
            hole[top:bottom, left:right] = True
    assert 40 < holes.any((1, 2)).sum() < 80
    here, there = changed(made, todo, device), np.stack(expected)
    for pixels in (here, there):
        assert (pixels[~holes] == 255).all()
        assert abs(pixels[holes].mean(0) - IMAGENET_MEAN).max() < 1.5
    assert (here[holes] != there[holes]).mean() > 0.9  # of another generator


@pytest.mark.parametrize("device", DEVICES)
def test_noise_has_the_datas_mean_and_deviation(device: str) -> None:
    black = np.zeros((200, 200, 3), np.uint8)
    holes = [Changes((), (0, 0, 200, 200), seed) for seed in range(20)]
    noise = changed([black] * 20, holes, device).reshape(-1, 3).astype(float)
    normal = np.random.default_rng(0).normal(IMAGENET_MEAN, IMAGENET_STD, (800_000, 3))
    data = normal.round().clip(0, 255)  # bytes end there, which takes 1 to 2 of the deviation
    assert abs(noise.mean(0) - data.mean(0)).max() < 0.3  # four standard errors of both
    assert abs(noise.std(0) - data.std(0)).max() < 0.3
    for other in (noise[1:, 0], noise[:-1, 1]):  # of the next pixel and of the next channel
        assert abs(np.corrcoef(noise[:-1, 0], other)[0, 1]) < 0.01


@pytest.mark.parametrize("device", DEVICES)
def test_noise_depends_on_the_image_only(device: str) -> None:
    black, state = np.zeros((20, 30, 3), np.uint8), torch.get_rng_state()
    plain, one, two = Changes(()), *(Changes((), (3, 5, 29, 17), seed) for seed in (1, 2**63 - 1))
    whole = changed([black] * 3, [plain, one, two], device)
    turned = changed([black] * 2, [two, one], device)
    assert (turned == whole[:0:-1]).all()
    assert (torch.get_rng_state() == state).all()
    assert (whole[1] != whole[2]).mean() > 0.5
    assert not whole[0].any()
    whole[:, 5:17, 3:29] = 0
    assert not whole.any()


def test_only_what_was_drawn_is_done() -> None:
    """Images with unlike numbers of operations, in one batch."""
    images = pictures(32, 24)
    todo = [
        Changes(()),
        Changes((("invert", 0.0),)),
        Changes((("identity", 0.0), ("solarize", 100), ("rotate", 12.5))),
        Changes((("translate y", 0.25), ("invert", 0.0), ("shear x", 0.1), ("posterize", 3))),
    ]
    expected = []
    for image, changes in zip(images, todo, strict=True):
        for name, amount in changes.steps:
            image = OPERATIONS_OF_PAIRS[name].apply(image, amount, FILL)
        expected.append(image)
    assert_same(changed(images, todo, "cpu"), expected)
