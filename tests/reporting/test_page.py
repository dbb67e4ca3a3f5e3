from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_page import Page
from made_run import NAMES, Made, make_run, write, write_photos
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from edgewise.deploy.artifact import MAIN, MAIN_INT8, PREDICT
from edgewise.deploy.verification import NOT_RUN
from edgewise.errors import UsageError
from edgewise.files import sha256_file
from edgewise.reporting.numbers import percent
from edgewise.reporting.write import report
from edgewise.run_folder import Run
from edgewise.weights.folder import load_model, save_model

NASTY = (
    "<script>alert(1)</script>", 'a"b\'c', "قطة", "猫", "🐈 cat", "{{ 7*7 }}",
    "&amp;", "a|b`c`", "x" * 80, "--\u202e>",
)  # fmt: skip


def page_of(run: Run) -> Page:
    return Page(report(run).read_text(encoding="utf-8"))


def test_the_page_needs_nothing_from_elsewhere(made: Made) -> None:
    html = report(made.run).read_text(encoding="utf-8")
    page = Page(html)
    assert not re.search(r"https?:|url\(|@import|javascript:", html)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for tag, attrs in page.tags:
        assert str(attrs.get("src", "data:")).startswith("data:image/jpeg;base64,") or tag != "img"
        assert str(attrs.get("href", "#")).startswith("#")
    assert len(page.named("img")) == 10 * 6 + 24 + pair_pictures(made) + 6 * 3 + 6 * 2


def pair_pictures(made: Made) -> int:
    """At most three of each of the six most frequent confusions, and three to compare with."""
    confused = confusion_matrix(made.truth, made.answers)
    np.fill_diagonal(confused, 0)
    counts = np.sort(confused.ravel())[-6:]
    return int(np.minimum(counts, 3).sum()) + 6 * 3


def test_its_figures_are_those_of_sklearn(made: Made) -> None:
    page = page_of(made.run)
    assert f"{percent(accuracy_score(made.truth, made.answers))} 95% interval" in page.words
    assert "87.8% 95% interval 85.3% to 89.8%, 800 test images" in page.words

    precision, recall, f1, support = precision_recall_fscore_support(made.truth, made.answers)
    wanted = [
        [name, percent(p), percent(r), percent(f), str(n)]
        for f, name, p, r, n in sorted(zip(f1, NAMES, precision, recall, support, strict=True))
    ]
    assert page.tables["Precision and recall"][1:] == wanted

    matrix = np.array([
        [0 if text == "·" else int(text) for text in row[1:]]
        for row in page.tables["Confusion matrix"][1:]
    ])  # fmt: skip
    assert (matrix == confusion_matrix(made.truth, made.answers)).all()


def test_the_worst_mistakes_have_the_highest_loss(made: Made) -> None:
    page = page_of(made.run)
    loss = -np.log(made.probabilities[np.arange(800), made.truth])
    worst = int(np.where(made.answers != made.truth, loss, -1).argmax())
    truth, said = NAMES[made.truth[worst]], NAMES[made.answers[worst]]
    share = percent(made.probabilities[worst, made.truth[worst]])
    _, after = page.words.split("Look here for wrong labels, too.")
    sure = percent(made.probabilities[worst].max())
    assert after.strip().startswith(f"said {said} ({sure}) is {truth} ({share})")
    assert f"class {made.truth[worst]}/{worst:04}.png" in after[:100]


def test_the_most_confused_pair_is_pictured(made: Made) -> None:
    page = page_of(made.run)
    confused = confusion_matrix(made.truth, made.answers)
    np.fill_diagonal(confused, 0)
    truth, said = np.unravel_index(confused.argmax(), confused.shape)
    count, of_class = confused.max(), (made.truth == truth).sum()
    title = f"{NAMES[truth]} taken for {NAMES[said]}"
    assert f"{title}: {count} times, {percent(count / of_class)}" in page.words
    shown = [str(a["alt"]) for a in page.named("img") if str(a["alt"]).startswith(title)]
    assert len(shown) == 3
    for words in shown:
        number = int(words[-len("0000.png") : -len(".png")])
        assert (made.truth[number], made.answers[number]) == (truth, said)


def test_throughput_is_drawn(made: Made) -> None:
    charts = [
        str(attrs["aria-label"]) for attrs in page_of(made.run).named("svg") if "role" in attrs
    ]
    words = "Training images a second by epoch, 1 to 8: Training images a second ends at 410."
    assert words in charts


def test_counts_and_quarantine(made: Made) -> None:
    page = page_of(made.run)
    counts = json.loads(made.run.data.read_text())["counts"]
    rows = page.tables["Images of each class"][1:]
    assert {row[0]: [int(n) for n in row[1:4]] for row in rows} == {
        name: [counts[split][name] for split in ("train", "val", "test")] for name in NAMES
    }
    with made.run.quarantine.open(encoding="utf-8") as file:
        assert page.tables["Files that could not be used"] == [
            ["File", "Class", "Split", "Reason"], *list(csv.reader(file))[1:]
        ]  # fmt: skip


def test_any_text_of_a_person_stays_text(finish: Callable[[tuple[str, ...]], Made]) -> None:
    made = finish(NASTY)
    html = report(made.run).read_text(encoding="utf-8")
    page = Page(html)
    assert "<script" not in html
    assert {row[0] for row in page.tables["Precision and recall"][1:]} == set(NASTY)
    card = made.run.model_card.read_text(encoding="utf-8")
    assert "<script" not in card
    assert "猫" in card and "قطة" in card


def test_headings_are_in_order_and_pictures_have_words(made: Made) -> None:
    page = page_of(made.run)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(attrs["alt"] for attrs in page.named("img"))
    assert all(attrs.get("aria-label") for attrs in page.named("svg") if attrs.get("role"))
    assert all("scope" in attrs for attrs in page.named("th"))
    targets = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {str(a["href"])[1:] for a in page.named("a")} == targets


MISSING = {
    "eval": ("eval/test.json", "edgewise eval"),
    "verification": ("verify.json", "edgewise verify"),
    "epochs": ("metrics.csv", "edgewise train --resume"),
    "data": ("data.json", "edgewise train --resume"),
    "environment": ("environment.json", "edgewise train photos"),
    "quarantine": ("quarantine.csv", "None: every image could be read."),
}


@pytest.mark.parametrize("part", MISSING)
def test_a_missing_part_is_named_with_its_command(made: Made, part: str) -> None:
    file, words = MISSING[part]
    (made.run.root / file).unlink()
    assert words in page_of(made.run).words


def test_a_run_with_nothing_but_a_recipe(made: Made) -> None:
    run = Run(made.run.root.with_name("fresh"))
    run.root.mkdir()
    run.recipe.write_bytes(made.run.recipe.read_bytes())
    page = page_of(run)
    assert "How good it is isn't known yet" in page.words
    assert page.words.count("Not done yet") == 8
    assert "Not measured yet" in run.model_card.read_text(encoding="utf-8")


def test_validation_figures_are_not_sold_as_test_figures(made: Made) -> None:
    for suffix in (".json", ".csv"):
        (made.run.evaluation / f"test{suffix}").rename(made.run.evaluation / f"val{suffix}")
    evaluation = made.run.evaluation / "val.json"
    evaluation.write_text(evaluation.read_text().replace('"split": "test"', '"split": "val"'))
    words = page_of(made.run).words
    assert "Of 800 validation images" in words and "helped to pick the epoch" in words
    assert "unseen" not in words


@pytest.mark.parametrize("key", ["sha256", "model_sha256"])
def test_what_changed_since_is_not_called_verified(made: Made, key: str) -> None:
    verification = json.loads(made.run.verification.read_text())
    changed = verification if key == "model_sha256" else verification["artifacts"][0]
    changed[key] = "0" * 64
    write(made.run.verification, verification)
    words = page_of(made.run).words
    assert "has changed since it was verified" in words
    assert "✓" not in words
    assert "Not verified" in made.run.model_card.read_text(encoding="utf-8")


def test_accuracy_of_other_weights_is_not_shown(made: Made) -> None:
    """As after `train --resume`: the figures on disk are those of an older model."""
    made.run.weights.write_bytes(b"better ones")
    words = page_of(made.run).words
    assert "it hasn't been evaluated" in words
    assert f"edgewise eval {made.run.root}" in words
    assert "95% interval" not in words


def test_a_failed_verification_says_why(made: Made) -> None:
    verification = json.loads(made.run.verification.read_text())
    unmeasured = dict.fromkeys(("agreement", "largest_difference", "accuracy", "accuracy_low"))
    failed = {"failures": ["golden input 3 differs by 0.2"], "status": "failed", **unmeasured}
    verification["artifacts"][0].update(failed)
    write(made.run.verification, {**verification, "passed": False})
    words = page_of(made.run).words
    assert "✗ onnx-fp32: golden input 3 differs by 0.2." in words
    assert "✗ failed" in words
    assert "golden input 3" in made.run.model_card.read_text(encoding="utf-8")
    assert "✓" not in words


def converted_only(verification: dict[str, Any]) -> dict[str, Any]:
    """An artefact that nothing here can run, beside the one of `verification`."""
    first = verification["artifacts"][0]
    unknown = dict.fromkeys(key for key, value in first.items() if isinstance(value, float))
    words = {"name": "coreml-fp16", "status": NOT_RUN, "runtime": "", "images": 0}
    return {**first, **unknown, **words}


def test_a_file_that_can_not_run_here_is_not_said_to_have_passed(made: Made) -> None:
    verification = json.loads(made.run.verification.read_text())
    only = converted_only(verification)
    write(made.run.verification, {**verification, "artifacts": [only]})
    words = page_of(made.run).words
    assert "No exported file could be run here" in words and "passed" not in words
    assert "✓" not in words and "of 0 val images" not in words
    assert "Converted, not run" in made.run.model_card.read_text(encoding="utf-8")


def test_the_model_is_as_good_as_the_first_file_that_was_run_tells(made: Made) -> None:
    verification = json.loads(made.run.verification.read_text())
    both = [converted_only(verification), *verification["artifacts"]]
    write(made.run.verification, {**verification, "artifacts": both})
    assert "The model in PyTorch is right on 97.1% of 320 val images" in page_of(made.run).words
    card = made.run.model_card.read_text(encoding="utf-8")
    assert "Passed, on 320 val images (the model in PyTorch: 97.1%)" in card


def learn_int8(made: Made) -> None:
    """The run's network learned to compute in int8; it was exported so as well, and verified."""
    run, before = made.run, sha256_file(made.run.weights)
    model = load_model(run.model)
    save_model(replace(model, int8_ranges={"stem.conv": (0.0, 1.0)}), run.model)
    folder = shutil.copytree(run.exports / MAIN, run.exports / MAIN_INT8)
    (folder / "model.onnx").write_bytes(b"in int8")
    digest = sha256_file(folder / "model.onnx")
    for path in (run.verification, run.evaluation / "test.json"):
        path.write_text(path.read_text("utf-8").replace(before, sha256_file(run.weights)), "utf-8")
    verification = json.loads(run.verification.read_text())
    places = {"folder": f"export/{MAIN_INT8}", "file": f"export/{MAIN_INT8}/model.onnx"}
    int8 = {"name": MAIN_INT8, "precision": "int8", "sha256": digest, "accuracy_model": 0.953}
    both = [*verification["artifacts"], verification["artifacts"][0] | places | int8]
    write(run.verification, verification | {"artifacts": both})
    cost = json.loads(run.cost.read_text())
    write(run.cost, cost | {"artifact_bytes": 3_520_000, "artifact_sha256": digest})


def test_a_network_that_learned_int8_is_reported_in_int8(made: Made) -> None:
    learn_int8(made)
    script = made.run.exports / MAIN_INT8 / PREDICT
    script.write_text("")
    words = page_of(made.run).words
    assert "The model in PyTorch in int8 is right on 95.3% of 320 val images" in words
    assert "3.52 MB int8 ONNX file, 3.38 M parameters" in words
    assert f"edgewise export {made.run.root} --precision fp32,int8" in words
    card = made.run.model_card.read_text(encoding="utf-8")
    assert "(the model in PyTorch in int8: 95.3%)" in card
    assert "3.52 MB in int8. Latency" in card.replace("\u00a0", " ")
    assert f"python3 {script} photo.jpg" in card
    verification = json.loads(made.run.verification.read_text())
    write(made.run.verification, verification | {"artifacts": verification["artifacts"][:1]})
    assert "The model in PyTorch in float is right on 97.1%" in page_of(made.run).words


def test_what_made_the_verified_files_is_told_to_repeat_it(made: Made) -> None:
    verification = json.loads(made.run.verification.read_text())
    names = ("onnx-fp32", "litert-fp32", "openvino-int8", "onnx-int8", "executorch-int8")
    files = [verification["artifacts"][0] | {"name": name} for name in names]
    write(made.run.verification, {**verification, "artifacts": files})
    page_of(made.run)
    lines = made.run.model_card.read_text(encoding="utf-8").splitlines()
    assert [line.partition(str(made.run.root))[2] for line in lines if " export " in line] == [
        " --precision fp32,int8",
        " --format openvino,executorch --precision int8",
        " --format litert",
    ]


def test_what_int8_was_asked_for_is_told_to_repeat_it(made: Made) -> None:
    """As it was typed; a shell takes the line."""
    verification = json.loads(made.run.verification.read_text())
    names = {"onnx-int8": ("stem", "head"), "openvino-int8": (), "litert-int8": None}
    files = [verification["artifacts"][0]]
    for name, kept in names.items():
        folder = shutil.copytree(made.run.exports / MAIN, made.run.exports / name)
        info = json.loads((folder / "artifact.json").read_text())
        asked = {"keep_float": kept, "most_changed": 0.005, "calibrate": "my photos"}
        write(folder / "artifact.json", info | asked)
        files.append(files[0] | {"name": name, "folder": f"export/{name}"})
    write(made.run.verification, {**verification, "artifacts": files})
    assert f"edgewise export {made.run.root} --format openvino" in page_of(made.run).words
    lines = made.run.model_card.read_text(encoding="utf-8").splitlines()
    assert [line.partition(str(made.run.root))[2] for line in lines if " export " in line] == [
        " --precision fp32,int8 --keep-float stem,head --calibrate 'my photos'",
        " --format openvino --precision int8 --keep-float none --calibrate 'my photos'",
        " --format litert --precision int8 --keep-float auto:0.5% --calibrate 'my photos'",
    ]


def test_skipped_files_are_listed(made: Made) -> None:
    evaluation = json.loads((made.run.evaluation / "test.json").read_text())
    skipped = {"skipped": [{"path": "class 1/notes.jpg", "reason": "empty file (0 bytes)"}]}
    write(made.run.evaluation / "test.json", evaluation | skipped)
    words = page_of(made.run).words
    assert "1 file of the test split couldn't be read. class 1/notes.jpg: empty file" in words
    assert "1 file of the test split could not be read" in made.run.model_card.read_text()


def test_pictures_that_are_gone_leave_a_place(made: Made) -> None:
    write(made.run.data, {**json.loads(made.run.data.read_text()), "root": "gone"})
    page = page_of(made.run)
    assert not page.named("img")
    assert page.text.count("notreadable") == 10 * 6 + 24 + pair_pictures(made)
    assert "can't be read any more, so there is nothing to draw" in page.words


@pytest.mark.parametrize("file", ["eval/test.json", "eval/test.csv", "data.json", "verify.json"])
def test_a_damaged_file_is_named(made: Made, file: str) -> None:
    (made.run.root / file).write_text("{}\n")
    with pytest.raises(UsageError, match=rf"{file} has no .*run the verb"):
        report(made.run)


def test_three_hundred_classes_of_noise_stay_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(600) % 300
    images = rng.integers(0, 256, (600, 96, 96, 3), dtype=np.uint8)  # JPEG's worst case
    probabilities = rng.dirichlet(np.full(300, 0.05), 600)
    write_photos(tmp_path / "photos", images, truth)
    labels = tuple(f"class {i}" for i in range(300))
    made = make_run(tmp_path, tmp_path / "photos", labels, truth, probabilities)
    page = page_of(made.run)
    assert made.run.report.stat().st_size < 3_000_000
    assert len(page.tables["Precision and recall"]) == 300 + 2  # and a heading for each part
    assert "Confusion matrix" not in page.tables
    worst = confusion_matrix(truth, probabilities.argmax(1))
    np.fill_diagonal(worst, 0)
    assert page.tables["Most confused pairs"][1][2] == str(worst.max())


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.1."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_text_has_the_contrast_that_wcag_asks(made: Made) -> None:
    html = report(made.run).read_text(encoding="utf-8")
    light, dark = html.split("prefers-color-scheme: dark")[:2]
    for style in (light, dark):
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", style))
        colours = {
            k: v if len(v) == 7 else "#" + "".join(c * 2 for c in v[1:]) for k, v in colours.items()
        }
        for ground in ("ground", "surface"):
            for ink in ("ink", "muted", "accent", "good", "bad"):
                a, b = sorted((luminance(colours[ground]), luminance(colours[ink])))
                assert (b + 0.05) / (a + 0.05) >= 4.5, (ground, ink)
