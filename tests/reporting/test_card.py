from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from made_run import Made
from PIL import Image
from tiny_onnx import write_tiny_onnx

from edgewise.data.decode import decode
from edgewise.deploy.artifact import MAIN
from edgewise.files import read_json, write_json
from edgewise.preprocess import Preprocess
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


@pytest.mark.parametrize(
    ("mode", "channels", "format"),
    [("RGB", 3, "JPEG"), ("CMYK", 4, "JPEG"), ("RGBA", 4, "PNG"), ("LA", 2, "PNG")],
)
def test_its_program_gives_the_exported_files_answer(
    made: Made,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mode: str,
    channels: int,
    format: str,
) -> None:
    preprocess = Preprocess.from_json(read_json(made.run.model / "preprocess.json"))
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.01, (preprocess.size**2 * 3, 10))
    report(made.run)
    write_tiny_onnx(made.run.exports / MAIN / "model.onnx", weights, made.labels, preprocess)
    content = rng.integers(0, 256, (90, 131, channels), dtype=np.uint8)
    image = Image.frombytes(mode, (131, 90), content.tobytes())
    image.save(made.run.root / "photo.jpg", format)
    (program,) = re.findall(
        r"```python\n(.*?)```", made.run.model_card.read_text(encoding="utf-8"), re.DOTALL
    )
    monkeypatch.chdir(made.run.root)
    exec(program, {})
    logits = preprocess.pixels(decode(Path("photo.jpg"))).ravel() / 255 @ weights
    wanted = np.exp(logits) / np.exp(logits).sum()
    label, probability = capsys.readouterr().out.rsplit(" ", 1)
    assert label == made.labels[wanted.argmax()]
    assert float(probability) == pytest.approx(wanted.max(), rel=1e-4)


def test_markdown_leaves_nothing_to_act_on() -> None:
    assert markdown("a|b <i> *c* [d](e) `f`") == r"a\|b &lt;i&gt; \*c\* \[d\](e) \`f\`"


@pytest.mark.parametrize("text", ["no", "a: b", 'say "hi"', "猫", "- x"])
def test_yaml_scalars_are_json_strings(text: str) -> None:
    assert json.loads(yaml(text)) == text
