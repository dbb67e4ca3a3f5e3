"""What the pages of docs/ say is so: their figures, commands and links."""

from __future__ import annotations

import csv
import re
from math import prod
from pathlib import Path
from statistics import fmean, median, stdev
from urllib.parse import unquote

import pytest

from edgewise.cli.main import VERBS, cli

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TESTED = {"mnist": 1000, "emoji-own": 523}  # images; the rows have four digits of the share
Row = dict[str, str]


def table(page: str, header: str) -> list[list[str]]:
    """The cells of the rows below a table's header."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    lines = iter(text.partition(header + "\n")[2].splitlines()[1:])
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("**", "") for cell in line.strip("|").split("|")])
    assert rows, header
    return rows


def results(name: str) -> list[Row]:
    with (ROOT / "benchmarks" / "results" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def numbers(rows: list[Row], column: str, **wanted: str) -> list[float]:
    found = [row for row in rows if wanted.items() <= row.items()]
    assert found, wanted
    return [float(row[column]) for row in found]


def percent(values: list[float]) -> str:
    return f"{100 * fmean(values):.1f}"


def test_pruning() -> None:
    rows, times = results("prune.csv"), results("prune_times.csv")
    seen = {}
    for name, macs, time, accuracy in table(
        "pruning.md", "| network | MACs | time | test accuracy |"
    ):
        way = re.sub(r"pruned by | *, .*|Lite\d", "", name) or "untouched"
        seen[way, macs] = (time, accuracy)
    for way, like in {(row["way"], row["like"]) for row in rows}:
        values = numbers(rows, "test_top1", way=way, like=like)
        (macs,) = set(numbers(rows, "macs", way=way, like=like))
        name = "untouched" if way == "whole" else way
        timed = "untouched" if way == "untouched" else "pruned"
        time = (
            "1"
            if way == "whole"
            else f"{numbers(times, 'relative_ms', way=timed, like=like)[0]:.2f}"
        )
        accuracy = f"{percent(values)} ± {100 * stdev(values):.1f}"
        assert seen.pop((name, f"{macs / 1e6:.3g} M")) == (time, accuracy), (way, like)
    assert not seen


def test_netadapt() -> None:
    rows = results("netadapt.csv")
    header = "| network | learned, steps | MACs | time | top-1 | each seed |"
    ways = list(dict.fromkeys(row["way"] for row in rows))
    assert len(ways) == len(table("netadapt.md", header))
    for way, cells in zip(ways, table("netadapt.md", header), strict=True):
        steps, macs, time, top1 = (
            numbers(rows, column, way=way) for column in ("steps", "macs", "relative", "test_top1")
        )
        assert cells[1:] == [
            f"{fmean(steps):.0f}",
            f"{fmean(macs) / 1e6:.1f} M",
            "1" if way == "whole" else f"{fmean(time):.2f}",
            f"{percent(top1)} %",
            ", ".join(f"{100 * value:.1f}" for value in top1),
        ], way


def test_separate() -> None:
    header = "| | MACs | right at once | after 2 epochs | ONNX Runtime ms | OpenVINO ms |"
    said = {}
    for name, *cells in table("separate.md", header):
        if part := re.fullmatch(r"(\d+) % of the MACs", name):
            name = f"images, macs {int(part[1]) / 100:g}"
        elif rank := re.fullmatch(r"(rank \d), from (\w+)", name):
            name = f"{rank[2]}, {rank[1]}"
        said["dense" if name.startswith("dense") else name] = cells
    rows = results("separate.csv")
    for way in dict.fromkeys(row["way"] for row in rows):
        macs, top1, tuned, *times = (
            numbers(rows, column, way=way)
            for column in ("macs", "top1", "top1_tuned", "onnxruntime_ms", "openvino_ms")
        )
        cells = said.pop(way)
        assert cells[0] == f"{median(macs) / 1e6:.1f} M", way
        assert cells[1] in ("", f"{percent(top1)} ± {100 * stdev(top1):.1f}"), way
        assert cells[2] == f"{percent(tuned)} ± {100 * stdev(tuned):.1f}", way
        assert cells[3:] == [f"{median(ms):.2f}" for ms in times], way
    assert not said


def test_separate_at_full_size() -> None:
    said = table("separate.md", "| | GMACs | ONNX Runtime ms | OpenVINO ms |")
    assert said == [
        [
            row["network"],
            f"{float(row['macs']) / 1e9:.2f}",
            *(f"{float(row[name]):.0f}" for name in ("onnxruntime_ms", "openvino_ms")),
        ]
        for row in results("separate_times.csv")
    ]


def test_shipped() -> None:
    """The table is of one machine, and its last two rows are the means of the others."""
    *networks, plain, best = table(
        "int8.md",
        "| network | shipped | ms | MB | points lost | timm eager | timm compiled | timm's ONNX "
        "| with another activation | ms | points lost |",
    )
    rows = results("shipped.csv")
    assert len(networks) == len(rows) == 10
    for cells, row in zip(networks, rows, strict=True):
        eager, compiled, *onnx = (
            float(row[name])
            for name in (
                *("torch_value", "torch-compile_value"),
                *("onnxruntime_value", "onnxruntime_low", "onnxruntime_high"),
            )
        )
        other = ("", "", "")
        if row["activation"]:
            file = f"{row['activation']}, {row['activation_file']}"
            other = file, row["activation_median_ms"], row["activation_points_lost"]
        assert cells == [
            *(row[name] for name in ("model", "file", "median_ms", "mb", "points_lost")),
            *(f"{eager:.1f}", f"{compiled:.1f}", "{:.2f} ({:.2f}-{:.2f})".format(*onnx)),
            *other,
        ]
        assert float(row["points_lost"]) <= 1
    for cells, gains in ((plain, False), (best, True)):
        for cell, runtime in zip(
            cells[5:8], ("torch", "torch-compile", "onnxruntime"), strict=True
        ):
            factors = [float(row["gain"]) if gains else 1.0 for row in rows]
            values = [float(row[f"{runtime}_value"]) for row in rows]
            product = prod(value * factor for value, factor in zip(values, factors, strict=True))
            assert cell == f"{product ** (1 / len(rows)):.2f}"


def test_int8_of_trained_networks() -> None:
    rows = results("int8_trained.csv")
    ways = sorted({(row["runtime"], row["keep_float"]) for row in rows})
    heads = " | ".join(f"{runtime}, {keep}" for runtime, keep in ways)
    for name, exact, *cells in table("int8.md", f"| network | float32 | {heads} |"):
        for way, cell in zip(ways, cells, strict=True):
            own = [r for r in rows if (r["network"], r["runtime"], r["keep_float"]) == (name, *way)]
            assert bool(own) == bool(cell), (name, way)
            for row in own:
                assert exact == f"{100 * int(row['right_float']) / int(row['images']):.1f}%"
                lost = 100 * (int(row["right_float"]) - int(row["right_int8"])) / int(row["images"])
                assert cell.startswith(f"{lost:+.1f} ({row['changed']})"), (name, way)


def test_by_hand() -> None:
    """Each table of the page is one group of the rows, told by its accuracies."""
    text = (ROOT / "docs" / "run.md").read_text(encoding="utf-8")
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in results("run_by_hand.csv"):
        key = tuple(row[name] for name in ("machine", "data", "budget_ms", "given_minutes", "way"))
        groups.setdefault(key, []).append(row)
    for (*_, way), rows in groups.items():
        rows.sort(key=lambda row: int(row["seed"]))
        tested = TESTED[rows[0]["data"]]
        values = [round(tested * float(row["accuracy"])) / tested for row in rows]
        cells = [*(f"{100 * value:.1f}" for value in values), percent(values)]
        name = "`edgewise run`" if way == "edgewise" else way
        assert f"| {name} | {' | '.join(cells)} |" in text, (way, rows[0])
        if way == "edgewise":
            assert all(float(row["median_ms"]) <= float(row["budget_ms"]) for row in rows)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_have_only_options_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for verb, words in re.findall(r"\bedgewise (\w+) ([^`\n#]*)", text):
        if verb in VERBS:
            command = cli.get_command(None, verb)
            known = {name for p in command.params for name in p.opts}
            for below in getattr(command, "commands", {}).values():
                known |= {name for p in below.params for name in p.opts}
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", words)) <= known | {"--help"}, words


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        path = page.parent / file if file else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as repository viewers make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
