"""The report of a search: every figure is that of a decision, at whatever rung it ended."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from made_search import (
    NETWORKS,
    ROUND_1,
    ROUND_2,
    SIZES,
    all_decisions,
    page_of,
    rows,
    write_search,
)

from edgewise.cli.run_text import told
from edgewise.errors import UsageError
from edgewise.reporting.numbers import percent
from edgewise.reporting.search_page import run_command, write_search_report
from edgewise.search.request import Request, SearchFolder

NASTY = ("<script>alert(1)</script>", "قطة", "{{ 7*7 }}", "--\u202e>", "a\u2028b", 'a"b')


def until(step: str) -> dict[str, Any]:
    made = all_decisions()
    names = list(made)
    return {name: made[name] for name in names[: names.index(step) + 1]}


def test_the_verdict_is_that_of_the_test(tmp_path: Path) -> None:
    page = page_of(tmp_path, all_decisions())
    test = all_decisions()["test"]
    assert test["fits"] and test["precision"] == "int8"
    assert "✓ It fits. mobilenet_v4_conv_small at 96 × 96 pixels" in page.words
    assert "named 84 of 95 unseen photos right" in page.words
    assert pytest.approx(test["spent"]["median_ms"]) == 12.0 * (96 / 224) ** 2 / 2  # 1.102 ms
    assert "1.1 ms median (95% interval 1.07 to 1.15); 90% within 1.32 ms" in page.words
    assert "1.1 ms of 2 ms: 55%" in page.words
    assert "88.4% 95% interval 80.4% to 93.4%, 95 images" in page.words  # Wilson, by scipy
    assert "2.5 MB 7.5 MB of memory" in page.words
    shipped = tmp_path / "search" / "final" / "export" / "onnx-int8"
    assert f'edgewise.load("{shipped}", "onnxruntime")' in page.words
    assert "What it would take" not in page.words
    assert f"edgewise report {tmp_path / 'search' / 'final'}" in page.words
    (bar,) = [attrs["style"] for attrs in page.named("i") if attrs.get("class") == "within"]
    assert bar == "width:55.1%"


def test_every_candidate_and_where_it_went_out(tmp_path: Path) -> None:
    page = page_of(tmp_path, all_decisions())
    found = rows(page)
    assert len(found) - 1 == len(NETWORKS) * len(SIZES)  # one is the head
    for name, accuracy in ROUND_1.items():
        assert found[name][4] == percent(round(accuracy * 83) / 83), name
    for name, accuracy in ROUND_2.items():
        assert found[name][5] == percent(round(accuracy * 83) / 83), name
    assert found["mobilenet_v4_conv_small-96"][6:] == ["85.5%", "trained for long"]
    fates = {name: cells[-1] for name, cells in found.items()}
    assert fates["efficientnet_lite0-96"] == "too dear as it is: 1.01 times what there is"
    assert fates["mobilenet_v2-96"] == "fewer right in round 2"
    assert fates["mobilenet_v2_050-96"] == "fewer right in round 1"
    assert fates["mobilenet_v3_small-96"] == "there was no time to try it"
    assert fates["mobilenet_v2-64"] == "less promising than with 96 px"
    assert fates["efficientnet_lite4-224"] == "too dear: 35 times the latency"  # 140 ms / 2 / 2 ms
    first = list(found)[1:6]
    assert first == ["mobilenet_v4_conv_small-96", *_by_round_2(), *first[3:]]


def _by_round_2() -> list[str]:
    others = [name for name in ROUND_2 if name != "mobilenet_v4_conv_small-96"]
    return sorted(others, key=lambda name: -ROUND_2[name])


def test_costs_are_those_that_were_chosen_by(tmp_path: Path) -> None:
    """On a day when the device is half as fast, all takes twice as much of the budget."""
    made = all_decisions()
    before = rows(page_of(tmp_path / "before", made))
    made["drift"] = {"factor": 2.0}
    after = rows(page_of(tmp_path / "after", made))
    name = "mobilenet_v2-64"
    (was,), (now,) = (
        [int(cell.rstrip("%")) for cell in seen[name][:4] if cell.endswith("%")]
        for seen in (before, after)
    )
    assert was > 10
    assert now == pytest.approx(2 * was, abs=1)
    made["drift"]["since"] = 1.0  # all of it was measured in this search
    assert rows(page_of(tmp_path / "since", made))[name] == before[name]


def test_sizes_that_were_looked_at_later_are_candidates_too(tmp_path: Path) -> None:
    made = all_decisions()
    cost = next(c for c in made["survey"]["costs"] if c["candidate"]["model"] == "mobilenet_v2")
    other = {**cost, "candidate": {**cost["candidate"], "imgsz": 72}}
    made["sizes"] = {"costs": [other], "seconds": 12.0}
    page = page_of(tmp_path, made)
    assert "mobilenet_v2-72" in rows(page)
    assert f"{len(made['survey']['costs']) + 1} files of" in page.text
    assert "measuring smaller images" in page.text


def learned_again() -> dict[str, Any]:
    """The chosen file took its place after it had learned from the images that chose it, too."""
    made = all_decisions()
    test, chosen = made.pop("test"), made["files"]["files"][2]
    before = test["selected_by"]
    file = {**chosen, "folder": "again/calibrated/export/onnx-int8", "selected_by": before}
    file |= dict.fromkeys(("accuracy", "low", "high", "accuracy_model"))
    made["again"] = {"epochs": 17, "images": 505}
    made["files: again"] = {"files": [file]}
    made["test"] = {**test, "folder": file["folder"]}
    return made


def test_what_has_learned_from_all_images_has_no_accuracy_but_the_tests(tmp_path: Path) -> None:
    made = learned_again()
    page = page_of(tmp_path, made)
    line = page.tables["Files"][-1]
    assert line[1].endswith("-96, learned from all images but the test's")
    assert line[-3:] == ["–", "–", "✓ chosen"]
    before = made["test"]["selected_by"]["accuracy"]
    assert "learned once more, in 17 epochs, from the images that it was chosen by" in page.words
    assert f"It had been chosen for {percent(before)} of 83 images" in page.words
    assert "It has learned from these, too, since." in page.words
    how = "learned from all images but the test's"
    chosen = f"chosen: mobilenet_v4_conv_small at 96 px, {how}, int8 onnxruntime"
    run = tmp_path / "search" / "again" / "calibrated"
    assert f"in the report of its run: edgewise report {run}" in page.words
    assert f"{chosen}: {percent(before)} right" in page.text
    assert "once more, from all images but the test's" in page.text  # of the rungs' times
    without = page_of(tmp_path / "without", all_decisions())
    assert "learned once more" not in without.words
    assert "It has learned from these" not in without.words


def test_the_files_are_those_of_the_log(tmp_path: Path) -> None:
    made = all_decisions()
    made["files"]["files"][1] |= {"failure": "answers differ", "fits": False}
    del made["files"]["files"][3]["spent"]
    made["files"]["files"][3] |= {"failure": "crashed (SIGSEGV)", "accuracy": None, "low": None}
    lines = page_of(tmp_path, made).tables["Files"][1:]
    assert [line[0] for line in lines] == [
        *("fp32, onnxruntime", "onnx fp32, openvino", "int8, onnxruntime", "onnx int8, openvino")
    ]
    assert [line[-1] for line in lines] == [
        "✗ no", "✗ answers differ", "✓ chosen", "✗ crashed (SIGSEGV)"
    ]  # fmt: skip
    assert lines[2][2:7] == ["2.5\xa0MB", "1.1\xa0ms", "1.32\xa0ms", "7.5\xa0MB", "84.3%"]
    assert lines[3][2:8] == ["–"] * 6


def test_the_format_is_named_where_it_is_not_obvious(tmp_path: Path) -> None:
    """And what is left out is said; a log without formats speaks of ONNX files, as above."""
    made = all_decisions()
    made["device"]["left_out"] = ["litert: no <package>"]
    files = made["files"]["files"]
    ways = (
        *(("openvino", "bf16", "openvino"), ("onnx", "fp32", "openvino")),
        *(("litert", "fp16", "litert"), ("onnx", "int8", "onnxruntime")),
    )
    for file, (format, precision, runtime) in zip(files, ways, strict=True):
        file |= {"format": format, "precision": precision, "runtime": runtime}
    made["choose"]["trials"][0]["least"] |= {"format": "openvino", "runtime": "openvino"}
    made["test"] = {**made["test"], **dict(zip(WAY, ways[0], strict=True))}
    made["test"]["folder"] = files[0]["folder"]
    page = page_of(tmp_path, made)
    assert [line[0] for line in page.tables["Files"][1:]] == [
        *("bf16, openvino", "onnx fp32, openvino", "fp16, litert", "int8, onnxruntime")
    ]
    assert "Left out: litert: no <package>" in page.words
    assert "in bf16 with openvino" in page.words
    assert "■ int8, ◆ fp16 or bf16, ● fp32" in page.words
    said = told("files", made["files"]).splitlines()
    assert [line.split()[:2] for line in said[1:3]] == [["bf16", "openvino"], ["onnx", "fp32"]]
    assert "int8, openvino" in told("choose", made["choose"])
    assert ": bf16 in openvino, " in told("test", made["test"])


def test_the_runtime_that_computed_the_accuracy_is_named_if_it_is_another(tmp_path: Path) -> None:
    made = all_decisions()
    for name, tested_in in (("same", "onnxruntime 1.31"), ("other", "openvino 2026")):
        made["test"]["tested_in"] = tested_in
        page = page_of(tmp_path / name, made)
        assert ("95 images, computed here in openvino 2026" in page.words) == (name == "other")
        assert "computed here in onnxruntime" not in page.words


WAY = ("format", "precision", "runtime")


@pytest.mark.parametrize("step", [step for step in all_decisions() if step != "test"])
def test_an_unfinished_search_says_how_far_it_is(tmp_path: Path, step: str) -> None:
    page = page_of(tmp_path, until(step))
    assert f"Not finished. The last step that is done is {step}." in page.words
    assert f"edgewise run --resume {tmp_path}/search" in page.words
    assert "It fits" not in page.words and "Use it" not in page.words
    assert ("Candidates" in page.tables) == (step not in ("device", "doctor"))


def test_a_search_that_has_just_begun(tmp_path: Path) -> None:
    assert "No step is done yet." in page_of(tmp_path, {}).words


def test_rows_are_still_in_until_they_go_out(tmp_path: Path) -> None:
    found = rows(page_of(tmp_path, until("round 1: mobilenet_v2_050-96")))
    assert {found[name][-1] for name in ROUND_1} == {"still in"}
    assert found["mobilenet_v2-96"][5] == ""


def test_rounds_that_there_was_no_time_for_have_no_column(tmp_path: Path) -> None:
    """None, or only the second, which needs no first one of three networks."""
    made = {step: own for step, own in all_decisions().items() if not step.startswith("round 1")}
    header = page_of(tmp_path / "one", made).tables["Candidates"][0]
    assert header[5:] == ["round 2", "trained", "what became of it"]
    made = {step: own for step, own in made.items() if not step.startswith("round 2")}
    page = page_of(tmp_path / "none", made)
    assert page.tables["Candidates"][0][4:] == ["expected", "trained", "what became of it"]
    assert "There was no time for short trainings that tell something" in page.words
    assert "Rounds are short trainings" not in page.words
    assert "Short trainings stop early" not in page.words


def test_over_the_budget_it_says_what_it_would_take(tmp_path: Path) -> None:
    text = "latency=0.6ms@p90,size=2MB,memory=64MB"
    page = page_of(tmp_path, all_decisions(text), budget=text, device="ssh:pi@board:2222")
    assert "✗ It does not fit." in page.words and "✗ exceeded" in page.words
    assert "1.32 ms of 0.6 ms: 220%, ✗ exceeded" in page.words  # 1.2 x 1.102 ms
    assert "takes 1.32 ms or less for 90% of photos" in page.words
    assert "7.5 MB of 64 MB: 12%" in page.words
    assert "The nearest takes 2.2 times the latency and 1.25 times the size" in page.words
    lines = page.tables["The nearest"][1:]
    assert lines[0] == [
        *("mobilenet_v4_conv_small at 96 px, int8 in onnxruntime", "220%", "125%", "12%"),
        *("84.3%", "--budget latency=1.4ms@p90,size=2.5MB,memory=64MB"),
    ]
    # 0.245 x 1.2 ms, and 5 MB / 4: it would fit, but nobody trained it.
    assert lines[3][0] == "mobilenet_v2_050 at 64 px, int8 in onnxruntime"
    assert lines[3][-2:] == ["not trained", "this budget, as it was measured"]
    shipped = tmp_path / "search" / "final" / "export" / "onnx-int8"
    assert f"scp -r -P 2222 {shipped} pi@board:" in page.words
    assert 'edgewise.load("onnx-int8", "onnxruntime")' in page.words
    script = "onnx-int8/predict.py --runtime onnxruntime --check photo.jpg"
    assert f"python3 {script}" in page.words
    page = page_of(tmp_path / "own", all_decisions(), device="ssh:pi@board,python=~/env/bin/python")
    assert f"./env/bin/python {script}" in page.words


def test_a_file_that_was_over_only_when_timed_again_is_the_first(tmp_path: Path) -> None:
    """Its 1.10 ms fitted in 1.15; a moment later it took 1.2 ms, and another one 1.3."""
    text = "latency=1.15ms"
    made = all_decisions(text)
    first, other = made["files"]["files"][2], made["files"]["files"][3]
    other |= {"fits": True, "spent": {**first["spent"], "median_ms": 1.14}}
    other["folder"] += "-other"
    spent = {ms: {**first["spent"], "median_ms": ms} for ms in (1.2, 1.3)}
    used = {"latency": 1.2 / 1.15}
    made["test"] |= {"spent": spent[1.2], "used": used, "fits": False}
    made["test"]["over"] = [{**other, "spent": spent[1.3], "fits": False}]
    page = page_of(tmp_path, made, budget=text)
    assert "The nearest takes 1.04 times the latency that there is" in page.words
    lines = page.tables["The nearest"][1:]
    assert lines[0] == [
        *("mobilenet_v4_conv_small at 96 px, int8 in onnxruntime", "104%"),
        *("84.3%", "--budget latency=1.2ms"),
    ]
    assert lines[1][:2] == ["mobilenet_v4_conv_small at 96 px, onnx int8 in openvino", "113%"]
    assert [line[-1] for line in page.tables["Files"][3:]] == [
        "✗ 1.2\xa0ms when timed again, the nearest",
        "✗ 1.3\xa0ms when timed again",
    ]


def test_nothing_fits(tmp_path: Path) -> None:
    made = all_decisions("latency=10us")
    some = {step: made[step] for step in ("device", "doctor", "survey")}
    page = page_of(tmp_path, some, budget="latency=10us")
    assert "✗ Nothing fits. Not one of 8 networks is near the budget" in page.words
    lines = page.tables["The nearest"][1:]
    floor = 5.0 * (64 / 224) ** 2 / 2  # ms
    assert lines[0][0] == "mobilenet_v3_small at 64 px, int8 in onnxruntime"
    assert lines[0][1] == f"{floor / 0.01:.3g} ×" == "20.4 ×"
    assert lines[0][3] == "--budget latency=0.21ms"
    assert "96 files of 8 networks were measured" in page.words


def test_networks_that_were_not_measured_are_not_said_to_be(tmp_path: Path) -> None:
    """A search ends at the smallest, where that is far too dear."""
    made = all_decisions("latency=10us")
    some = {step: made[step] for step in ("device", "doctor", "survey")}
    survey = some["survey"]
    model = survey["costs"][0]["candidate"]["model"]
    some["survey"] = {
        **survey,
        "costs": [c for c in survey["costs"] if c["candidate"]["model"] == model],
    }
    page = page_of(tmp_path, some, budget="latency=10us")
    assert "✗ Nothing fits. Not even the smallest of 8 networks is near" in page.words
    assert "12 files of 1 network were measured" in page.words


def test_nothing_runs(tmp_path: Path) -> None:
    made = until("survey")
    for cost in made["survey"]["costs"]:
        cost |= {"spent": None, "failure": "no such <operator>"}
    page = page_of(tmp_path, made)
    assert "✗ Nothing fits. Not one of 96 files could be run on the device." in page.words
    assert rows(page)["mobilenet_v2-96"][-1] == "can't be run: no such <operator>"


def test_only_size_in_the_budget(tmp_path: Path) -> None:
    page = page_of(tmp_path, all_decisions("size=4MB"), budget="size=4MB")
    assert "2.5 MB of 4 MB: 62%" in page.words
    assert "Accuracy against size" in page.words
    assert rows(page)["mobilenet_v4_conv_small-96"][2] == "2.5\xa0MB"


def test_the_chosen_file_that_could_not_be_timed_again(tmp_path: Path) -> None:
    made = all_decisions()
    for name in ("spent", "low_ms", "high_ms", "used"):
        del made["test"][name]
    made["test"] |= {"fits": False, "failure": "timed out"}
    page = page_of(tmp_path, made)
    assert "It could not be timed again: timed out." in page.words
    assert "✗ not timed" in page.words
    assert "The nearest takes" not in page.words  # what is left fits, as it was measured
    assert page.tables["Files"][3][-1] == "✗ timed out when timed again, the nearest"


def test_what_it_took(tmp_path: Path) -> None:
    page = page_of(tmp_path, all_decisions())
    times = dict(line[:2] for line in page.tables["Time of each rung"][1:])
    assert times["round 1: short trainings"] == "2 min 30 s"  # five decisions of 30 s
    assert times["the test"] == "30 s"
    assert "9 min 0 s of the 30 min that were given" in page.words
    for words in ("422 images to learn from, 83 to select by, 95 to test on", "onnxruntime1.31.1"):
        assert words in page.words
    assert "About 47.5 test images a class are few: the interval is 13 points wide" in page.words


def test_nothing_in_it_is_markup_or_comes_from_elsewhere(tmp_path: Path) -> None:
    made = all_decisions(classes=NASTY)
    for own in made["files"]["files"]:
        own["folder"] = "<i>&/" + own["folder"]
    made["test"]["folder"] = made["files"]["files"][2]["folder"]
    made["device"]["device"] = "ssh:<u>@board"
    root = tmp_path / "<b>{{ 7*7 }}"
    folder = write_search(root, made, data="<img src=x>", device="ssh:<u>@board")
    html = write_search_report(folder).read_text(encoding="utf-8")
    page = Page(html)
    assert not {"script", "img", "link", "u", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?:|url\(|@import|javascript:", html)
    assert [attrs for attrs in page.named("i") if not attrs.get("class", attrs.get("style"))] == []
    for name in (*NASTY, "A <b>CPU</b>", "3 images <i>look</i> alike"):
        assert " ".join(name.split()) in page.words


def test_the_command_asks_for_the_same_again() -> None:
    request = Request(
        "my photos",
        "latency=2ms",
        90.0,
        "ssh:pi@board",
        2,
        ("int8",),
        ("mobilenet_v2",),
        flip=False,
    )
    assert run_command(request) == (
        "edgewise run 'my photos' --budget latency=2ms --time 90m --device ssh:pi@board "
        "--threads 2 --precision int8 --models mobilenet_v2 --no-flip"
    )
    other = Request("photos", "size=4MB", formats=("onnx", "litert"))
    assert run_command(other).endswith("--budget size=4MB --format onnx,litert")
    assert run_command(Request("photos", "size=4MB")) == "edgewise run photos --budget size=4MB"
    assert "--time 90s" in run_command(Request("photos", "size=4MB", 1.5))


def test_what_is_not_a_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a search"):
        write_search_report(SearchFolder(tmp_path))
