"""The report of a search tells what each rung did, and what it had no time for."""

from __future__ import annotations

from pathlib import Path

from made_search import all_decisions, page_of, reached, rows

from edgewise.cli.run_text import told


def test_what_was_done_to_the_network_is_said(tmp_path: Path) -> None:
    made = all_decisions()
    test = made.pop("test")
    made["distil"] = {"teacher": "efficientnet_lite0-96", **reached(0.88, "distilled")}
    files = made["files"]["files"]
    step = {"aim_ms": 2.0, "tried": 3}
    made["narrow"] = {
        "steps": [
            {"number": 0, "latency_ms": 2.02, "accuracy": 0.78, "group": "", **step},
            {"number": 1, "latency_ms": 1.93, "accuracy": 0.77, "group": "stages.3", **step},
        ],
        "additivity": -0.031,
        "model": "m",
        "fits": True,
    }
    made["narrowed"] = reached(0.90, "narrowed")
    made["files: narrowed"] = {"files": [{**files[2], "folder": "shrunk/onnx-int8"}]}
    made["test"] = {**test, "folder": "shrunk/onnx-int8"}
    page = page_of(tmp_path, made)
    assert "efficientnet_lite0 at 96 × 96 pixels, narrowed, in int8" in page.words
    assert "add up to -3.1% of the whole" not in page.words
    assert "add up to 3.1% less than the whole" in page.words
    assert page.tables["Files"][1][1].endswith("taught by efficientnet_lite0-96")
    assert page.tables["Steps of narrowing"][2] == ["1", "stages.3", "1.93\xa0ms", "77.0%"]
    found = rows(page)
    fate = "too dear, and narrowed in 1 step until it fits"
    assert found["efficientnet_lite0-96"][-2:] == ["90.4%", fate]
    assert found["mobilenet_v4_conv_small-96"][-2] == "88.0%"


def test_trainings_that_failed_say_why(tmp_path: Path) -> None:
    made = all_decisions()
    test = made.pop("test")
    step = {"number": 0, "latency_ms": 2.0, "accuracy": 0.8, "group": "", "tried": 0}
    why = "training diverged: the loss is not finite"
    failed = {"score": 0.0, "failure": why, "out": True}
    made["distil"] = {"teacher": "mobilenet_v2-96", **failed}
    made |= {"lower: 64 px": failed, "qat": failed}
    made["narrow"] = {"steps": [step, step], "additivity": 0.1, "model": "m", "fits": True}
    made |= {"narrowed": failed, "test": test}
    page = page_of(tmp_path, made)
    assert f"Failed: once more, from a better network's answers: {why}" in page.words
    assert f"Failed: smaller images, 64 px: {why}" in page.words
    assert f"Failed: training with int8's rounding: {why}" in page.words
    fate = f"too dear, and narrowed in 1 step until it fits; then failed: {why}"
    assert rows(page)["efficientnet_lite0-96"][-2:] == ["✗", fate]
    assert told("lower: 64 px", failed) == f"lower: 64 px: {why}"


def test_a_network_that_could_not_be_narrowed_says_why(tmp_path: Path) -> None:
    made = all_decisions()
    test = made.pop("test")
    failure = "0.8 minutes are too short for 340 proposals"
    made["narrow"] = {"failure": failure, "fits": False}
    made["test"] = test
    page = page_of(tmp_path, made)
    assert rows(page)["efficientnet_lite0-96"][-1] == f"too dear: {failure}"
    assert "Steps of narrowing" not in page.tables
    assert told("narrow", made["narrow"]) == f"narrow: {failure}"


def test_smaller_images_and_rounding_are_told_apart(tmp_path: Path) -> None:
    made = all_decisions()
    test, files = made.pop("test"), made["files"]["files"]
    made["lower: 64 px"] = reached(0.8, "shrunk/64")
    made["files: 64 px"] = {"files": [{**files[0], "folder": "shrunk/64/onnx-fp32"}]}
    made["qat"] = reached(0.8, "shrunk/qat")
    made["files: qat"] = {"files": [{**files[2], "folder": "shrunk/qat/onnx-int8"}]}
    made["test"] = {**test, "folder": "shrunk/qat/onnx-int8"}
    page = page_of(tmp_path, made)
    of = [line[1] for line in page.tables["Files"][5:]]
    network = "mobilenet_v4_conv_small-64"
    assert of == [f"{network}, used to smaller images", f"{network}, trained with int8's rounding"]
    assert "at 64 × 64 pixels, trained with int8's rounding" in page.words


def test_with_little_time_slow_networks_promise_less(tmp_path: Path) -> None:
    large, small, expected = "efficientnet_lite4-224", "efficientnet_lite4-64", []
    for minutes in (30, 4):
        seen = rows(page_of(tmp_path / f"{minutes}", all_decisions(), minutes=minutes))
        expected.append({name: float(seen[name][3]) for name in (large, small)})
    assert expected[0][large] > expected[0][small]
    assert expected[1][large] < expected[0][large] - 10


def test_too_little_time_for_a_better_one_is_said(tmp_path: Path) -> None:
    made = all_decisions()
    assert "too little time" not in page_of(tmp_path / "enough", made).words
    made["choose"]["with_time"] = {"name": "efficientnet_lite4-96", "minutes": 14}
    words = page_of(tmp_path / "short", made).words
    assert "There was too little time for efficientnet_lite4-96" in words
    assert "give about --time 14m" in words
    assert "with --time 14m: efficientnet_lite4-96" in told("choose", made["choose"])


def test_what_each_row_takes_beside_what_it_multiplies(tmp_path: Path) -> None:
    made = all_decisions()
    page = page_of(tmp_path, made)
    assert "a file of its own with random weights (int8 in onnxruntime)" in page.words
    assert "The whole network takes 0.5 ms so, and its rows add up to 20.0% less." in page.words
    stem, head = page.tables["Time of each row"][1:]
    assert stem[:3] == ["stem", "Conv of 3 channels at 96 px", "0.3\xa0ms"]
    assert head[:3] == ["head", "Head of 96 channels at 3 px", "0.1\xa0ms"]
    shares = [attrs["style"] for attrs in page.named("i") if "--share" in attrs.get("style", "")]
    assert shares[:4] == ["--share:1.0", "--share:0.3333", "--share:0.3333", "--share:1.0"]
    made["rows"]["runtime"] = "openvino"
    other = page_of(tmp_path / "other", made)
    assert "(int8 in openvino), timed in turns with the others; the file that" in other.words
    assert "that was tested is int8 in onnxruntime." in other.words
    made["rows"]["run"] = "shrunk/narrowed"  # which was too slow when it was timed afresh
    assert "Where the milliseconds go" not in page_of(tmp_path / "another", made).words
    for made["rows"] in ({"failure": "there was no time left to time its rows"}, {}):
        assert (
            "Where the milliseconds go"
            not in page_of(tmp_path / f"{len(made['rows'])}", made).words
        )
