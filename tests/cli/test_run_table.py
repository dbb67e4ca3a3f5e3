"""The table of a search at work, step by step, and on a terminal with a bar beneath it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from made_search import ROUND_1, ROUND_2, SIZES, all_decisions
from rich.console import Console

from edgewise.cli import run_table
from edgewise.cli.run_table import MOST_ROWS, LiveTable
from edgewise.families import VARIANTS
from edgewise.progress import bar
from edgewise.search.costs import Cost
from edgewise.search.entrants import Entrant
from edgewise.search.request import Request, SearchFolder

MADE = {step: {"seconds": 30.0, **numbers} for step, numbers in all_decisions().items()}


def live(tmp_path: Path) -> LiveTable:
    return LiveTable(Request("photos", "latency=2ms"), SearchFolder(tmp_path))


def shown(table: LiveTable, width: int = 120) -> list[str]:
    """Its lines without its heading."""
    console = Console(file=io.StringIO(), width=width)
    console.print(table.table())
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()][1:]


def test_it_fills_and_thins_out(tmp_path: Path) -> None:
    table = live(tmp_path)
    assert table.table() == ""
    table.decided("doctor", MADE["doctor"])
    entrants = [Entrant(**entrant) for entrant in MADE["survey"]["entrants"]]
    costs = [Cost.read(cost) for cost in MADE["survey"]["costs"]]
    counts = []
    for at in range(0, len(costs), 4):  # of one network at one size
        table.measured(entrants, costs[at : at + 4])
        lines = shown(table)
        counts.append(len(lines) - 1)
    measured = len(costs) // 4
    assert counts[0] == 1
    assert counts == sorted(counts)
    table.decided("survey", MADE["survey"])
    before = shown(table)
    out = sum("candidate" in line for line in before)
    assert out == 1
    table.decided("choose", MADE["choose"])
    tried = shown(table)
    assert {line.split()[0] for line in tried[:-1]} == {*ROUND_1, "mobilenet_v3_small-96*"}
    assert tried[-1] == f"{measured - len(ROUND_1) - 1} candidates out, * from scratch"
    for name, accuracy in ROUND_1.items():
        table.decided(f"round 1: {name}", MADE[f"round 1: {name}"])
        (row,) = (line for line in shown(table) if line.startswith(name))
        assert f"{100 * MADE[f'round 1: {name}']['accuracy']:.1f}%" in row, accuracy
    table.decided("round 1", MADE["round 1"])
    assert {line.split()[0] for line in shown(table)[:-1]} == {*ROUND_2}
    for step in ("train", "files", "test"):
        table.decided(step, MADE[step])
    (last, _) = shown(table)
    assert last.split()[0] == MADE["train"]["trial"]
    assert "85.5%" in last


def test_a_long_one_is_cut(tmp_path: Path) -> None:
    table = live(tmp_path)
    table.decided("doctor", MADE["doctor"])
    survey = MADE["survey"]
    cheap = [
        {**cost, "spent": cost["spent"] and {**cost["spent"], "median_ms": 0.1}}
        for cost in survey["costs"]
    ]
    table.decided("survey", {**survey, "costs": cheap})
    lines = shown(table)
    assert len(lines) == MOST_ROWS + 1
    inside = len(SIZES) * len(survey["entrants"])
    assert lines[-1].startswith(f"and {inside - MOST_ROWS} more")


def test_no_number_is_cut_in_eighty_columns(tmp_path: Path) -> None:
    """Nor in fewer: the names give way. One that starts from scratch has a star."""
    table, scratch = live(tmp_path), "mobilenet_v3_small-96*"
    made = {**MADE, "round 1: mobilenet_v3_small-96": MADE["round 1: mobilenet_v2-96"]}
    for step in ("doctor", "survey", "choose", *(s for s in made if s.startswith("round 1: "))):
        table.decided(step, made[step])
    wide = shown(table)
    assert scratch in {line.split()[0] for line in wide}
    assert wide[-1].endswith("candidates out, * from scratch")
    assert [line.split() for line in shown(table, 80)] == [line.split() for line in wide]
    for line, narrow in zip(wide[:-1], shown(table, 60), strict=False):
        assert narrow.split()[1:] == line.split()[1:]


def test_the_longest_name_fits_into_eighty_columns(tmp_path: Path) -> None:
    name = max(VARIANTS, key=len)
    survey = json.loads(json.dumps(MADE["survey"]).replace("mobilenet_v3_small", name))
    table = live(tmp_path)
    table.decided("doctor", MADE["doctor"])
    table.decided("survey", survey)
    assert f"{name}-96*" in {line.split()[0] for line in shown(table, 80)}


def test_lines_and_bars_go_with_it_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    console = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr("edgewise.progress.terminal", lambda: console)
    monkeypatch.setattr(run_table, "terminal", lambda: console)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr("sys.stdout", screen)
    with live(tmp_path) as table:
        table.decided("doctor", MADE["doctor"])
        table.decided("survey", MADE["survey"])
        with bar("timing", 2) as steps:
            steps.advance(note="a note")
        print("a line")
    text = screen.getvalue()
    for words in ("STILL IN", "mobilenet_v2-64", "timing", "1/2", "a note", "a line"):
        assert words in text


def test_without_a_terminal_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with live(tmp_path) as table:
        table.decided("doctor", MADE["doctor"])
        table.decided("survey", MADE["survey"])
    assert capsys.readouterr() == ("", "")
