"""The runtime that answers fastest on this machine: measured once, kept with `edgewise bench`'s."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from edgewise.deploy.artifact import Artifact
from edgewise.deploy.predictor import Predictor, Way, open_predictor, verified_artifact, ways
from edgewise.deploy.verify import OWN_TOLERANCE, TOLERANCE
from edgewise.errors import EdgewiseError
from edgewise.files import sha256_file
from edgewise.measure.latency import machine
from edgewise.measure.rounds import FEWEST_ROUNDS, Here, interleave
from edgewise.measure.store import FAILED, OK, OURS, WRONG, Row, Store, fingerprint, new_row, now
from edgewise.run_folder import Run

SECONDS = 0.5  # of timed calls of each runtime


def open_fastest(source: str | Path, store: Store | None = None) -> Predictor:
    """`source` in the runtime that was the fastest here, one image a call and with all cores.

    Where more than one runtime can answer and it is not known which is the fastest, that is
    measured now, in about a second for each, and said on standard error.

    Args:
        source: a model name, a run folder, a model folder or an exported file.
        store: of what was measured; None for the one of `edgewise bench`.

    Raises:
        UsageError: `source` is none of these, or can't be read as what it is.
    """
    known = ways(source)
    if len(known) > 1:
        row = _blank(source)
        rows = _stored(row, known, store) or _measure(source, known, row, store)
        timed = [row for row in rows if row.status == OK]
        best = min(timed, key=lambda row: row.median_ms or 0, default=rows[0])
        return known[best.runtime].open()
    return open_predictor(source)


def _stored(blank: Row, known: Mapping[str, Way], store: Store | None) -> list[Row]:
    """The rows of today's versions, or none if one of them was not measured yet."""
    try:
        every = (store or Store()).rows()
    except EdgewiseError:
        return []  # to answer is more than to be fast
    rows = [
        row
        for row in every
        # Not by the name: a file has as many as there are ways to write its path.
        if (row.machine, row.graph, row.threads) == (blank.machine, blank.graph, blank.threads)
        and row.runtime in known
        and row.version == known[row.runtime].version
        and row.precision == blank.precision
    ]
    return rows if {row.runtime for row in rows} == known.keys() else []


def _blank(source: str | Path) -> Row:
    """A row that no runtime's facts are in yet."""
    path = Path(source)
    if Artifact.is_artifact(path):
        path = Artifact.read(path).path
    exported = path if path.is_file() else verified_artifact(Run(path))
    files = [exported] if exported == path else [Run(path).weights, exported]
    graph = fingerprint([sha256_file(file) for file in files if file])
    row = new_row(now(), None, str(source), graph, 0, 1, int(machine()["cores"]))
    folder = exported.parent if exported else path
    precision = Artifact.read(folder).info.precision if Artifact.is_artifact(folder) else "fp32"
    return replace(row, library=OURS, precision=precision)


def _measure(
    source: str | Path, known: Mapping[str, Way], blank: Row, store: Store | None
) -> list[Row]:
    """A row for each; the first is right, and who differs from it is not timed."""
    first, *others = known
    opened, failures = {first: known[first].open()}, {}
    for name in others:
        try:
            opened[name] = known[name].open()
        except EdgewiseError as error:  # the first can read it, and answers
            failures[name] = str(error)
    side = opened[first].preprocess.size
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    answers = {name: predictor.probabilities(pixels) for name, predictor in opened.items()}
    errors = {n: float(np.abs(answer - answers[first]).max()) for n, answer in answers.items()}
    most = TOLERANCE if blank.precision == "fp32" else OWN_TOLERANCE
    right = [name for name in opened if errors[name] <= most]
    candidates = {name: Here(partial(opened[name].probabilities, pixels)) for name in right}
    timings, _ = interleave(candidates, SECONDS, FEWEST_ROUNDS)
    rows = []
    for name in known:
        row = replace(blank, imgsz=side, runtime=name, version=known[name].version)
        if name in timings:
            rows.append(row.timed(timings[name]))
        elif name in failures:
            rows.append(replace(row, status=FAILED, reason=failures[name]))
        else:
            wrong = f"its probabilities are up to {errors[name]:.1e} from {first}'s"
            rows.append(replace(row, status=WRONG, reason=wrong))
    times = (f"{row.runtime} {row.median_ms:.3g} ms" for row in rows if row.median_ms)
    print(f"measured on this machine, once: {', '.join(times)}", file=sys.stderr)
    try:
        (store or Store()).add(rows)
    except EdgewiseError as error:
        print(f"not kept: {error}", file=sys.stderr)
    return rows
