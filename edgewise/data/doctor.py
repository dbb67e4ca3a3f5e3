"""Would training on this data be sound? Every file is decoded, and what is odd is named."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgewise.data.facts import Facts, gather
from edgewise.data.labelled import Labelled
from edgewise.data.near import exact_copies, near_copies
from edgewise.data.scan import scan
from edgewise.data.split import SPLITS
from edgewise.progress import track

ERROR, WARNING, NOTE = "error", "warning", "note"
MOST_UNREADABLE = 0.05  # of all files: above, something is wrong with the whole
IMBALANCE = 5  # times as many images in the largest class as in the smallest
FEW = 10  # images of a class, below which its accuracy can't be told
TINY = 32  # pixels of the shorter side
LONG = 5  # times the shorter side
BLANK = 2.0  # grey levels of standard deviation


@dataclass(frozen=True)
class Finding:
    """Something that a person should know.

    Attributes:
        kind: a word or two for it, such as "copies in two splits".
        severity: "error" if training would be unsound, "warning" if it may be, or "note".
        text: a sentence with the number and the mend.
        groups: the files that it is about, relative to the data's root; copies of one another are
            in one group.
    """

    kind: str
    severity: str
    text: str
    groups: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Examination:
    """What the doctor saw.

    Attributes:
        root: of the data; absolute.
        images: files that say they are images.
        usable: those that can be decoded.
        classes: usable images of each class, by split; "all" where the layout has no splits.
        sizes: median width and height of the usable ones, in pixels.
        findings: the worst first.
    """

    root: str
    images: int
    usable: int
    classes: dict[str, dict[str, int]]
    sizes: tuple[int, int]
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity != ERROR for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values, with "sound"."""
        return {**asdict(self), "sound": self.sound}


def examine(path: Path, workers: int = 0) -> Examination:
    """Looks at every image of a folder or a file; see `scan`. Nothing is changed.

    Args:
        path: the folder or file.
        workers: processes that decode; 0 does it in this one.

    Raises:
        UsageError: there is nothing to train on here; the message says what was expected.
    """
    found = scan(path)
    paths = [image.path for image in found.images]
    facts = list(track(gather(paths, workers), "looking at images", len(paths)))
    usable = [fact for fact in facts if not fact.reason]
    case = _Case(found.root, found.images, facts)
    findings = [
        *(
            Finding("cut off", ERROR, f"{damage}. Put the whole file back.")
            for damage in found.damage
        ),
        *(Finding("layout", WARNING, warning) for warning in found.warnings),
        *case.findings(),
    ]
    order = (ERROR, WARNING, NOTE)
    middle = len(usable) // 2
    return Examination(
        root=str(found.root),
        images=len(facts),
        usable=len(usable),
        classes={
            name: {split: case.counts[name][split] for split in case.splits}
            for name in found.classes
        },
        sizes=(
            sorted(fact.width for fact in usable)[middle] if usable else 0,
            sorted(fact.height for fact in usable)[middle] if usable else 0,
        ),
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
    )


class _Case:
    """The images with their facts, and the questions that are asked of them."""

    def __init__(self, root: Path, images: Sequence[Labelled], facts: Sequence[Facts]) -> None:
        self.root, self.images, self.facts = root, images, facts
        self.counts: dict[str, dict[str, int]] = defaultdict(Counter)
        given = {image.split or "all" for image in images}
        self.splits = [split for split in (*SPLITS, "all") if split in given]
        for image, fact in zip(images, facts, strict=True):
            self.counts[image.label][image.split or "all"] += not fact.reason

    def findings(self) -> Iterator[Finding]:
        """All of them."""
        yield from self._unreadable()
        yield from self._copies()
        yield from self._classes()
        yield from self._odd_images()
        yield from self._names()

    def _unreadable(self) -> Iterator[Finding]:
        bad = [i for i, fact in enumerate(self.facts) if fact.reason]
        if bad:
            part = len(bad) / len(self.facts)
            reasons = Counter(self.facts[i].reason for i in bad).most_common(3)
            told = "; ".join(f"{count:,} x {reason}" for reason, count in reasons)
            yield Finding(
                "unreadable",
                ERROR if part > MOST_UNREADABLE else WARNING,
                f"files that can't be used: {len(bad):,} ({part:.1%}), which training leaves out. "
                f"{told}",
                self._each(bad),
            )

    def _copies(self) -> Iterator[Finding]:
        """Copies across splits and across labels are errors; the others waste a little time."""
        for groups, what in (
            (exact_copies(self.facts), "the same bytes"),
            (near_copies(self.facts), "nearly the same picture"),
        ):
            exact = what == "the same bytes"
            labels = [g for g in groups if len({self.images[i].label for i in g}) > 1]
            splits = [
                g for g in groups if g not in labels and len({self.images[i].split for i in g}) > 1
            ]
            rest = [g for g in groups if g not in labels and g not in splits]
            prefix = "" if exact else "near "
            if labels:
                yield Finding(
                    f"{prefix}copies with two labels",
                    ERROR if exact else WARNING,
                    f"pictures that have more than one label ({what}): {len(labels):,}. At most "
                    "one can be right: delete or relabel the others.",
                    self._groups(labels),
                )
            if splits:
                yield Finding(
                    f"{prefix}copies in two splits",
                    ERROR,
                    f"pictures that are in more than one split ({what}): {len(splits):,}. Accuracy "
                    "would be measured on what was learned: keep each in one split.",
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

    def _classes(self) -> Iterator[Finding]:
        totals = {name: sum(counts.values()) for name, counts in self.counts.items()}
        given = [split for split in SPLITS if any(image.split == split for image in self.images)]
        for split in given:
            absent = [name for name, counts in self.counts.items() if not counts[split]]
            if absent:
                yield Finding(
                    "missing class",
                    ERROR if split == "train" else WARNING,
                    f"no usable image in {split} of: {', '.join(absent)}.",
                )
        if given and "val" not in given:
            yield Finding(
                "no validation", NOTE, "there is no split val: training takes it out of train."
            )
        few = [f"{name} ({count})" for name, count in totals.items() if count < FEW]
        if few:
            yield Finding(
                "few images",
                WARNING,
                f"fewer than {FEW} usable images of: {', '.join(few)}. Their accuracy can't be "
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

    def _odd_images(self) -> Iterator[Finding]:
        usable = [(i, fact) for i, fact in enumerate(self.facts) if not fact.reason]
        for kind, chosen, text in (
            (
                "tiny",
                [i for i, fact in usable if min(fact.width, fact.height) < TINY],
                f"with a side below {TINY} pixels",
            ),
            (
                "long",
                [
                    i
                    for i, fact in usable
                    if max(fact.width, fact.height) > LONG * min(fact.width, fact.height)
                ],
                f"more than {LONG} times as long as wide, of which a crop shows a part",
            ),
            (
                "blank",
                [i for i, fact in usable if fact.spread < BLANK],
                "of one colour, or nearly, in which there may be nothing to see",
            ),
        ):
            if chosen:
                few = len(chosen) < len(usable) / 2  # if all are tiny, that is how the data is
                yield Finding(
                    kind,
                    WARNING if few else NOTE,
                    f"images {text}: {len(chosen):,}",
                    self._each(chosen),
                )
        modes = Counter(fact.mode for _, fact in usable if fact.mode not in ("RGB", "L"))
        if modes:
            told = ", ".join(f"{count:,} {mode}" for mode, count in modes.most_common())
            yield Finding("modes", NOTE, f"stored in other ways than RGB or grey: {told}.")

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
        path = self.images[index].path
        below = path.is_relative_to(self.root)
        return path.relative_to(self.root).as_posix() if below else str(path)
