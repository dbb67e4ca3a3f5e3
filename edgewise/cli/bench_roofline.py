"""`edgewise bench --roofline`: how much of what this machine could do is reached, and where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from edgewise.cli.bench_text import setting
from edgewise.shell import command_line

if TYPE_CHECKING:
    from edgewise.measure.profile_result import Profile
    from edgewise.measure.store import Row, Store
    from edgewise.timing.plan import Group
    from edgewise.timing.roofline import Ceiling


def print_roofline(
    plan: Sequence[Group], precisions: Sequence[str], store: Store, as_json: bool
) -> None:
    """The ceilings, and for each network its least time, its best measured one and its layers."""
    from edgewise.measure.profile import profile
    from edgewise.timing.roofline import measure_ceilings
    from edgewise.timing.subject import unchanged

    wanted = dict.fromkeys(p for group in plan for p in _precisions(group, precisions).values())
    ceilings = {
        threads: measure_ceilings(tuple(wanted), threads)
        for threads in dict.fromkeys(group.threads for group in plan)
    }
    models = dict.fromkeys(group.model for group in plan)
    rows = [row for model in models for row in unchanged(store.latest([model]), model)]
    networks = []
    for group in plan:
        counted = profile(group.model, group.imgsz or None, group.batch)
        for precision, by in _precisions(group, precisions).items():
            ceiling = ceilings[group.threads][by]
            networks.append(_network(group, counted, precision, ceiling, rows))
    if as_json:
        every = [asdict(ceiling) for found in ceilings.values() for ceiling in found.values()]
        click.echo(json.dumps({"ceilings": every, "networks": networks}, indent=2))
        return
    for by_precision in ceilings.values():
        for ceiling in by_precision.values():
            click.echo(_ceiling(ceiling))
    for network in networks:
        click.echo()
        _print_network(network)


def _precisions(group: Group, asked: Sequence[str]) -> dict[str, str]:
    """Those of its least times, each with that of the ceilings.

    A file has its own, whatever is asked for. In "fp16" its numbers are as wide as in "bf16", and
    its sums no faster.
    """
    from edgewise.timing.onnx_file import SUFFIX

    own = (group.candidates[0].precision,) if group.model.endswith(SUFFIX) else asked
    return {precision: "bf16" if precision == "fp16" else precision for precision in own}


def _network(
    group: Group, profile: Profile, precision: str, ceiling: Ceiling, rows: Sequence[Row]
) -> dict[str, Any]:
    """As plain values; "measured" is None if the store has no time of it."""
    from edgewise.timing.roofline import bounds

    layers = [
        {**asdict(bound), "ideal_ms": bound.ideal_ms, "by": bound.by}
        for bound in bounds(profile, ceiling)
    ]
    ideal_ms = sum(layer["ideal_ms"] for layer in layers)
    best = _best(group, precision, rows)
    measured = best and {
        "runtime": best.runtime,
        "median_ms": best.median_ms,
        # A file that multiplies nothing has no least time.
        "times_ideal": (best.median_ms or 0) / ideal_ms if ideal_ms else None,
    }
    return {
        "model": group.model,
        "imgsz": group.imgsz,
        "batch": group.batch,
        "threads": group.threads,
        "precision": precision,
        "ideal_ms": ideal_ms,
        "measured": measured,
        "layers": layers,
    }


def _best(group: Group, precision: str, rows: Sequence[Row]) -> Row | None:
    """The fastest that was measured of the same thing on this processor, as the ceilings were."""
    from edgewise.measure.store import OK, OURS, machine_fingerprint
    from edgewise.timing.runtimes import CUDA

    shape = (group.model, group.imgsz, group.batch, group.threads)
    same = [
        row
        for row in rows
        if (row.model, row.imgsz, row.batch, row.threads) == shape
        and (row.machine, row.library, row.status, row.precision)
        == (machine_fingerprint(), OURS, OK, precision)
        and row.runtime != CUDA
    ]
    return min(same, key=lambda row: row.median_ms or 0, default=None)


def _ceiling(ceiling: Ceiling) -> str:
    from edgewise.reporting.numbers import plural

    (_, cached), (_, memory) = ceiling.bandwidth[0], ceiling.bandwidth[-1]
    return (
        f"{ceiling.precision}, {plural(ceiling.threads, 'thread')}: {ceiling.gmacs:.3g} GMAC/s, "
        f"{cached:.3g} GB/s in a cache, {memory:.3g} GB/s from memory"
    )


def _measuring(network: dict[str, Any]) -> str:
    """The command line that measures it."""
    from edgewise.timing.onnx_file import SUFFIX

    plain = {"imgsz": 0, "batch": 1, "threads": 1, "precision": "fp32"}
    if network["model"].endswith(SUFFIX):  # which has its own
        plain["precision"] = network["precision"]
    more = [
        word
        for name, value in plain.items()
        if network[name] != value
        for word in (f"--{name}", str(network[name]))
    ]
    return command_line("bench", network["model"], *more)


def _print_network(network: dict[str, Any]) -> None:
    from edgewise.reporting.columns import columns
    from edgewise.reporting.numbers import NBSP, filesize, scaled

    shape = (network[name] for name in ("model", "imgsz", "batch", "threads"))
    head = f"{setting(*shape)}, {network['precision']}: at least {network['ideal_ms']:.3g} ms"
    measured = network["measured"]
    click.secho(head, bold=True)
    if measured:
        more = f", {measured['times_ideal']:.2f} times that" if measured["times_ideal"] else ""
        click.echo(f"best measured: {measured['runtime']}, {measured['median_ms']:.3g} ms{more}")
    else:
        click.echo(f"not measured yet: {_measuring(network)}")
    layers = network["layers"]
    lines = [
        (
            *(layer["name"], layer["kind"], scaled(layer["macs"]), filesize(layer["bytes"])),
            *(f"{layer['ideal_ms']:.3f} ms", layer["by"]),
        )
        for layer in layers
    ]
    header = ("LAYER", "KIND", "MACS", "MOVED", "AT LEAST", "HELD BY")
    click.echo(columns([header, *lines], "<<>>><").replace(NBSP, " "))
