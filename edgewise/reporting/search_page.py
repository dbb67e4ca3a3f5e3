"""The report of a search: one HTML file that opens offline."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgewise import __version__
from edgewise.deploy.artifact import PREDICT
from edgewise.files import write_text
from edgewise.reporting.search_chart import search_chart
from edgewise.reporting.search_record import OVER, SearchRecord, taken, times
from edgewise.reporting.search_rows import candidate_rows, costs_by_row, failures, rung_times
from edgewise.reporting.templates import render
from edgewise.reporting.views import fold
from edgewise.search.decisions import Numbers
from edgewise.search.request import Request, SearchFolder
from edgewise.search.ssh import ADDRESS
from edgewise.search.ways import Way
from edgewise.shell import command_line

TEMPLATE = "search.html.j2"
FEWEST_ROWS = 8  # candidates that are shown unfolded, at least
OPTIONS = {  # of `edgewise run`, by the request's fields
    "minutes": "--time",
    "device": "--device",
    "threads": "--threads",
    "formats": "--format",
    "precisions": "--precision",
    "models": "--models",
    "seed": "--seed",
    "flip": "--no-flip",
    "workers": "--workers",
    "train_device": "--train-device",
}

PYTHON = """import edgewise
runner = edgewise.load({}, {})
print(runner.predict(["photo.jpg"]))"""


def write_search_report(folder: SearchFolder) -> Path:
    """Writes `report.html` into the folder of a search, whether it is finished or not.

    It reads only `search.json` and `decisions.jsonl`; a search may be at work on them.

    Returns:
        The path of the HTML file.

    Raises:
        UsageError: there is no search, one of its files is damaged, or jinja2 is not installed.
        EdgewiseError: the file can't be written.
    """
    record = SearchRecord.read(folder)
    rows = candidate_rows(record)
    test, second = record.made.get("test"), record.made.get("again", {})
    values = {
        "name": folder.root.resolve().name,
        "version": __version__,
        "record": record,
        "request": record.request,
        "state": record.state,
        "test": test,
        "chosen": record.chosen,
        "second": None if "failure" in second else second,
        "parts": record.parts(test) if test and "spent" in test else [],
        "nearest": record.nearest() if record.state not in ("fits", "unfinished") else [],
        "chart": search_chart(record, rows),
        "rows": fold(rows, max(FEWEST_ROWS, len(record.trials))),
        "costs_by_row": costs_by_row(record),
        "rungs": rung_times(record),
        "failures": failures(record),
        "use": _use(record, test) if test else None,
        "resume": command_line("run", "--resume", folder.root),
        "command": run_command(record.request),
        "report_of_run": command_line("report", record.run),
        "over": OVER,
        "taken": taken,
        "way_of": Way.of,
        "times": times,
    }
    write_text(folder.report, render(TEMPLATE, values))
    return folder.report


def run_command(request: Request) -> str:
    """The command line that asks for a search, without what it would be anyway."""
    words = ["run", request.data, "--budget", request.budget]
    usual = {field.name: field.default for field in fields(Request)}
    for name, option in OPTIONS.items():
        value = getattr(request, name)
        if value != usual[name]:
            words += [option] if value is False else [option, _word(name, value)]
    return command_line(*words)


def _word(name: str, value: Any) -> str:
    if name == "minutes":
        seconds = round(60 * value)
        return f"{seconds // 60}m" if seconds % 60 == 0 else f"{seconds}s"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # as Python writes it, too


def _use(record: SearchRecord, test: Numbers) -> dict[str, str]:
    """How the chosen folder comes to the device, and what is called there."""
    folder, request = record.folder.at(test["folder"]), record.request
    place, _, option = request.device.removeprefix("ssh:").partition(",")
    here = folder if request.device == "local" else Path(folder.name)
    python = option.removeprefix("python=") or "python3"
    script = [f"./{python[2:]}" if python.startswith("~/") else python, str(here / PREDICT)]
    use = {
        "folder": str(folder),
        "script": shlex.join([*script, "--runtime", test["runtime"], "--check", "photo.jpg"]),
        "python": PYTHON.format(*map(_quoted, (str(here), test["runtime"]))),
        "command": command_line("predict", here, "photo.jpg", "--runtime", test["runtime"]),
        "send": "",
    }
    address = ADDRESS.fullmatch(place)
    if request.device != "local" and address:
        port = ["-P", address[2]] if address[2] else []
        use["send"] = shlex.join(["scp", "-r", *port, str(folder), f"{address[1]}:"])
    return use
