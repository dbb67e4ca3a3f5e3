"""Exported files as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgewise.deploy.artifact import GOLDEN
from edgewise.deploy.golden import read_golden
from edgewise.deploy.verification import NOT_RUN
from edgewise.reporting.columns import columns
from edgewise.reporting.numbers import filesize, percent

if TYPE_CHECKING:
    from edgewise.deploy.artifact import Artifact
    from edgewise.deploy.verification import Seen, Verification

HEADER = ("FORMAT", "PRECISION", "SIZE", "ACCURACY", "95 %", "AGREES", "MEDIAN", "P90", "STATUS")
ALIGNMENT = "<<>>>>>><"


def exported_table(made: Sequence[Artifact]) -> str:
    """Where each is, how large, and to how many golden inputs it gives the model's top class."""
    lines, notes = [("FOLDER", "SIZE", "AGREES")], []
    for item in made:
        golden = read_golden(item.folder / GOLDEN)
        count, same = len(golden.pixels), golden.agreeing
        agrees = "-" if same is None else f"{same} of {count}"
        lines.append((str(item.folder), filesize(item.bytes), agrees))
        if same is not None and 2 * same < count:
            notes.append(
                f"warning: {item.info.name} has another top class than the model for "
                f"{count - same} of its {count} golden inputs. Compare them on your own images "
                "before you use it."
            )
    return "\n".join([columns(lines, "<>>"), *notes])


def verified_table(seen: Verification) -> str:
    """A line for each, under a line of what they are held to."""
    lines = [HEADER, *(_line(item) for item in seen.artifacts)]
    notes = _held_to(seen)
    if seen.gone:
        notes.append(
            f"{seen.gone}; the files that run here were held to their golden inputs alone, and "
            "what was seen is not kept"
        )
    for item in seen.artifacts:
        if item.float_layers:
            notes.append(f"{item.name} computes in float: {', '.join(item.float_layers)}")
        if item.not_here:
            notes.append(f"{item.name} was not run: {item.not_here}")
    return "\n".join([columns(lines, ALIGNMENT), *notes])


def _held_to(seen: Verification) -> list[str]:
    """A line on the model; two if it learned to compute in int8 and is not as good in float."""
    models = {item.precision == "int8": item for item in reversed(seen.artifacts) if item.images}
    rights = {int8: percent(item.accuracy_model or 0) for int8, item in models.items()}
    learned = len(set(rights.values())) > 1
    return [
        f"the model in PyTorch{(' in float', ' in int8')[int8] if learned else ''}: "
        f"{rights[int8]} of {item.images:,} {seen.split} images"
        for int8, item in sorted(models.items())[: 1 + learned]
    ]


def golden_table(seen: Seen) -> str:
    """One that was held to its golden inputs alone, or not run at all."""
    notes = []
    if seen.golden:
        notes = [
            f"held to its {seen.golden} golden inputs alone: it is in no run, so has no images"
        ]
    elif seen.status == NOT_RUN:
        why = seen.not_here or "nothing here runs it"
        notes = [f"only its checksums were checked: {why}"]
    return "\n".join([columns([HEADER, _line(seen)], ALIGNMENT), *notes])


def _line(seen: Seen) -> tuple[str, ...]:
    return (
        seen.format or seen.name,
        seen.precision,
        filesize(seen.bytes) if seen.bytes else "-",
        "-" if seen.accuracy is None else percent(seen.accuracy),
        "-"
        if seen.accuracy_low is None or seen.accuracy_high is None
        else f"{100 * seen.accuracy_low:.1f}-{100 * seen.accuracy_high:.1f}",
        "-" if seen.agreement is None else percent(seen.agreement),
        "-" if seen.median_ms is None else f"{seen.median_ms:.3g} ms",
        "-" if seen.p90_ms is None else f"{seen.p90_ms:.3g} ms",
        seen.status,
    )
