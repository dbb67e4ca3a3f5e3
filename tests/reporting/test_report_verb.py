from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from closed import close
from commandline import edgewise
from made_run import Made

from edgewise.cli.report import command
from edgewise.errors import UsageError
from edgewise.training.recipe import Recipe


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


def test_a_first_model_that_may_not_be_looked_at_is_not_needed(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that was copied from another user: its recipe has the whole path."""
    first = tmp_path / "home" / "runs" / "first" / "model"
    recipe = replace(Recipe.read(made.run.recipe), model=str(first), pretrained=False)
    recipe.write(made.run.recipe)
    close(tmp_path / "home", monkeypatch)
    result = CliRunner().invoke(command, [str(made.run.root)])
    assert result.exit_code == 0, result.exception
    assert ", trained on from another model" in made.run.report.read_text("utf-8")


@pytest.mark.parametrize(
    ("file", "row", "words"),
    [
        ("split.csv", b"class 0/caf\xe9.png,zero,train,0", "can't read"),  # as Excel saves it
        ("quarantine.csv", b"class 0/caf\xe9.png,zero,train,empty", "can't read"),
        ("eval/test.csv", b"class 0/0000.png,zero", "expected path,label,predicted,"),
    ],
)
def test_a_list_that_was_edited_is_named(made: Made, file: str, row: bytes, words: str) -> None:
    path = made.run.root / file
    path.write_bytes(path.read_bytes() + row + b"\n")
    for verb in ("report", "compare"):
        said = edgewise(verb, made.run.root)
        assert said.status == 2 and str(path) in said.errors and words in said.errors
