"""Augmentation against torchvision's operations on the same pictures."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
import torch
from oracles import import_timm, import_torchvision
from PIL import ExifTags, Image

from edgewise.data.augment import Augment, crop_box, erase, relit
from edgewise.data.decode import Encoded, decode_bytes
from edgewise.data.policies import (
    IMAGENET,
    MAX_MAGNITUDE,
    OPERATIONS,
    OPERATIONS_OF_PAIRS,
    POLICIES,
)
from edgewise.errors import UsageError
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

import_torchvision()
import_timm()
import torchvision.transforms.functional as F  # noqa: E402
from timm.data import auto_augment  # noqa: E402
from torchvision.transforms import (  # noqa: E402
    AutoAugment,
    AutoAugmentPolicy,
    ColorJitter,
    InterpolationMode,
    RandomErasing,
)

CAT = Image.fromarray(skimage.data.chelsea())
PREPROCESS = Preprocess(64, 0.875, "bicubic", IMAGENET_MEAN, IMAGENET_STD)
FILL = (124, 116, 104)
BILINEAR = InterpolationMode.BILINEAR


def affine(image: Image.Image, shift: tuple[int, int], shear: tuple[float, float]) -> Image.Image:
    degrees = [math.degrees(math.atan(slope)) for slope in shear]
    return F.affine(image, 0, list(shift), 1.0, degrees, BILINEAR, list(FILL))


# At strength s, as RandAugment's and AutoAugment's tables give them. An output pixel that moves
# right is one that the sampling moved left, hence the signs.
ORACLES: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, s: image,
    "auto contrast": lambda image, s: F.autocontrast(image),
    "equalize": lambda image, s: F.equalize(image),
    "rotate": lambda image, s: F.rotate(image, 30 * s, BILINEAR, fill=list(FILL)),
    "shear x": lambda image, s: affine(image, (0, 0), (0.3 * s, 0)),
    "shear y": lambda image, s: affine(image, (0, 0), (0, 0.3 * s)),
    "translate x": lambda image, s: affine(image, (-round(150 / 331 * 451 * s), 0), (0, 0)),
    "translate y": lambda image, s: affine(image, (0, -round(150 / 331 * 300 * s)), (0, 0)),
    "solarize": lambda image, s: F.solarize(image, round(256 - 256 * abs(s))),
    "posterize": lambda image, s: F.posterize(image, {0.2: 7, 0.5: 6, 1.0: 4}[abs(s)]),
    "color": lambda image, s: F.adjust_saturation(image, 1 + 0.9 * s),
    "contrast": lambda image, s: F.adjust_contrast(image, 1 + 0.9 * s),
    "brightness": lambda image, s: F.adjust_brightness(image, 1 + 0.9 * s),
    "sharpness": lambda image, s: F.adjust_sharpness(image, 1 + 0.9 * s),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("strength", [-1.0, -0.5, 0.2, 1.0])
def test_operations_are_torchvisions(name: str, strength: float) -> None:
    ours = np.asarray(OPERATIONS[name](CAT, strength, FILL)).astype(int)
    theirs = np.asarray(ORACLES[name](CAT, strength)).astype(int)
    assert ours.shape == theirs.shape
    # The centre's coefficients are added in another order, so a pixel of the border may differ.
    assert (np.abs(ours - theirs).max(axis=2) > 1).mean() < 0.001
    if strength == 1.0 and name != "identity":
        assert np.abs(ours - np.asarray(CAT)).mean() > 1


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("scale", "part"), [((1, 1), 4), ((0.3, 0.4), 2), ((0.05, 0.06), 1)])
def test_a_jpeg_is_decoded_no_finer_than_its_crop_needs(
    scale: tuple[float, float], part: int, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, exif = Image.fromarray(skimage.data.astronaut()[:300]), Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=95, exif=exif)
    asked: list[int] = []
    plain = Encoded.decode
    monkeypatch.setattr(
        Encoded, "decode", lambda self, part=1: asked.append(part) or plain(self, part)
    )
    augment = Augment(magnitude=0, scale=scale)
    for seed in range(5):
        coarse, fine = (
            augment.pixels(source, PREPROCESS, np.random.default_rng(seed)).astype(int)
            for source in (Encoded(buffer.getvalue()), decode_bytes(buffer.getvalue()))
        )
        # The same place of the same picture: a crop that is 3 pixels off differs by 8 and more.
        assert np.abs(coarse - fine).mean() < 2.5
    assert asked[1::2] == [part] * 5 and asked[::2] == [1] * 5


def test_the_papers_fourteen_operations() -> None:
    assert len(OPERATIONS) == len(ORACLES) == 14


def test_crops_are_uniform_in_area_and_in_bounds() -> None:
    random = np.random.default_rng(0)
    boxes = np.array([crop_box((500, 400), (0.35, 1.0), random) for _ in range(4000)])
    left, top, right, bottom = boxes.T
    width, height = right - left, bottom - top
    assert left.min() >= 0
    assert top.min() >= 0
    assert right.max() <= 500
    assert bottom.max() <= 400
    area = width * height / 200_000
    assert 0.345 < area.min() < 0.36
    assert area.max() > 0.9
    ratio = width / height
    assert 0.74 < ratio.min() < 0.77
    assert 1.31 < ratio.max() < 1.35
    # Small crops fit always, so their areas are spread evenly: [.35, .45] and [.45, .55] alike.
    low, high = ((area >= a) & (area < a + 0.1) for a in (0.35, 0.45))
    assert abs(low.sum() - high.sum()) < 5 * (low.sum() + high.sum()) ** 0.5
    # and where there is room, positions are spread over all of it
    part = left[width < 480] / (500 - width[width < 480])
    assert abs(part.mean() - 0.5) < 5 * (1 / 12 / len(part)) ** 0.5


@pytest.mark.parametrize("size", [(1, 1), (2, 90), (900, 10), (5, 400)])
def test_crops_of_strips(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        left, top, right, bottom = crop_box(size, (0.35, 1.0), random)
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]


def test_without_chance_it_is_a_plain_resize() -> None:
    square = CAT.crop((0, 0, 300, 300))
    augment = Augment(flip=False, magnitude=0, scale=(1, 1))
    views = {
        augment.pixels(square, PREPROCESS, np.random.default_rng(seed)).tobytes()
        for seed in range(40)
    }
    resized = F.resize(square, [64, 64], InterpolationMode.BICUBIC, antialias=True)
    assert np.asarray(resized).tobytes() in views


def test_flips_half_of_the_time_or_never() -> None:
    half = Image.new("RGB", (64, 64))
    half.paste("white", (0, 0, 8, 64))
    seen = {True: 0, False: 0}
    for flip in seen:
        augment = Augment(flip=flip, scale=(0.9, 1.0))
        for seed in range(400):
            view = augment.pixels(half, PREPROCESS, np.random.default_rng(seed)).astype(int)
            seen[flip] += int(view[:, -1].mean() > view[:, 0].mean())
    assert seen[False] == 0
    assert abs(seen[True] - 200) < 60


def test_depends_on_the_generator_only() -> None:
    augment = Augment(magnitude=9)
    same = [augment.pixels(CAT, PREPROCESS, np.random.default_rng((1, 2, 3))) for _ in range(2)]
    other = augment.pixels(CAT, PREPROCESS, np.random.default_rng((1, 2, 4)))
    assert same[0].shape == (64, 64, 3)
    assert same[0].dtype == np.uint8
    assert (same[0] == same[1]).all()
    assert (same[0] != other).any()


@pytest.mark.parametrize(
    "options",
    [
        {"magnitude": 31},
        {"magnitude": -1},
        {"scale": (0, 1)},
        {"scale": (0.5, 2)},
        {"policy": "mixaugment"},
        {"erase": 1.5},
        {"jitter": -0.1},
    ],
)
def test_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Augment(**options)


def test_autoaugments_pairs_are_torchvisions() -> None:
    theirs = AutoAugment(AutoAugmentPolicy.IMAGENET)._get_policies(AutoAugmentPolicy.IMAGENET)
    ours = [
        tuple(
            # They give no magnitude to what has no strength.
            (name.replace(" ", ""), p, None if name in PLAIN else level)
            for name, p, level in pair
        )
        for pair in IMAGENET
    ]
    assert ours == [tuple((name.lower(), p, level) for name, p, level in pair) for pair in theirs]


PLAIN = ("equalize", "auto contrast", "invert")


def test_invert_is_torchvisions() -> None:
    ours = OPERATIONS_OF_PAIRS["invert"](CAT, 0.3, FILL)
    assert np.array_equal(np.asarray(ours), np.asarray(F.invert(CAT)))


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_change_pictures_and_depend_on_the_generator_only(policy: str) -> None:
    views = [
        np.asarray(POLICIES[policy](CAT, 9, FILL, np.random.default_rng(seed)))
        for seed in (*range(20), *range(20))
    ]
    assert all(np.array_equal(views[i], views[i + 20]) for i in range(20))
    changed = [not np.array_equal(view, np.asarray(CAT)) for view in views[:20]]
    assert sum(changed) >= 12


@pytest.mark.parametrize("name", OPERATIONS)
def test_past_the_end_of_the_ranges_nothing_breaks(name: str) -> None:
    """EfficientNetV2 goes up to a magnitude of 25, which is a strength of 2.5."""
    for strength in (-3.0, 3.0):
        assert OPERATIONS[name](CAT, strength, FILL).size == CAT.size


@pytest.mark.parametrize("direction", [-1, 1])
def test_factors_are_timms_at_all_magnitudes(
    direction: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    timms = auto_augment._enhance_increasing_level_to_arg
    monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value: direction * value)
    for name in ("color", "contrast", "brightness", "sharpness"):
        for magnitude in range(MAX_MAGNITUDE + 1):
            factor = OPERATIONS[name].amount(direction * magnitude / 10)
            assert factor == pytest.approx(timms(magnitude, {})[0], rel=1e-12)


@pytest.mark.parametrize(("magnitude", "most"), [(15, 0), (25, 0.01), (30, 0.01)])
def test_strong_operations_leave_something_to_see(magnitude: int, most: float) -> None:
    """Weak contrast and then strong brightness make a light photo white, in timm too; no more."""
    photo = Image.fromarray(skimage.data.astronaut()).resize((96, 96))
    augment = Augment(magnitude=magnitude, scale=(0.7, 1.0))
    views = [augment.pixels(photo, PREPROCESS, np.random.default_rng(i)) for i in range(400)]
    assert sum(not np.ptp(view, axis=(0, 1)).any() for view in views) <= most * len(views)


def test_erased_boxes_are_noise_of_the_data_with_torchvisions_areas() -> None:
    random = np.random.default_rng(0)
    areas, noise = [], []
    for _ in range(600):
        pixels = np.full((64, 64, 3), 255, np.uint8)
        erase(pixels, PREPROCESS, random)
        hole = (pixels != 255).any(2)
        areas.append(hole.mean())
        noise.append(pixels[hole])
        rows, columns = hole.any(1).sum(), hole.any(0).sum()
        assert hole.sum() >= 0.98 * rows * columns  # a box; noise may be white here and there
    default = RandomErasing()
    drawn = [RandomErasing.get_params(TENSOR, default.scale, default.ratio) for _ in range(600)]
    theirs = [height * width / 64**2 for _, _, height, width, _ in drawn]
    assert np.mean(areas) == pytest.approx(np.mean(theirs), abs=0.015)
    assert np.std(areas) == pytest.approx(np.std(theirs), abs=0.015)
    assert np.concatenate(noise).mean(0) == pytest.approx(IMAGENET_MEAN, abs=2)


def test_other_light_is_torchvisions() -> None:
    adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)
    for seed in range(5):
        random = np.random.default_rng(seed)
        factors, expected = random.uniform(0.6, 1.4, 3), CAT
        for i in random.permutation(3):
            expected = adjust[i](expected, factors[i])
        seen = relit(CAT, 0.4, np.random.default_rng(seed))
        assert seen.tobytes() == expected.tobytes() != CAT.tobytes()
    theirs = ColorJitter(0.4, 0.4, 0.4)
    assert theirs.brightness == theirs.contrast == theirs.saturation == (0.6, 1.4)


def test_a_view_is_relit_as_it_is_told() -> None:
    square = CAT.crop((0, 0, 300, 300))
    plain, other = Augment(flip=False, scale=(1, 1)), Augment(flip=False, scale=(1, 1), jitter=0.4)
    views = [
        [a.pixels(square, PREPROCESS, np.random.default_rng(seed)) for seed in range(50)]
        for a in (plain, other)
    ]
    one, two = (np.std([view.mean() for view in each]) for each in views)
    assert one < 3 < 10 < two


TENSOR = torch.zeros(3, 64, 64)


def test_erases_as_often_as_it_is_told() -> None:
    augment = Augment(flip=False, scale=(1, 1), erase=0.25)
    plain = Augment(flip=False, scale=(1, 1))
    square = CAT.crop((0, 0, 300, 300))
    erased = 0
    for seed in range(300):
        views = [
            a.pixels(square, PREPROCESS, np.random.default_rng(seed)) for a in (augment, plain)
        ]
        erased += not np.array_equal(*views)
    assert 50 < erased < 100
