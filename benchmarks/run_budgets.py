"""Does the budget hold? Random budgets, and each delivered file timed again in a fresh process.

    python benchmarks/run_budgets.py                    # 20 budgets of 3 minutes each: an hour
    python benchmarks/run_budgets.py --count 1 --seconds 240

Budgets are drawn log-uniformly between half the time of the cheapest file and the time of the
dearest, at the median or at the 90th percentile. `edgewise run` searches in 300 digits; then the
file that it delivered is timed once more, by itself, in a process that `edgewise run` has nothing
to do with. A budget holds if the file meets it then, or if its lower end of the interval does, or
if the run said that it does not fit (exit status 3). The survey of the device, which is made once
and kept, is not in the time.

Rows are added to `run_budgets.csv` run by run. What is in it is not run again.
"""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from bench import RESULTS, read_csv, write_csv
from pictures import TASKS, write_task

from edgewise.deploy.artifact import Artifact
from edgewise.errors import EdgewiseError
from edgewise.measure.store import machine_fingerprint
from edgewise.search.budget import Budget
from edgewise.search.decisions import Decisions
from edgewise.search.device import TimedFile, open_device
from edgewise.search.request import SearchFolder

RANGE = (0.4, 30.0)  # ms on this machine
PERCENTILES = ("median", "p90")
NOTHING = 3  # the exit status where nothing fits
TOO_SHORT = 2  # and where there is no time to train


def survey_once(data: Path, root: Path) -> None:
    """A search with no time but for the survey, which is kept."""
    command = [sys.executable, "-m", "edgewise", "run", str(data), "--budget", "latency=5ms"]
    command += ["--time", "1s", "--name", "survey"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != TOO_SHORT:
        raise EdgewiseError(f"the survey failed: {done.stderr[-2000:]}")


def search(data: Path, budget: str, seconds: float, root: Path) -> dict[str, Any]:
    """`edgewise run` in a process of its own: its exit status and what it delivered."""
    command = [sys.executable, "-m", "edgewise", "run", str(data), "--budget", budget]
    command += ["--time", f"{seconds:.0f}s", "--no-flip", "--name", "it"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode not in (0, NOTHING):
        raise EdgewiseError(f"edgewise run failed: {done.stderr[-2000:]}")
    made = Decisions(root / "runs" / "it" / "decisions.jsonl").made
    return {"status": done.returncode, **made.get("test", {})}


def again(found: dict[str, Any], budget: Budget, root: Path) -> dict[str, Any]:
    """The delivered file, timed afresh."""
    path = Artifact.read(SearchFolder(root / "runs" / "it").at(found["folder"])).path
    file = TimedFile("it", path, found["runtime"], found["precision"])
    seen = open_device("local", 1).measure([file])["it"]
    if seen.timing is None:
        raise EdgewiseError(f"{path} can't be timed again: {seen.failure}")
    latency = seen.timing.latency
    value = getattr(latency, f"{budget.percentile}_ms")
    return {
        "said_ms": round(found["spent"][f"{budget.percentile}_ms"], 4),
        "again_ms": round(value, 4),
        "again_low_ms": round(seen.timing.low_ms * value / latency.median_ms, 4),
        "file": f"{found['precision']} {found['runtime']}",
        "accuracy": round(found["accuracy"], 4),
    }


def main() -> None:
    """Runs what is missing, adds it to the file and prints it."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=180.0, help="time given to each search")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    path: Path = arguments.results / "run_budgets.csv"
    random = np.random.default_rng(0)
    pools = TASKS["mnist"].pools()
    with TemporaryDirectory() as folder:
        survey_once(write_task(TASKS["mnist"], pools, Path(folder) / "data", 0), Path(folder))
    held = []
    for number in range(arguments.count):
        latency = float(np.exp(random.uniform(*np.log(RANGE))))
        percentile = PERCENTILES[int(random.integers(2))]
        at = "" if percentile == "median" else f"@{percentile}"
        text = f"latency={latency:.3g}ms{at}"
        key = {"machine": machine_fingerprint(), "number": number, "budget": text}
        rows: list[dict[str, Any]] = [*read_csv(path)]
        wanted = {column: str(value) for column, value in key.items()}
        row: dict[str, Any] | None
        row = next((known for known in rows if wanted.items() <= known.items()), None)
        if row is None:
            with TemporaryDirectory() as folder:
                data = write_task(TASKS["mnist"], pools, Path(folder) / "data", seed=0)
                found = search(data, text, arguments.seconds, Path(folder))
                budget = Budget.parse(text)
                timed = again(found, budget, Path(folder)) if "spent" in found else {}
            most = budget.latency_ms or 0.0
            met = bool(timed) and timed["again_low_ms"] <= most
            names = ("said_ms", "again_ms", "again_low_ms", "file", "accuracy")
            row = {
                **key,
                "status": found["status"],
                **{name: timed.get(name, "") for name in names},
                "holds": met or found["status"] == NOTHING,
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            write_csv(path, [*rows, row], list(row))
        held.append(str(row["holds"]) == "True")
        print(row, flush=True)
    print(f"{sum(held)} of {len(held)} budgets hold")


if __name__ == "__main__":
    try:
        main()
    except EdgewiseError as error:
        sys.exit(f"error: {error}")
