"""What was drawn for the images of a batch, done on all of them at once, on any torch device.

Pillow's arithmetic is followed: bytes after every operation, and its precision and its rounding
within each. So the result is that of the workers, but for the noise of random erasing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from edgewise.data.augment import Changes, fill_of
from edgewise.data.policies import AFFINE, Colour
from edgewise.preprocess import Preprocess

Step = tuple[str, float]
Key = TypeVar("Key")

LUMA = (19595, 38470, 7471)  # of red, green and blue, in 65536ths (ITU-R BT.601)
NOTHING = ("identity", 0.0)


def change(pixels: Tensor, changes: Sequence[Changes], preprocess: Preprocess) -> Tensor:
    """Does to each image of a batch what was drawn for it.

    The noise is drawn on the device, from the seed of each image: it is the same in any batch on
    such a device. torch's own random state is neither read nor moved.

    Args:
        pixels: uint8 (N, H, W, 3), on the device to work on; they are left as they are.
        changes: of each image.
        preprocess: whose mean fills what comes into an image from outside of it, and whose mean
            and deviation the noise has.

    Returns:
        The changed images, uint8 (N, H, W, 3).
    """
    views = pixels.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)
    fill = fill_of(preprocess)
    for steps in zip_longest(*(each.steps for each in changes), fillvalue=NOTHING):
        for kernel, rows in _places(KERNELS.get(name) for name, _ in steps).items():
            if kernel is not None:
                where = _beside(views, rows)
                views[where] = kernel(views[where], [steps[row] for row in rows], fill)
    _erase(views, changes, preprocess)
    return views.permute(0, 2, 3, 1).contiguous()


def _places(keys: Iterable[Key]) -> dict[Key, list[int]]:
    """Where each key is, counted from 0."""
    places: dict[Key, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return places


def _beside(views: Tensor, data: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of plain numbers on the device of others; a GPU is not waited for."""
    return torch.tensor(data, dtype=dtype).to(views.device, non_blocking=True)


def _amounts(views: Tensor, steps: Iterable[Step]) -> Tensor:
    """float64 (n,): as Pillow's operations are given them."""
    return _beside(views, [amount for _, amount in steps], torch.float64)


def _moved(views: Tensor, steps: Sequence[Step], fill: Colour) -> Tensor:
    """Bilinear sampling; beside an edge the outermost pixels count twice, beyond it is the fill."""
    height, width = views.shape[2:]
    data = [AFFINE[name](amount, width, height) for name, amount in steps]
    a, b, c, d, e, f = _beside(views, data, torch.float64).T[:, :, None, None]
    x = torch.arange(width, device=views.device) + 0.5
    y = (torch.arange(height, device=views.device) + 0.5)[:, None]
    across, down = a * x + b * y + c, d * x + e * y + f  # (n, H, W)
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    across, down = across - 0.5, down - 0.5
    left, top = across.floor(), down.floor()
    columns = [(left + i).clamp(0, width - 1).long() for i in (0, 1)]
    rows = [(top + i).clamp(0, height - 1).long() * width for i in (0, 1)]

    def line(row: Tensor) -> Tensor:
        near, far = (
            views.flatten(2).gather(2, (row + column).flatten(1)[:, None].expand(-1, 3, -1))
            for column in columns
        )
        return _between(near, far, (across - left).flatten(1)[:, None])

    sampled = _between(line(rows[0]), line(rows[1]), (down - top).flatten(1)[:, None])
    outside = _beside(views, fill, torch.uint8)[:, None, None]
    return torch.where(inside[:, None], sampled.to(torch.uint8).view_as(views), outside)


def _between(one: Tensor, two: Tensor, part: Tensor) -> Tensor:
    """In Pillow's order, which `torch.lerp` does not keep."""
    return one + (two.to(part.dtype) - one) * part


def _blend(zero: Tensor, one: Tensor, factors: Tensor) -> Tensor:
    """Bytes as far from `zero` towards `one` as the factors say, and past it if they are over 1."""
    return _between(zero.float(), one, factors.float()).clamp(0, 255).to(torch.uint8)


def _grey(views: Tensor) -> Tensor:
    """int32 (n, 1, H, W)."""
    red, green, blue = (views[:, i : i + 1].int() * weight for i, weight in enumerate(LUMA))
    return (red + green + blue + 2**15) >> 16


def _coloured(views: Tensor, steps: Sequence[Step], fill: Colour) -> Tensor:
    return _blend(_grey(views), views, _amounts(views, steps)[:, None, None, None])


def _sharpened(views: Tensor, steps: Sequence[Step], fill: Colour) -> Tensor:
    """Pillow's smooth image is the mean of 3 x 3 pixels, of which that in the middle counts five
    times; those at the border stay as they are.
    """
    smooth = views.float()
    middle = smooth[:, :, 1:-1, 1:-1]
    middle.copy_(((F.avg_pool2d(smooth, 3, 1, divisor_override=1) + 4 * middle) / 13).round())
    return _blend(smooth, views, _amounts(views, steps)[:, None, None, None])


def _mapped(views: Tensor, steps: Sequence[Step], fill: Colour) -> Tensor:
    """The operations that give all pixels of one value another, by a table for each channel."""
    tables = torch.empty(len(steps), 3, 256, dtype=torch.uint8, device=views.device)
    for name, rows in _places(name for name, _ in steps).items():
        where, amounts = _beside(views, rows), _amounts(views, (steps[row] for row in rows))
        table = TABLES[name](views[where], amounts[:, None, None]).to(torch.uint8)
        tables[where] = table.expand(-1, 3, -1)
    return tables.gather(2, views.flatten(2).long()).view_as(views)


def _values(views: Tensor) -> Tensor:
    return torch.arange(256, device=views.device)[None, None]


def _stretch(views: Tensor, amounts: Tensor) -> Tensor:
    """Auto contrast: from the least and the greatest value of a channel to 0 and 255."""
    values = _values(views)
    low, high = (value.double() for value in views.flatten(2).aminmax(dim=2, keepdim=True))
    scale = torch.full_like(low, 255) / (high - low)  # 255 / ... would round twice
    return torch.where(high > low, (values * scale - low * scale).clamp(0, 255), values)


def _equalize(views: Tensor, amounts: Tensor) -> Tensor:
    """The running sum of a channel's histogram; one with too few pixels for it stays as it is."""
    pixels = views.flatten(2).long()
    counts = pixels.new_zeros(len(views), 3, 256).scatter_add_(2, pixels, torch.ones_like(pixels))
    step = (pixels.shape[2] - counts.gather(2, pixels.amax(2, keepdim=True))) // 255
    table = (step // 2 + counts.cumsum(2) - counts) // step.clamp(min=1)
    return torch.where(step > 0, table.clamp(max=255), _values(views))


def _contrast(views: Tensor, amounts: Tensor) -> Tensor:
    """Away from the mean grey, to which all go at 0."""
    count, total = views[0, 0].numel(), _grey(views).flatten(1).sum(1)[:, None, None]
    return _blend((2 * total + count) // (2 * count), _values(views), amounts)


def _brightness(views: Tensor, amounts: Tensor) -> Tensor:
    return _blend(torch.zeros_like(amounts), _values(views), amounts)


def _solarize(views: Tensor, amounts: Tensor) -> Tensor:
    values = _values(views)
    return torch.where(values < amounts, values, 255 - values)


def _posterize(views: Tensor, amounts: Tensor) -> Tensor:
    cut = 8 - amounts.long()
    return _values(views) >> cut << cut


def _invert(views: Tensor, amounts: Tensor) -> Tensor:
    return 255 - _values(views)


# uint8 (n, 3, H, W) and amounts (n, 1, 1) -> what each value becomes, (n or 1, 3 or 1, 256).
TABLES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "auto contrast": _stretch,
    "equalize": _equalize,
    "solarize": _solarize,
    "posterize": _posterize,
    "contrast": _contrast,
    "brightness": _brightness,
    "invert": _invert,
}

# By one kernel, all images whose operations are its own: few large calls keep a GPU busy.
KERNELS: dict[str, Callable[[Tensor, Sequence[Step], Colour], Tensor]] = {
    **dict.fromkeys(AFFINE, _moved),
    **dict.fromkeys(TABLES, _mapped),
    "color": _coloured,
    "sharpness": _sharpened,
}


def _erase(views: Tensor, changes: Sequence[Changes], preprocess: Preprocess) -> None:
    """Covers the holes of uint8 (N, 3, H, W) with noise, in place."""
    rows = [row for row, each in enumerate(changes) if each.hole]
    if not rows:
        return
    where, holes, mean, std = (
        _beside(views, data)
        for data in (rows, [changes[row].hole for row in rows], preprocess.mean, preprocess.std)
    )
    noise = torch.empty(len(rows), *views.shape[1:], device=views.device)
    generator = torch.Generator(views.device)
    for each, row in zip(noise, rows, strict=True):
        each.normal_(generator=generator.manual_seed(changes[row].seed))
    noise = noise * std[:, None, None] + mean[:, None, None]
    noise = (noise + 0.5).clamp(0, 255).to(torch.uint8)
    left, top, right, bottom = holes.T[:, :, None, None, None]
    x = torch.arange(views.shape[3], device=views.device)
    y = torch.arange(views.shape[2], device=views.device)[:, None]
    hole = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    views[where] = torch.where(hole, noise, views[where])
