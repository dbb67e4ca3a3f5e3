"""What can be wrong with labelled images, and how bad each is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewise.data.facts import FactTable
from edgewise.data.labelled import Labelled, relative
from edgewise.data.near import BLANK, exact_copies, near_copies
from edgewise.data.split import SPLITS, Photo, assign, to_carve
from edgewise.errors import some

ERROR, WARNING, NOTE = "error", "warning", "note"
MOST_UNREADABLE = 0.05  # of all files: above, something is wrong with the whole
MOST_LEAKED = 0.01  # of the images outside of train: above, accuracy is off by as much
IMBALANCE = 5  # times as many images in the largest class as in the smallest
FEW = 10  # images of a class, below which its accuracy can't be told
TINY = 32  # pixels of the shorter side
LONG = 5  # times the shorter side


@dataclass(frozen=True)
class Finding:
    """Something that a person should know.

    Attributes:
        kind: a word or two for it, such as "copies in two splits".
        severity: "error" if training would be unsound, "warning" if it may be, or "note".
        text: a sentence with the number and the mend.
        groups: the files that it is about, relative to the data's root; copies of one another are
            in one group.
        details: of each group what is special about it, such as its size; or empty.
    """

    kind: str
    severity: str
    text: str
    groups: tuple[tuple[str, ...], ...] = ()
    details: tuple[str, ...] = ()


class Case:
    """The images with their facts, and the questions that are asked of them.

    Attributes:
        counts: usable images of each class, by split; "all" where the layout has no splits.
        splits: those that there are.
        carve: the parts that training takes out of train by hash; see `to_carve`.
        sides: the split of each image; where there are near copies, with what is carved.
        different: the usable images, of those that are copies, to the byte or nearly, the first.
    """

    def __init__(self, root: Path, images: Sequence[Labelled], facts: FactTable) -> None:
        self.root, self.images, self.facts = root, images, facts
        self.counts: dict[str, dict[str, int]] = defaultdict(Counter)
        given = {image.split or "all" for image in images}
        self.splits = [split for split in (*SPLITS, "all") if split in given]
        for image, usable in zip(images, facts.usable.tolist(), strict=True):
            self.counts[image.label][image.split or "all"] += usable
        self.exact, self.near = exact_copies(facts), near_copies(facts)
        self.carve = to_carve(given)
        self.sides = [image.split for image in images]
        if self.carve and self.near:  # copies to the byte stay together
            self._take_sides()
        repeated = {i for groups in (self.exact, self.near) for g in groups for i in g[1:]}
        self.different = [images[i] for i in facts.where(facts.usable) if i not in repeated]

    def findings(self) -> Iterator[Finding]:
        """All of them."""
        yield from self._unreadable()
        yield from self._copies()
        yield from self._classes()
        yield from self._odd_images()
        yield from self._names()

    def _unreadable(self) -> Iterator[Finding]:
        bad = self.facts.reasons
        if bad:
            part = len(bad) / len(self.facts)
            reasons = Counter(bad.values()).most_common(3)
            told = "; ".join(f"{count:,} x {reason}" for reason, count in reasons)
            yield Finding(
                "unreadable",
                ERROR if part > MOST_UNREADABLE else WARNING,
                f"files that can't be used: {len(bad):,} ({part:.1%}), which training leaves out. "
                f"{told}",
                self._each(list(bad)),
                tuple(bad.values()),
            )

    def _copies(self) -> Iterator[Finding]:
        """Copies across splits and across labels are errors; the others waste a little time."""
        for groups, what, exact in (
            (self.exact, "the same bytes", True),
            (self.near, "nearly the same picture", False),
        ):
            labels = [g for g in groups if len({self.images[i].label for i in g}) > 1]
            splits = [g for g in groups if len({self.sides[i] for i in g}) > 1]
            carved = self.carve and not exact
            rest = [g for g in groups if len({self._place(i) for i in g}) == 1]
            prefix = "" if exact else "near "
            if labels:
                yield Finding(
                    f"{prefix}copies with two labels",
                    ERROR if exact else WARNING,
                    f"pictures that have more than one label ({what}): {len(labels):,}. At most "
                    "one can be right: delete or relabel the others.",
                    self._groups(labels),
                    tuple(self._labels(group) for group in labels),
                )
            if splits:
                # Where nobody chose the splits it may be how all of a class look: on white, say.
                leaks = exact or (not carved and self._leaked(splits) > MOST_LEAKED)
                yield Finding(
                    f"{prefix}copies in two splits",
                    ERROR if leaks else WARNING,
                    f"pictures that {'training would put into' if carved else 'are in'} more than "
                    f"one split ({what}): {len(splits):,}. Accuracy would be measured on what was "
                    "learned: "
                    + (
                        "leave one of each, or give the data splits (folders train, val and test, "
                        "or a column split) and keep each in one."
                        if carved
                        else "keep each in one split."
                    ),
                    self._groups(splits),
                )
            if rest:
                count = sum(len(group) - 1 for group in rest)
                yield Finding(
                    f"{prefix}copies",
                    NOTE,
                    f"files that repeat a picture of their class ({what}): {count:,}",
                    self._groups(rest),
                )

    def _leaked(self, groups: Sequence[Sequence[int]]) -> float:
        """How much of the images outside of train is in these groups."""
        held = sum(side not in (None, "train") for side in self.sides)
        return sum(self.sides[i] != "train" for group in groups for i in group) / held

    def _take_sides(self) -> None:
        usable = self.facts.where(self.facts.usable)
        photos = [  # the paths don't matter
            Photo(
                self.root,
                self.images[i].label,
                self.images[i].split,
                self.facts.sha256[i].tobytes().hex(),
            )
            for i in usable
        ]
        for i, side in zip(usable, assign(photos, self.carve), strict=True):
            self.sides[i] = side

    def _place(self, index: int) -> tuple[str, str | None]:
        return self.images[index].label, self.sides[index]

    def _labels(self, group: Sequence[int]) -> str:
        return " or ".join(dict.fromkeys(self.images[i].label for i in group))

    def _classes(self) -> Iterator[Finding]:
        totals = {name: sum(counts.values()) for name, counts in self.counts.items()}
        given = [split for split in SPLITS if any(image.split == split for image in self.images)]
        for split in given:
            absent = [name for name, counts in self.counts.items() if not counts[split]]
            if split == "val" and len(absent) == len(self.counts):
                yield Finding("no validation", ERROR, "no image in val is usable: add some.")
            elif absent:
                yield Finding(
                    "missing class",
                    ERROR if split == "train" else WARNING,
                    f"no usable image in {split} of: {some(absent)}.",
                )
        if given and "val" not in given:
            able = any(count > 1 for count in self._contents("train").values())
            yield Finding(
                "no validation",
                NOTE if able else ERROR,
                "there is no split val: training takes it out of train"
                + ("." if able else ", where no class has two images that differ."),
            )
        contents = self._contents()
        alone = [f"{name} ({count})" for name, count in contents.items() if count < 2]
        if alone:
            yield Finding(
                "too few images",
                ERROR,
                f"fewer than two usable images that differ of: {some(alone)}. Training needs "
                "one to learn from and one to check with: add some, or leave the class out.",
            )
        few = [
            f"{name} ({count})"
            for name, count in totals.items()
            if count < FEW and contents[name] > 1
        ]
        if few:
            yield Finding(
                "few images",
                WARNING,
                f"fewer than {FEW} usable images of: {some(few)}. Their accuracy can't be "
                "told from so few; add some.",
            )
        largest, smallest = max(totals.values()), max(min(totals.values()), 1)
        if largest > IMBALANCE * smallest:
            names = sorted(totals, key=totals.__getitem__)
            yield Finding(
                "imbalance",
                WARNING,
                f"'{names[-1]}' has {largest:,} images and '{names[0]}' {totals[names[0]]:,}, "
                f"{largest / smallest:.0f} to 1: look at the accuracy of each class, not at the "
                "whole.",
            )

    def _contents(self, split: str = "") -> Counter[str]:
        """Usable images of each class, in a split or all, of which no two have the same bytes."""
        found = Counter(
            {
                name: counts[split] if split else sum(counts.values())
                for name, counts in self.counts.items()
            }
        )
        for group in self.exact:
            copies = Counter(
                self.images[i].label for i in group if split in ("", self.images[i].split)
            )
            found.subtract({name: count - 1 for name, count in copies.items()})
        return found

    def _odd_images(self) -> Iterator[Finding]:
        shorter, longer = self.facts.sizes.min(1), self.facts.sizes.max(1)
        for kind, odd, text in (
            ("tiny", shorter < TINY, f"with a side below {TINY} pixels"),
            (
                "long",
                longer > LONG * shorter,
                f"more than {LONG} times as long as wide, of which a crop shows a part",
            ),
            (
                "blank",
                self.facts.spread < BLANK,
                "of one colour, or nearly, in which there may be nothing to see",
            ),
        ):
            if chosen := self.facts.where(odd):
                few = self._few(chosen)
                listed = chosen if few else []
                yield Finding(
                    kind,
                    WARNING if few else NOTE,
                    f"images {text}: {len(chosen):,}",
                    self._each(listed),
                    tuple("{} x {}".format(*self.facts.sizes[i]) for i in listed),
                )
        if self.facts.modes:
            modes = sorted(self.facts.modes.items(), key=lambda item: -len(item[1]))
            odd_ones = [(mode, i) for mode, group in modes if self._few(group) for i in group]
            told = ", ".join(f"{len(indices):,} {mode}" for mode, indices in modes)
            yield Finding(
                "modes",
                NOTE,
                f"stored in other ways than RGB or grey, and read as RGB: {told}.",
                self._each([i for _, i in odd_ones]),
                tuple(mode for mode, _ in odd_ones),
            )

    def _few(self, indices: Sequence[int]) -> bool:
        """Whether these are the exception; if most images are so, that is how the data is."""
        return 2 * len(indices) < int(self.facts.usable.sum())

    def _names(self) -> Iterator[Finding]:
        lowered: dict[str, list[int]] = defaultdict(list)
        for i, image in enumerate(self.images):
            lowered[str(image.path).casefold()].append(i)
        clashes = [group for group in lowered.values() if len(group) > 1]
        if clashes:
            yield Finding(
                "names",
                WARNING,
                f"names that differ only in case: {len(clashes):,}. On Windows and macOS one file "
                "would replace the other: rename them.",
                self._groups(clashes),
            )
        folded: dict[str, list[str]] = defaultdict(list)
        for name in self.counts:
            folded[name.casefold()].append(name)
        for same in folded.values():
            if len(same) > 1:
                yield Finding(
                    "class names",
                    ERROR,
                    f"the classes {' and '.join(same)} differ only in case: are they one?",
                )

    def _each(self, indices: Sequence[int]) -> tuple[tuple[str, ...], ...]:
        return self._groups([[i] for i in indices])

    def _groups(self, groups: Sequence[Sequence[int]]) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(self._name(i) for i in group) for group in groups)

    def _name(self, index: int) -> str:
        return relative(self.images[index].path, self.root)
