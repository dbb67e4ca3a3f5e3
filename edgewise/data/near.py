"""Groups of images that are copies of each other, to the byte or nearly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from edgewise.data.facts import Facts

BANDS, BAND_BITS = 4, 16  # of a hash: two that differ in 3 bits have one of 4 bands alike
MOST_BITS = 3
MOST_COMPARED = 64  # of one band: where very many look alike, each is held against so many
ALIKE = 4.0  # grey levels: the mean difference of two small copies, each less its own mean


def exact_copies(facts: Sequence[Facts]) -> list[list[int]]:
    """Indices of files with the same bytes, in groups of two and more."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, fact in enumerate(facts):
        if not fact.reason:
            groups[fact.sha256].append(index)
    return [group for group in groups.values() if len(group) > 1]


def near_copies(facts: Sequence[Facts]) -> list[list[int]]:
    """Indices of usable images that look alike but are not the same bytes, in groups.

    Time and memory grow with the number of images, not with its square. Two images are alike if
    their hashes differ in three bits at most and their small grey copies by four levels: resized,
    recompressed, slightly brightened or cropped by a few pixels. Chains are one group. An image
    whose bytes are there several times is in its group once, by its first file.
    """
    seen: set[bytes] = set()
    usable = []
    for index, fact in enumerate(facts):
        if not fact.reason and fact.sha256 not in seen:
            seen.add(fact.sha256)
            usable.append(index)
    leader = {index: index for index in usable}

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    for one, other in _candidates(usable, facts):
        first, second = find(one), find(other)
        if first != second and alike(facts[one], facts[other]):
            leader[max(first, second)] = min(first, second)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in usable:
        groups[find(index)].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _candidates(usable: Sequence[int], facts: Sequence[Facts]) -> Iterator[tuple[int, int]]:
    for band in range(BANDS):
        buckets: dict[int, list[int]] = defaultdict(list)
        for index in usable:
            value = facts[index].hash >> (band * BAND_BITS) & (1 << BAND_BITS) - 1
            bucket = buckets[value]
            for other in bucket[-MOST_COMPARED:]:
                yield other, index
            bucket.append(index)


def alike(one: Facts, other: Facts) -> bool:
    """Whether two images are copies but for how they are stored."""
    if (one.hash ^ other.hash).bit_count() > MOST_BITS:
        return False
    first, second = (np.frombuffer(fact.small, np.uint8).astype(float) for fact in (one, other))
    return float(np.abs((first - first.mean()) - (second - second.mean())).mean()) <= ALIKE
