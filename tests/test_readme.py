"""What the README says is so."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from photos import picture
from small import small_model

import edgewise
from edgewise.cli.main import VERBS
from edgewise.weights.folder import save_model

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, asked, second = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(first, names)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "cache"))
    Path("photos/daisy").mkdir(parents=True)
    picture(1).save("photos/daisy/1.jpg")
    save_model(small_model("mobilenet_v2", ("a", "b", "c"), size=33), Path("model"))
    edgewise.export("model", output=Path("runs/first/export"))
    *lines, last = asked.strip().splitlines()
    exec("\n".join(lines), names)
    assert len(eval(last, names)[0]) == 3
    network = names["network"]
    assert [m.shape[1] for m in names["maps"]] == [f.channels for f in network.spec.features()]
    assert names["edgewise"].Spec.from_json(network.spec.to_json()) == network.spec
    assert names["small"](torch.randn(1, 1, 32, 32)).shape == (1, 1000)
    assert names["dense"].features(torch.randn(1, 3, 64, 64))[-1].shape[2:] == (8, 8)
    *lines, last = second.strip().splitlines()
    exec("\n".join(lines), names)
    assert tuple(eval(last, names)) == eval(last.partition("#")[2])


def test_every_verb_is_in_the_table() -> None:
    assert re.findall(r"^\| `edgewise (\w+)", README, re.MULTILINE) == list(VERBS)


def test_the_measured_part_is_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import readme

    made = README.partition(readme.BEGIN)[2].partition(readme.END)[0]
    assert made == readme.section()
    with (readme.RESULTS / "bench.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for line in made.splitlines():  # each figure against the rows, not against our own ratios
        if line.startswith("| ") and line[2].islower() and "network" not in line:
            name, _, best, *_ = (cell.strip() for cell in line.strip("|").split("|"))
            ours = [
                (float(r["median_ms"]), r["runtime"])
                for r in rows
                if (r["model"], r["library"], r["precision"], r["status"])
                == (name, "edgewise", "fp32", "ok")
            ]
            milliseconds, runtime = min(ours)
            assert best == f"{runtime}, {milliseconds:.3g} ms"
