"""What `edgewise run` says of each decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgewise.reporting.columns import columns
from edgewise.reporting.numbers import filesize, percent, plural
from edgewise.reporting.search_record import WIDE
from edgewise.search.device_worker import BROKEN
from edgewise.search.pace import TIMED
from edgewise.search.ways import THROUGHOUT, Way

if TYPE_CHECKING:
    from edgewise.search.decisions import Numbers


def told(step: str, numbers: Numbers) -> str:
    """A few lines on a decision; "" where there is nothing to say."""
    if say := TEXTS.get(step.partition(":")[0]):
        return say(step, numbers)
    return ""


def _device(step: str, numbers: Numbers) -> str:
    runtimes = ", ".join(f"{name} {version}" for name, version in numbers["runtimes"].items())
    text = f"device: {numbers['device']}, {numbers['cpu']}, {numbers['cores']} cores; {runtimes}"
    return "\n".join([text, *(f"left out: {why}" for why in numbers.get("left_out", ()))])


def _doctor(step: str, numbers: Numbers) -> str:
    splits = ", ".join(
        f"{count:,} to {SPLITS[split]}" for split, count in numbers["splits"].items()
    )
    lines = [
        f"data: {plural(numbers['images'], 'image')} of "
        f"{plural(len(numbers['classes']), 'class')}: {splits}",
        *(f"warning: {text}" for text in numbers["warnings"]),
    ]
    return "\n".join(lines)


def _survey(step: str, numbers: Numbers) -> str:
    costs = numbers["costs"]
    failed = sum(not cost["spent"] for cost in costs)
    models = len({cost["candidate"]["model"] for cost in costs})
    text = f"measured: {plural(len(costs), 'file')} of {plural(models, 'network')}"
    text = f"{text}, {failed} of which failed" if failed else text
    broken = sorted({cost["failure"] for cost in costs if cost["failure"].startswith(BROKEN)})
    return "\n".join([text, *(f"warning: the device {reason}" for reason in broken)])


def _drift(step: str, numbers: Numbers) -> str:
    text = f"the device takes {numbers['factor']:.2f} times as long now as was measured"
    off = [
        f"timed again: {file['file']}, {file['took']:.3g} ms before, {file['take']:.3g} ms now"
        for file in numbers.get("off", ())
    ]
    return "\n".join([text, *off])


def _pace(step: str, numbers: Numbers) -> str:
    times = " and ".join(f"{value:.1f}" for value in numbers["epoch_seconds"])
    sizes = " and ".join(f"{size}" for size in TIMED)
    return f"training: an epoch of {numbers['model']} takes {times} s at {sizes} px"


def _sizes(step: str, numbers: Numbers) -> str:
    return f"there is little time, so smaller images were {_survey(step, numbers)}"


def _choose(step: str, numbers: Numbers) -> str:
    lines: list[Sequence[str]] = [("TO TRY", "WEIGHTS", "OF THE BUDGET", "IN")]
    for trial in numbers["trials"]:
        least = Way.of(trial["least"])
        weights = "ImageNet" if trial["pretrained"] else "none: from scratch"
        used = f"{trial['used']:.0%}"
        lines.append((trial["name"], weights, used, f"{least.file}, {least.runtime}"))
    more = numbers.get("with_time")
    advice = (
        f"\nmore would be likely with --time {more['minutes']}m: {more['name']}" if more else ""
    )
    return columns(lines, "<<><") + advice


def _trained(step: str, numbers: Numbers) -> str:
    if "failure" in numbers:
        return f"{step}: {numbers['failure']}"
    return (
        f"{step}: {percent(numbers['accuracy'])} of {numbers['images']:,} images "
        f"({_interval(numbers)}) after {plural(numbers['epochs'], 'epoch')}"
    )


def _again(step: str, numbers: Numbers) -> str:
    if "failure" in numbers:
        return _trained(step, numbers)
    return (
        f"{step}: {plural(numbers['epochs'], 'epoch')} of {numbers['images']:,} images, now that "
        "nothing is left to select; the val figures above are of images that it learned from"
    )


def _round(step: str, numbers: Numbers) -> str:
    if ":" in step:
        return _trained(step, numbers)
    return f"{step}: kept {', '.join(numbers['kept'])}, the most promising first"


def _narrow(step: str, numbers: Numbers) -> str:
    timed = f" (timed as {numbers['timed_as']})" if "timed_as" in numbers else ""
    if "failure" in numbers:
        return f"{step}{timed}: {numbers['failure']}"
    first, last = numbers["steps"][0], numbers["steps"][-1]
    fits = "fits" if numbers["fits"] else "there was no time to go on until it fits"
    return (
        f"{step}{timed}: {plural(len(numbers['steps']) - 1, 'step')} from "
        f"{first['latency_ms']:.3g} to {last['latency_ms']:.3g} ms, "
        f"{percent(first['accuracy'])} to {percent(last['accuracy'])}: {fits} "
        f"(the sum of its rows is off by {100 * numbers['additivity']:+.1f} %)"
    )


def _files(step: str, numbers: Numbers) -> str:
    lines: list[Sequence[str]] = [
        ("FILE", "RUNTIME", "SIZE", "MEDIAN", "P90", "ACCURACY", "95 %", "FITS")
    ]
    for file in numbers["files"]:
        spent, way = file.get("spent"), Way.of(file)
        lines.append(
            (
                way.file,
                way.runtime,
                filesize(spent["size_bytes"]) if spent else "-",
                f"{spent['median_ms']:.3g} ms" if spent else "-",
                f"{spent['p90_ms']:.3g} ms" if spent else "-",
                percent(file["accuracy"]) if file["accuracy"] is not None else "-",
                _interval(file) if file["low"] is not None else "-",
                file["failure"] or ("yes" if file["fits"] else "no"),
            )
        )
    why = "none fits, so again without layers in float:\n" if step.endswith(THROUGHOUT) else ""
    return why + columns(lines, "<<>>>>><")


def _rows(step: str, numbers: Numbers) -> str:
    if "failure" in numbers:
        return f"{step}: {numbers['failure']}"
    rows = numbers["rows"]
    dearest = sorted(rows, key=lambda row: -float(row["ms"]))[:DEAREST]
    named = ", ".join(f"{row['place']} {row['ms']:.3g} ms" for row in dearest)
    return (
        f"{step}: the dearest of {len(rows)} are {named}; end to end {numbers['whole_ms']:.3g} ms, "
        f"as {numbers['precision']} in {numbers['runtime']} "
        f"(the sum of its rows is off by {100 * numbers['additivity']:+.1f} %)"
    )


def _test(step: str, numbers: Numbers) -> str:
    if "spent" not in numbers:
        return f"the chosen file could not be timed again: {numbers['failure']}"
    spent = numbers["spent"]
    verdict = "fits the budget" if numbers["fits"] else "does NOT fit the budget"
    memory = f", {filesize(spent['memory_bytes'])} of memory" if spent["memory_bytes"] else ""
    runtime = numbers["runtime"]
    tested_in = str(numbers.get("tested_in") or runtime)  # with its version; not in an older log
    here = "" if tested_in.startswith(runtime) else f", computed here in {tested_in}"
    return "\n".join(
        [
            *(
                f"{Way.of(file)} does not fit any more, timed afresh: "
                f"{file['failure'] or ', '.join(_used(file))}"
                for file in numbers.get("over", ())
            ),
            f"{numbers['folder']}: {Way.of(numbers)}, {verdict}",
            f"  time:     median {spent['median_ms']:.3g} ms "
            f"({numbers['low_ms']:.3g}-{numbers['high_ms']:.3g}), 90 % within "
            f"{spent['p90_ms']:.3g} ms, 99 % within {spent['p99_ms']:.3g} ms",
            f"  size:     {filesize(spent['size_bytes'])}{memory}",
            f"  budget:   {', '.join(_used(numbers))}",
            f"  accuracy: {percent(numbers['accuracy'])} ({_interval(numbers)}) of "
            f"{plural(numbers['images'], 'image')} that no decision has seen{here}",
            *([f"  beware:   {few}"] if (few := _few(numbers)) else ()),
        ]
    )


def _few(numbers: Numbers) -> str:
    """What so few test images can't tell; "" if they are enough."""
    points = 100 * (numbers["high"] - numbers["low"])
    if points <= 100 * WIDE:
        return ""
    return (
        f"these images are few: {points:.0f} points lie between both ends of the interval, and "
        "models that are nearer to each other can't be told apart. Four times as many halve it"
    )


def _used(numbers: Numbers) -> list[str]:
    return [f"{part:.1%} of the {name}" for name, part in numbers["used"].items()]


def _interval(numbers: Numbers) -> str:
    return f"{100 * numbers['low']:.1f}-{100 * numbers['high']:.1f}"


DEAREST = 3  # rows that are named
SPLITS = {"train": "train", "val": "select by", "test": "test"}
TEXTS: dict[str, Callable[[str, Numbers], str]] = {
    "device": _device,
    "doctor": _doctor,
    "survey": _survey,
    "drift": _drift,
    "pace": _pace,
    "sizes": _sizes,
    "choose": _choose,
    "round 1": _round,
    "round 2": _round,
    "train": _trained,
    "distil": _trained,
    "lower": _trained,
    "qat": _trained,
    "narrow": _narrow,
    "narrowed": _trained,
    "again": _again,
    "files": _files,
    "rows": _rows,
    "test": _test,
}
