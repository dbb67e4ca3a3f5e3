from __future__ import annotations

import json

import pytest
from made_run import Made

from edgewise.deploy.artifact import MAIN, PREDICT
from edgewise.files import read_json, write_json
from edgewise.reporting.card import markdown, yaml
from edgewise.reporting.write import report


def test_the_card_states_facts_of_the_run(made: Made) -> None:
    report(made.run)
    card = made.run.model_card.read_text(encoding="utf-8")
    right = (made.answers == made.truth).sum()
    assert f"{{type: accuracy, value: {right / 800:.4}}}" in card
    assert 'license: "Apache-2.0"' in card  # of efficientnet_lite0's ImageNet weights
    assert "It finds one least reliably: 67.5% of 80 images." in card
    assert "2 files of the data could not be used." in card


def test_no_class_is_the_least_where_all_are_found(made: Made) -> None:
    path = made.run.evaluation / "test.json"
    evaluation = read_json(path)
    for row in evaluation["per_class"]:
        row["recall"] = 1.0
    write_json(path, evaluation)
    report(made.run)
    assert "least reliably" not in made.run.model_card.read_text(encoding="utf-8")


def test_the_script_of_the_exported_folder_is_told_if_it_is_there(made: Made) -> None:
    report(made.run)
    assert PREDICT not in made.run.model_card.read_text(encoding="utf-8")  # of an older export
    script = made.run.exports / MAIN / PREDICT
    script.write_text("")
    report(made.run)
    lines = made.run.model_card.read_text(encoding="utf-8").splitlines()
    assert f"python3 {script} photo.jpg" in lines


def test_markdown_leaves_nothing_to_act_on() -> None:
    assert markdown("a|b <i> *c* [d](e) `f`") == r"a\|b &lt;i&gt; \*c\* \[d\](e) \`f\`"


@pytest.mark.parametrize("text", ["no", "a: b", 'say "hi"', "猫", "- x"])
def test_yaml_scalars_are_json_strings(text: str) -> None:
    assert json.loads(yaml(text)) == text
