"""Would training on this data be sound? Every file is decoded, and what is odd is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.data.facts import FactTable, gather
from edgewise.data.findings import ERROR, NOTE, WARNING, Case, Finding
from edgewise.data.labelled import Labelled, relative
from edgewise.data.scan import scan
from edgewise.progress import track

MANY_SUSPECTS = 0.01  # of the images looked at: below, they are what is hard in any data


@dataclass(frozen=True)
class Suspect:
    """An image whose label may be wrong.

    Attributes:
        path: relative to the data's root if it is below it.
        label: its own.
        probable: the class that it more probably is.
        probability: of `probable`.
        own: the probability of its label.
    """

    path: str
    label: str
    probable: str
    probability: float
    own: float


@dataclass(frozen=True)
class Opinion:
    """What a second opinion on the labels came to.

    Attributes:
        text: a sentence: who looked at how many, or why nobody did.
        suspects: the surest first.
        looked: at how many images.
    """

    text: str
    suspects: tuple[Suspect, ...] = ()
    looked: int = 0


SecondOpinion = Callable[[Sequence[Labelled]], Opinion]


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
        labels: the second opinion on the labels; None if none was asked for.
    """

    root: str
    images: int
    usable: int
    classes: dict[str, dict[str, int]]
    sizes: tuple[int, int]
    findings: tuple[Finding, ...]
    labels: Opinion | None = None

    @property
    def sound(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity != ERROR for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values, with "sound"."""
        return {**asdict(self), "sound": self.sound}


def examine(
    path: str | Path, workers: int = 0, second_opinion: SecondOpinion | None = None
) -> Examination:
    """Looks at every image of a folder or a file; see `scan`. Nothing is changed.

    Args:
        path: the folder or file.
        workers: processes that decode; 0 does it in this one.
        second_opinion: asked about the labels, with the usable images that are no copies. The
            paths of its suspects are absolute.

    Raises:
        UsageError: there is nothing to train on here; the message says what was expected.
        EdgewiseError: a process was killed.
    """
    found = scan(Path(path))
    paths = [image.location for image in found.images]
    with closing(gather(paths, workers)) as gathered:
        facts = FactTable(track(gathered, "looking at images", len(paths)), len(paths))
    case = Case(found.root, found.images, facts)
    findings = [
        *(
            Finding("cut off", ERROR, f"{damage}. Put the whole file back.")
            for damage in found.damage
        ),
        *(Finding("layout", WARNING, warning) for warning in found.warnings),
        *case.findings(),
    ]
    opinion = second_opinion(case.different) if second_opinion else None
    if opinion and opinion.suspects:
        opinion = replace(
            opinion, suspects=tuple(_relative(s, found.root) for s in opinion.suspects)
        )
        findings.append(_suspects(opinion))
    order = (ERROR, WARNING, NOTE)
    usable = int(facts.usable.sum())
    width, height = np.median(facts.sizes[facts.usable], axis=0) if usable else (0, 0)
    return Examination(
        root=str(found.root),
        images=len(facts),
        usable=usable,
        classes={
            name: {split: case.counts[name][split] for split in case.splits}
            for name in found.classes
        },
        sizes=(int(width), int(height)),
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
        labels=opinion,
    )


def _relative(suspect: Suspect, root: Path) -> Suspect:
    return replace(suspect, path=relative(Path(suspect.path), root))


def _suspects(opinion: Opinion) -> Finding:
    """Advice: it never makes the data unsound, since a hard image looks like a wrong label."""
    suspects = opinion.suspects
    return Finding(
        "labels that look wrong",
        WARNING if len(suspects) > MANY_SUSPECTS * opinion.looked else NOTE,
        f"images that look like another class than their label's: {len(suspects):,} of "
        f"{opinion.looked:,} looked at. Look at them and relabel those that are wrong.",
        tuple((suspect.path,) for suspect in suspects),
        tuple(f"{s.label}, looks like {s.probable} ({s.probability:.0%})" for s in suspects),
    )
