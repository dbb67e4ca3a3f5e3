from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from made_run import Made

from edgewise.cli.report import command
from edgewise.errors import UsageError


def test_it_prints_the_two_files(made: Made) -> None:
    result = CliRunner().invoke(command, [str(made.run.root)])
    assert result.exit_code == 0, result.output
    assert [Path(line) for line in result.output.splitlines()] == [
        made.run.report,
        made.run.model_card,
    ]
    assert made.run.report.is_file() and made.run.model_card.is_file()


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_what_is_not_a_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(command, [str(tmp_path / name)])
    assert isinstance(result.exception, UsageError)
    assert name in str(result.exception)
    assert not list((tmp_path / "empty").iterdir())


def test_help_has_an_example() -> None:
    assert "edgewise report runs/first" in CliRunner().invoke(command, ["--help"]).output
