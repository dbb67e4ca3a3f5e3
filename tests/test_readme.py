"""What the README says is so."""

from __future__ import annotations

import re
from pathlib import Path

from edgewise.cli.main import VERBS, cli

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_python_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    *lines, last = example.strip().splitlines()
    names: dict[str, object] = {}
    exec("\n".join(lines), names)
    assert eval(last, names) is True
    assert [m.shape[1] for m in names["maps"]] == [
        feature.channels for feature in names["network"].spec.features()
    ]


def test_every_verb_is_in_the_table() -> None:
    assert re.findall(r"^\| `edgewise (\w+)", README, re.MULTILINE) == list(VERBS)


def test_commands_have_only_options_that_exist() -> None:
    for verb, words in re.findall(r"edgewise (\w+) ([^`\n]*)", README):
        if verb in VERBS:
            known = {name for p in cli.get_command(None, verb).params for name in p.opts}
            assert set(re.findall(r"--[a-z-]+", words)) <= known | {"--help"}


def test_pictures_are_there() -> None:
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[1] / picture).is_file()
