"""`edgewise models`: the table, the JSON and a pattern that matches nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from edgewise.cli.models import command
from edgewise.errors import UsageError
from edgewise.families import list_models


def run(*arguments: str) -> str:
    return CliRunner().invoke(command, arguments, catch_exceptions=False).output


def test_table_has_a_line_for_each_model() -> None:
    head, *lines = run().splitlines()
    assert head.split() == ["NAME", "PARAMS", "MACS", "SIZE", "TOP-1", "WHOSE", "WEIGHTS"]
    assert [line.split()[0] for line in lines] == list_models()
    (line,) = (line for line in lines if line.startswith("efficientnet_lite0 "))
    figures = " ".join(line.split()[1:])
    assert figures == "4.65 M 385 M 224 75.1 tensorflow/tpu README Apache-2.0"


def test_json_has_exact_numbers() -> None:
    (model,) = json.loads(run("mobilenet_v2", "--json"))
    assert (model["params"], model["macs"], model["input_size"]) == (3_504_872, 300_774_272, 224)
    assert model["weights"]["licence"] == "BSD-3-Clause"
    assert model["weights"]["top1"] == 71.878
    assert json.loads(run("mobilenet_v1", "--json"))[0]["weights"] is None


def test_pattern_that_matches_nothing_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Nearest: efficientnet_lite0"):
        run("efficientnet_light0")


def test_models_does_not_import_torch() -> None:
    code = (
        "import sys; from edgewise.cli.models import command\n"
        "command(['mobilenet_v1'], standalone_mode=False); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
