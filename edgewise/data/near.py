"""Groups of images that are copies of each other, to the byte or nearly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgewise.data.facts import FactTable

BLANK = 2.0  # grey levels of standard deviation: below, there is nothing to compare
BANDS, BAND_BITS = 4, 16  # of a hash: two that differ in 3 bits have one of 4 bands alike
MOST_BITS = 3
MOST_COMPARED = 64  # of one band: where very many look alike, each is held against so many
# Correlation of two small copies. Photos that are resized, recompressed or cropped by a few pixels
# have 0.99 and more; the two most similar of 5,000 MNIST digits have just less.
ALIKE = 0.99
# Levels of 255 that a channel may differ by, less the grey, with all as strong on the whole. With
# brightness, contrast, saturation or white balance a little off, photos come to 20 at most; emoji
# that are as good as equal in grey, such as a purple and a pink heart or two flags, to 44 and more.
MOST_TINT = 30.0
PAIRS_AT_ONCE = 4096

Indices = NDArray[np.int64]


def exact_copies(facts: FactTable) -> list[list[int]]:
    """Indices of files with the same bytes, in groups of two and more."""
    return _groups(_by_content(facts))


def near_copies(facts: FactTable) -> list[list[int]]:
    """Indices of usable images that look alike but are not the same bytes, in groups.

    Time and memory grow with the number of images, not with its square. Two images are alike if
    their hashes differ in three bits at most, their small grey copies correlate and their colours
    are near: resized, recompressed, brightened or cropped by a few pixels. A drawing in another
    colour is none, nor is a grey copy of a colourful photo. Chains are one group. An image whose
    bytes are there several times is in its group once, by its first file; blank ones are in none.
    """
    leader = np.arange(len(facts))
    first = _by_content(facts) == leader
    usable = np.flatnonzero(facts.usable & first & (facts.spread >= BLANK))
    for one, other in _candidates(usable, facts.hash):
        for at in range(0, len(one), PAIRS_AT_ONCE):
            some = slice(at, at + PAIRS_AT_ONCE)
            _join(leader, one[some], other[some], facts)
    return _groups(_flat(leader))


def _by_content(facts: FactTable) -> Indices:
    """(N,): for each file the first one with its bytes; for one that can't be used, itself."""
    order = np.lexsort(facts.sha256.T)
    order = order[facts.usable[order]]  # equal ones side by side, each run in ascending order
    leader = np.arange(len(facts))
    if len(order):
        begins = np.ones(len(order), np.bool_)
        begins[1:] = (facts.sha256[order[1:]] != facts.sha256[order[:-1]]).any(1)
        leader[order] = order[begins][np.cumsum(begins) - 1]
    return leader


def _candidates(usable: Indices, hashes: NDArray[np.uint64]) -> Iterator[tuple[Indices, Indices]]:
    """Pairs whose hashes are near, many at a time."""
    for band in range(BANDS):
        shift, mask = np.uint64(band * BAND_BITS), np.uint64((1 << BAND_BITS) - 1)
        keys = hashes[usable] >> shift & mask
        order = np.lexsort((hashes[usable], keys))
        images, keys = usable[order], keys[order]
        for step in range(1, min(MOST_COMPARED, len(images) - 1) + 1):
            same = keys[step:] == keys[:-step]
            if not same.any():
                break
            one, other = images[:-step][same], images[step:][same]
            near = _bits(hashes[one] ^ hashes[other]) <= MOST_BITS
            yield one[near], other[near]


def _bits(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The number of ones in each; NumPy has a function for it only from 2.0 on."""
    ones: NDArray[np.int64] = np.unpackbits(values.view(np.uint8).reshape(-1, 8), axis=1).sum(1)
    return ones


def _join(leader: Indices, one: Indices, other: Indices, facts: FactTable) -> None:
    """Puts those pairs that are alike into one group each."""
    leader[:] = _flat(leader)
    apart = leader[one] != leader[other]
    one, other = one[apart], other[apart]
    same = alike(facts.small[one], facts.small[other])
    one, other = one[same], other[same]
    same = coloured_alike(facts.colours[one], facts.colours[other])
    for pair in zip(one[same].tolist(), other[same].tolist(), strict=True):
        first, second = (_find(leader, index) for index in pair)
        leader[max(first, second)] = min(first, second)


def alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Grey (N, pixels) twice -> (N,): whether two images show the same, however light."""
    first, second = (values - values.mean(1, keepdims=True, dtype=float) for values in (one, other))
    product = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    result: NDArray[np.bool_] = (first * second).sum(1) >= ALIKE * np.maximum(product, 1e-9)
    return result


def coloured_alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """RGB (N, pixels, 3) twice -> (N,): whether images that show the same do so in one colour.

    Brightness and contrast may differ, as far as they do so in all places and channels alike.
    """
    # As strong as each other at the geometric mean; 1 keeps noise from being made strong.
    first, second = (values.std((1, 2), keepdims=True) + 1 for values in (one, other))
    ratio = np.sqrt(second / first)
    first, second = (values - values.mean(2, keepdims=True) for values in (one, other))
    result: NDArray[np.bool_] = np.abs(first * ratio - second / ratio).max((1, 2)) <= MOST_TINT
    return result


def _find(leader: Indices, index: int) -> int:
    while leader[index] != index:
        index = int(leader[index])
    return index


def _flat(leader: Indices) -> Indices:
    """Each one's last leader, in one step."""
    while not np.array_equal(further := leader[leader], leader):
        leader = further
    return leader


def _groups(leader: Indices) -> list[list[int]]:
    """The groups of two and more, in the order of their first members."""
    order = np.argsort(leader, kind="stable")
    begins = np.flatnonzero(np.diff(leader[order], prepend=-1))
    sizes = np.diff(begins, append=len(order))
    several = zip(begins[sizes > 1], sizes[sizes > 1], strict=True)
    return [order[begin : begin + size].tolist() for begin, size in several]
