"""What is to be measured, and the calls that are refused before anything is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_runtime import RUNTIMES
from small import small_model

from edgewise.errors import UsageError
from edgewise.families import variant
from edgewise.measure.count import count
from edgewise.measure.latency import machine
from edgewise.timing import plan
from edgewise.timing.plan import Candidate, absent, make_plan
from edgewise.timing.runtimes import RUNTIMES as REAL
from edgewise.weights.folder import save_model


def test_a_group_for_each_network_and_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "machine", lambda: {**machine(), "cores": 4})
    groups = make_plan(
        ["mobilenet_v2", "efficientnet_b2"], RUNTIMES, ["right", "wrong"], threads=[1, 3], batch=2
    )
    assert [(g.model, g.imgsz, g.batch, g.threads) for g in groups] == [
        ("mobilenet_v2", 224, 2, 1),
        ("mobilenet_v2", 224, 2, 3),
        ("efficientnet_b2", 260, 2, 1),
        ("efficientnet_b2", 260, 2, 3),
    ]
    assert set(groups[0].candidates) == {
        Candidate("edgewise", "right", "fp32"),
        Candidate("edgewise", "wrong", "fp32"),
    }


def test_each_runtime_takes_the_precisions_that_it_has() -> None:
    (group,) = make_plan(["mobilenet_v2"], RUNTIMES, precisions=["int8", "fp32"], imgsz=96)
    assert group.imgsz == 96
    assert [str(candidate) for candidate in group.candidates] == [
        "right int8",
        "right fp32",
        "wrong fp32",
        "refuses fp32",
        "crashes fp32",
    ]
    assert absent(RUNTIMES) == {"absent": "openvino"}


def test_peers_run_as_their_users_run_them() -> None:
    (group,) = make_plan(
        ["mobilenet_v2"], REAL, ["torch", "torch-channels-last"], against=["timm", "torchvision"]
    )
    assert [str(candidate) for candidate in group.candidates] == [
        "torch fp32",
        "torch-channels-last fp32",
        "timm in torch fp32",
        "torchvision in torch fp32",
    ]


def test_a_folder_has_its_own_size(tmp_path: Path) -> None:
    save_model(small_model("mobilenet_v2", ("a", "b"), size=72), tmp_path / "model")
    (group,) = make_plan([str(tmp_path / "model")], RUNTIMES)
    assert group.imgsz == 72


def test_timms_names_are_understood() -> None:
    (group,) = make_plan(["mobilenetv4_conv_small"], RUNTIMES)
    assert (group.model, group.imgsz) == ("mobilenetv4_conv_small", 224)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": ["mobilenet_v9"]}, "unknown model 'mobilenet_v9'"),
        ({"runtimes": ["rigth"]}, "unknown runtime 'rigth'. Nearest: right"),
        ({"runtimes": ["absent"]}, r"pip install 'edgewise\[openvino\]'"),
        ({"precisions": ["fp31"]}, "unknown precision 'fp31'"),
        ({"precisions": ["bf16"]}, "none of right, wrong, refuses, crashes has bf16 here"),
        ({"threads": [0]}, "0 threads: this machine has"),
        ({"threads": [100_000]}, "100000 threads: this machine has"),
        ({"against": ["tim"]}, "unknown library 'tim'"),
        ({"against": ["timm"]}, "timm can't be timed in .*, only in torch, .* with --runtime"),
        (
            {"known": REAL, "models": ["mobilenet_v2", "my.onnx"], "against": ["timm"]},
            "my.onnx is a file, .*: timm can't be timed against it. Leave --against out",
        ),
        (
            {"known": REAL, "models": [str(Path(__file__).parent)], "against": ["timm"]},
            "timing is a folder, .*: timm can't be timed against it. Leave --against out",
        ),
    ],
)
def test_a_wrong_call_is_refused(arguments: dict[str, list[str]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_plan(**{"models": ["mobilenet_v2"], "known": RUNTIMES, **arguments})  # type: ignore[arg-type]


def test_too_small_an_image_is_answered_with_the_smallest() -> None:
    with pytest.raises(UsageError, match=r"size 8 is too small.* convnext_tiny takes is 32"):
        make_plan(["convnext_tiny"], RUNTIMES, imgsz=8)
    (group,) = make_plan(["convnext_tiny"], RUNTIMES, imgsz=32)
    assert group.imgsz == 32
    with pytest.raises(UsageError, match=r"The smallest that .* takes is 32"):
        make_plan(["convnext_tiny"], RUNTIMES, imgsz=31)
    with pytest.raises(UsageError):
        count(replace(variant("convnext_tiny").spec()), 31)
