"""The ways to ship a network: a format, a precision of it, and a runtime that reads the file."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edgewise.deploy.formats import FORMATS, PRECISIONS, Format, format_named
from edgewise.errors import missing_package, unknown
from edgewise.search.decisions import Numbers
from edgewise.search.device_client import PACKAGES

# Formats of which a device can be asked to time files.
SEARCHED = tuple(
    name
    for name, format in FORMATS.items()
    if any(reader.name in PACKAGES for reader in format.readers)
)
ONNX = "onnx"  # the format of whatever doesn't say one: once there was no other in a search
OPENVINO = "openvino"
THROUGHOUT = "int8 throughout"  # the end of a step whose files have no layer left in float


@dataclass(frozen=True)
class Way:
    """One way to ship a network.

    Attributes:
        format: of the file, see `edgewise.deploy.formats.FORMATS`.
        precision: "fp32", "fp16", "bf16" or "int8".
        runtime: that reads the file on the device, as `edgewise bench` calls it.
    """

    format: str
    precision: str
    runtime: str

    @classmethod
    def of(cls, numbers: Numbers) -> Way:
        """That of a file or a candidate in the log of decisions."""
        return cls(numbers.get("format", ONNX), numbers["precision"], numbers["runtime"])

    @property
    def name(self) -> str:
        """Of the exported file's folder, as in "onnx-int8"."""
        return f"{self.format}-{self.precision}"

    @property
    def file(self) -> str:
        """For a person: the precision, with the format where it isn't the runtime's only or own."""
        read = [name for name, format in FORMATS.items() if self.runtime in _runtimes(format)]
        plain = len(read) == 1 or self.format == self.runtime
        return self.precision if plain else f"{self.format} {self.precision}"

    def __str__(self) -> str:
        return f"{self.file} in {self.runtime}"


def ways_to(
    formats: Sequence[str], precisions: Sequence[str], runtimes: Collection[str], device: str
) -> tuple[tuple[Way, ...], tuple[str, ...]]:
    """The ways that can be had of those that are asked for, and why the others can't.

    A file is written and checked here, so a format needs what writes it and one of its runtimes
    here, and one on the device. A runtime gets its own format where that is asked for and can be
    written: it is the faster one.

    Args:
        formats: by their names; the ways come in their order.
        precisions: of each, as far as it has them.
        runtimes: on the device.
        device: its name.

    Returns:
        The ways; and a sentence for each format and precision of which there is none, with what
        would bring it.

    Raises:
        UsageError: there is no such format or precision at all.
    """
    found: list[Way] = []
    reasons: list[str] = []
    for format in [format_named(name) for name in formats]:
        adds = _adds(format, precisions, formats)
        there = [way for way in adds if way.runtime in runtimes]
        reason = _never(format, precisions)
        if adds and not reason:
            reason = _not_here(format) or ("" if there else _not_there(format, device))
        if reason:
            reasons.append(f"{format.name}: {reason}")
        else:
            found += there
    for precision in precisions:
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        if not any(precision in FORMATS[name].precisions for name in formats):
            able = [f.name for f in FORMATS.values() if precision in f.precisions and _timed(f)]
            reasons.append(
                f"{precision}: {' and '.join(formats)} can't have it; add --format {able[0]}"
            )
    return tuple(found), tuple(reasons)


def _adds(format: Format, precisions: Sequence[str], formats: Sequence[str]) -> list[Way]:
    """What it has on a device with every runtime, but for what a runtime's own format has."""
    return [
        Way(format.name, precision, runtime)
        for precision in precisions
        if precision in format.precisions
        for runtime in _timed(format)
        if runtime == format.name or not _has(runtime, precision, formats)
    ]


def _has(format: str, precision: str, formats: Sequence[str]) -> bool:
    """Whether it is one of these formats, and can be written in that precision here."""
    if format not in formats:
        return False
    return precision in FORMATS[format].precisions and not FORMATS[format].missing()


def _never(format: Format, precisions: Sequence[str]) -> str:
    """Why it has no way on any device."""
    if format.name not in SEARCHED:
        return (
            "no device can be asked to time it. Make one of the run that the tested file is in: "
            f"edgewise export RUN --format {format.name}"
        )
    if not set(precisions) & set(format.precisions):
        return f"it has no {' and no '.join(precisions)} here, but {', '.join(format.precisions)}"
    return ""


def _not_here(format: Format) -> str:
    """Why it can't be written and checked here."""
    checked = any(reader.version() for reader in format.readers)
    package = format.missing() or ("" if checked else format.readers[0].package)
    return str(missing_package(package, format.extra)) if package else ""


def _not_there(format: Format, device: str) -> str:
    names = _timed(format)
    return (
        f"{device} has no {' and no '.join(names)}. Install it there: pip install numpy "
        f"{PACKAGES[names[0]]}"
    )


def _runtimes(format: Format) -> list[str]:
    return [reader.name for reader in format.readers]


def _timed(format: Format) -> list[str]:
    """Those of its runtimes that a device can be asked to time."""
    return [name for name in _runtimes(format) if name in PACKAGES]
