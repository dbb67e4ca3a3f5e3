"""Where the milliseconds of the file that is about to be tested go: its network, row by row."""

from __future__ import annotations

from collections.abc import Sequence

from edgewise.errors import UsageError
from edgewise.measure.count import count
from edgewise.run_folder import Run
from edgewise.search.decisions import Numbers
from edgewise.search.finishing import likeliest
from edgewise.search.latency_table import Additivity
from edgewise.search.latency_table_parts import Whole, row_of, rows_of
from edgewise.search.latency_table_times import WRITERS, CantTime, DeviceTimes
from edgewise.search.state import State
from edgewise.search.ways import Way
from edgewise.timing.runtimes import RUNTIMES
from edgewise.weights.folder import load_model

SECONDS = 4.0  # that a row takes at most: to be written, sent, loaded and timed


def timed_rows(search: State, files: Sequence[Numbers]) -> Numbers:
    """Each row of the likeliest file's network on the device, and by how much their sum is off.

    Rows are ONNX files of their own with random weights, as those of NetAdapt's table: in the
    file's runtime and precision where that can be, else in the nearest that can.

    Returns:
        "rows": of each its place, what it is ("words"), "ms" and "macs"; "whole_ms" of the network
        end to end; "additivity", by which part the sum is above that; "runtime" and "precision" of
        all of them; the "run" whose network it is. Or "failure": why there are none.

    Raises:
        EdgewiseError: the device went away.
    """
    file = likeliest(files)
    way, readers = Way.of(file), [r for r in search.facts.runtimes if RUNTIMES[r].read]
    if not readers:
        return {"failure": f"rows are timed as ONNX files, and {search.device.name} reads none"}
    runtime = way.runtime if way.runtime in readers else readers[0]
    precision = way.precision if way.precision in WRITERS else "fp32"
    run = Run(search.folder.at(file["folder"]).parents[1])
    model = load_model(run.model)
    spec, size = model.network.spec, model.preprocess.size
    rows, whole = rows_of(spec, size), Whole(spec, size)
    try:
        times = DeviceTimes(search.device, runtime, precision)
        new = {part.graph for part in (whole, *rows.values())} - times.known.keys()
        if SECONDS * len(new) > 60 * search.spare:
            return {"failure": "there was no time left to time its rows"}
        ms = times.of([whole, *rows.values()])
    except (CantTime, UsageError) as error:  # the store of rows may be damaged
        return {"failure": str(error)}
    macs = dict.fromkeys(rows, 0)
    for layer in count(spec, size).layers:
        macs[row_of(layer.name)] += layer.macs
    seen = Additivity({place: ms[row] for place, row in rows.items()}, ms[whole])
    return {
        "rows": [
            {"place": place, "words": row.words, "ms": ms[row], "macs": macs[place]}
            for place, row in rows.items()
        ],
        "whole_ms": seen.whole_ms,
        "additivity": seen.error,
        "run": search.folder.place(run.root),
        "runtime": runtime,
        "precision": precision,
    }
