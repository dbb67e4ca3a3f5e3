"""Starting up: quick because little is imported, which is what these tests look at."""

from __future__ import annotations

import subprocess
import sys

import pytest
from commandline import edgewise

from edgewise.cli.main import VERBS


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh Python has after running `code`."""
    code += "\nimport sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_import_is_light() -> None:
    assert not {"torch", "numpy", "PIL", "rich"} & loaded_by("import edgewise")


def test_help_is_light() -> None:
    code = "from click.testing import CliRunner; from edgewise.cli.main import cli\n"
    code += "assert 'predict' in CliRunner().invoke(cli, ['--help']).output"
    assert not {"torch", "numpy", "PIL", "rich"} & loaded_by(code)


def test_listing_models_needs_no_torch() -> None:
    code = "from click.testing import CliRunner; from edgewise.cli.main import cli\n"
    code += "assert 'mobilenet_v1' in CliRunner().invoke(cli, ['models']).output"
    assert "torch" not in loaded_by(code)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    called = edgewise(verb, "--help")
    assert called.status == 0
    assert f"edgewise {verb}" in called.output.split("Example")[1]


def test_public_names_can_be_imported() -> None:
    import edgewise as package

    for name in package.__all__:
        public = getattr(package, name)
        assert callable(public), name
        assert f"edgewise.{name}" not in sys.modules  # a module would take the name's place
