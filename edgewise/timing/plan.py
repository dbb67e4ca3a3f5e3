"""What to measure: networks x threads, and for each of these the candidates side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgewise.deploy.predictor import open_model
from edgewise.errors import UsageError, missing_package, unknown
from edgewise.families import variant
from edgewise.measure.count import count
from edgewise.measure.latency import machine
from edgewise.measure.store import OURS
from edgewise.timing.onnx_file import SUFFIX, read_input
from edgewise.timing.peers import PEER_RUNTIMES, PEERS
from edgewise.weights.pretrained import resolve

if TYPE_CHECKING:
    from edgewise.timing.runtimes import Runtime

ALL = "all"
PRECISIONS = ("fp32", "bf16", "int8")


@dataclass(frozen=True)
class Candidate:
    """One way to run a network.

    Attributes:
        library: whose network: "edgewise", "timm" or "torchvision".
        runtime: a name in `RUNTIMES`.
        precision: "fp32", "bf16" or "int8".
    """

    library: str
    runtime: str
    precision: str

    def __str__(self) -> str:
        ours = "" if self.library == OURS else f"{self.library} in "
        return f"{ours}{self.runtime} {self.precision}"


@dataclass(frozen=True)
class Group:
    """One network at one input shape and number of threads: what is timed in turns.

    Attributes:
        model: a name, a folder or an ONNX file.
        imgsz: height and width of its input, in pixels; 0 for a file of its own shape.
        batch: images in one call.
        threads: that a call may use.
        candidates: in the order of the table.
    """

    model: str
    imgsz: int
    batch: int
    threads: int
    candidates: tuple[Candidate, ...]

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.model}, {self.imgsz} px, batch {self.batch}, {threads}"


def make_plan(
    models: Sequence[str],
    known: Mapping[str, Runtime],
    runtimes: Sequence[str] = (ALL,),
    precisions: Sequence[str] = ("fp32",),
    threads: Sequence[int] = (1,),
    batch: int = 1,
    imgsz: int | None = None,
    against: Sequence[str] = (),
) -> tuple[Group, ...]:
    """One group for each network and number of threads.

    Args:
        models: names, folders or ONNX files.
        known: the runtimes by name.
        runtimes: names, or "all" for those that are installed.
        precisions: of each runtime those of them that it has; a file has its own.
        threads: numbers of threads.
        batch: images in one call.
        imgsz: height and width in pixels; None for what each network was published for.
        against: libraries whose network of the same name is timed too.

    Raises:
        UsageError: a name is unknown, a runtime or library is not installed, no runtime has the
            precision, the image is too small for a network, the machine has fewer cores, or nothing
            would be timed against a library.
    """
    for library in against:
        if library not in PEERS:
            raise unknown("library", library, PEERS)
    _check_threads(threads)
    chosen = _runtimes(runtimes, known)
    if against:
        _check_against(against, models, chosen)
    candidates = [
        Candidate(OURS, runtime, precision)
        for runtime in chosen
        for precision in _precisions(precisions, chosen, known)
        if precision in known[runtime].precisions
    ]
    candidates += [
        Candidate(library, runtime, "fp32")
        for library in against
        for runtime in chosen
        if runtime in PEER_RUNTIMES
    ]
    shared = tuple(candidates)
    plain = [
        _file_group(model, imgsz, batch, chosen, known)
        if model.endswith(SUFFIX)
        else Group(model, _size(model, imgsz), batch, 1, shared)
        for model in dict.fromkeys(models)
    ]
    return tuple(replace(group, threads=number) for group in plain for number in threads)


def _check_against(against: Sequence[str], models: Sequence[str], runtimes: Sequence[str]) -> None:
    named = " and ".join(against)
    if not set(runtimes) & set(PEER_RUNTIMES):
        raise UsageError(
            f"{named} can't be timed in {', '.join(runtimes)}, only in {', '.join(PEER_RUNTIMES)}. "
            "Name one of these with --runtime too, or leave --against out."
        )
    if own := [model for model in models if model.endswith(SUFFIX) or Path(model).is_dir()]:
        what = "folder" if Path(own[0]).is_dir() else "file"
        raise UsageError(
            f"{own[0]} is a {what}, whose network no library has by name: {named} can't be timed "
            "against it. Leave --against out for it, or give the network's name instead."
        )


def _file_group(
    model: str, imgsz: int | None, batch: int, runtimes: Sequence[str], known: Mapping[str, Runtime]
) -> Group:
    """For one thread. The file has its own precision, and maybe its own size and batch."""
    taken = read_input(Path(model), imgsz, batch)
    able = [name for name in runtimes if known[name].read]
    if not able:
        readers = ", ".join(name for name, runtime in known.items() if runtime.read)
        raise UsageError(f"{model}: ONNX files are run by {readers}, not by {', '.join(runtimes)}.")
    candidates = tuple(Candidate(OURS, name, taken.precision) for name in able)
    return Group(model, taken.imgsz, taken.shape[0], 1, candidates)


def absent(known: Mapping[str, Runtime]) -> dict[str, str]:
    """The runtimes that are not installed, and the extra that brings each ("" if none does)."""
    return {name: runtime.extra for name, runtime in known.items() if runtime.version() is None}


def _runtimes(names: Sequence[str], known: Mapping[str, Runtime]) -> list[str]:
    missing = absent(known)
    if ALL in names:
        return [name for name in known if name not in missing]
    for name in names:
        if name not in known:
            raise unknown("runtime", name, (*known, ALL))
        if name in missing:
            if missing[name]:
                raise missing_package(name, missing[name])
            raise UsageError(f"{name} can't run on this machine.")
    return list(dict.fromkeys(names))


def _precisions(
    names: Sequence[str], runtimes: Sequence[str], known: Mapping[str, Runtime]
) -> list[str]:
    for name in names:
        if name not in PRECISIONS:
            raise unknown("precision", name, PRECISIONS)
        if not any(name in known[runtime].precisions for runtime in runtimes):
            raise UsageError(f"none of {', '.join(runtimes)} has {name} here")
    return list(dict.fromkeys(names))


def _check_threads(threads: Sequence[int]) -> None:
    cores = int(machine()["cores"])
    for number in threads:
        if not 1 <= number <= cores:
            raise UsageError(
                f"{number} threads: this machine has {cores} cores for us, so 1 to {cores}"
            )


def _size(model: str, imgsz: int | None) -> int:
    """The input size of a network; checks that something is left of it at the network's end."""
    if Path(model).is_dir():
        opened = open_model(model)
        spec, size = opened.network.spec, imgsz or opened.preprocess.size
    else:
        alias = resolve(model)
        known = variant(alias.name)
        spec, size = known.spec(alias.width), imgsz or known.input_size
    count(spec, size)
    return size
