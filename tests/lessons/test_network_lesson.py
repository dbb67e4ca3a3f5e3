"""A network told stage by stage."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from oracles import import_torchvision
from scripted import Scripted
from torch.utils.flop_counter import FlopCounterMode

import edgewise
from edgewise.errors import UsageError
from edgewise.families import variant
from edgewise.lessons.explain import tell
from edgewise.lessons.network import _Running
from edgewise.lessons.text import text
from edgewise.measure.latency import Latency
from edgewise.model import Model
from edgewise.network import build
from edgewise.preprocess import Preprocess
from edgewise.run_folder import Run
from edgewise.spec import Spec
from edgewise.training.recipe import Recipe

TIMES = {"stem": 1.0, "stages.0": 2.0, "stages.1": 6.0, "stages.2": 3.0, "head": 0.5}


def test_the_stages_add_up_to_torchvisions_network() -> None:
    theirs = import_torchvision().models.mobilenet_v2()
    (table,) = tell("mobilenet_v2", Scripted()).tables
    _, params, macs, *_ = zip(*table.rows, strict=True)
    assert sum(params) == sum(p.numel() for p in theirs.parameters())
    theirs = theirs.to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        theirs(torch.empty(1, 3, 224, 224, device="meta"))
    assert sum(macs) == counter.get_total_flops() // 2
    stem = theirs.features[0]
    assert (params[0], macs[0]) == (sum(p.numel() for p in stem.parameters()), 27 * 32 * 112**2)


def test_five_sentences_with_its_numbers() -> None:
    lesson = tell("mobilenet_v2", Scripted(**TIMES))
    heads = ["Parameters", "MACs", "Memory", "Milliseconds", "A MAC isn't a MAC"]
    assert [finding.partition(":")[0] for finding in lesson.findings] == heads
    total = sum(TIMES.values()) + 2  # stages 3 and 4 took one each
    share = f"{6 / total:.1%} of the {total:.3g} ms"
    assert share in lesson.findings[3].replace("\N{NO-BREAK SPACE}", " ")
    assert "went to stage 1" in lesson.findings[3]
    rows = {row[0].partition(",")[0]: row for row in lesson.tables[0].rows}
    most = max(rows.values(), key=lambda row: row[1])
    assert f"{most[1] / 3_504_872:.1%} of the 3.5" in lesson.findings[0]
    written = sum(row[3] for row in rows.values())
    assert written == 4 * edgewise.profile("mobilenet_v2").activations
    assert rows["stage 1"][-1] == pytest.approx(rows["stage 1"][2] / 6e-3 / 1e9)


def test_bars_are_the_shares_of_the_longest() -> None:
    printed = text(tell("mobilenet_v2", Scripted(**TIMES)))
    (line,) = re.findall(r"^stage 2, 28 px .*$", printed, re.MULTILINE)[:1]
    assert line.endswith(" ███      3 ms")  # half of stage 1's six blocks
    assert max(map(len, printed.splitlines())) <= 90


def test_each_stage_is_timed_on_what_it_really_gets() -> None:
    torch.manual_seed(0)
    running = _Running(edgewise.create_model("mobilenet_v4_conv_small").spec, 64)
    with torch.inference_mode():
        x = running.inputs[""]
        for prefix in ("stem", *(f"stages.{s}" for s in range(5)), "head"):
            assert torch.equal(running.inputs[prefix], x)
            x = running.run(prefix)()
        assert torch.equal(x, running.run("")())
        assert all(x.abs().max() > 1e-3 for x in running.inputs.values())  # nothing has faded


def test_a_model_folder_and_timms_names(tmp_path: Path) -> None:
    network = edgewise.create_model("mobilenet_v2", num_classes=7, width=0.35)
    rule = Preprocess(96, 0.9, "bicubic", (127.0,) * 3, (64.0,) * 3)
    edgewise.save_model(Model(network, rule, tuple("abcdefg")), tmp_path / "own")
    lesson = tell(str(tmp_path / "own"), Scripted())
    assert lesson.settings["size"] == 96
    params = sum(p.numel() for p in network.parameters())
    assert sum(row[1] for row in lesson.tables[0].rows) == params
    assert "1,968,680 parameters" in tell("mobilenetv2_050", Scripted()).idea


def test_tensorflows_names_are_timed_with_their_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def running(spec: Spec, size: int) -> _Running:
        built.append(spec)
        return _Running(spec, size)

    class Preparing(Scripted):
        def time(self, what: str, prepare: Callable[[], Callable[[], object]]) -> Latency:
            prepare()
            return super().time(what, prepare)

    monkeypatch.setattr("edgewise.lessons.network._Running", running)
    name = "tf_mobilenetv3_small_minimal_100"
    tell(name, Preparing(), size=32)
    assert built == [edgewise.create_model(name).spec]


@pytest.mark.parametrize("name", ["convnext_atto", "vgg16"])
def test_the_sides_are_those_of_the_maps(name: str) -> None:
    """At a size that some layers can't halve without a rest."""
    with torch.device("meta"):
        network, x = build(variant(name).spec()).eval(), torch.empty(1, 3, 100, 100)
    said = [row[0] for row in tell(name, Scripted(), size=100).tables[0].rows]
    x = network.stem(x)
    sides = [f"stem, {x.shape[-1]} px"]
    for s, stage in enumerate(network.stages):
        x = stage(x)
        sides += [f"stage {s}, {x.shape[-1]} px"] if len(stage) else []
    assert said == [*sides, "head"]


def test_a_size_that_is_too_small_says_so() -> None:
    with pytest.raises(UsageError, match="smallest"):
        tell("vgg16", Scripted(), size=8)


def test_a_size_that_is_too_large_says_so_but_its_own_never_is() -> None:
    with pytest.raises(UsageError, match=r"mobilenet_v2 takes .* Choose a smaller --size\."):
        tell("mobilenet_v2", Scripted(), size=4000)
    with pytest.raises(UsageError, match="Choose a smaller --size"):
        tell("vgg16", Scripted(), size=320)
    assert tell("efficientnet_b7", Scripted()).findings


def test_a_run_and_what_a_search_made(tmp_path: Path) -> None:
    network = edgewise.create_model("mobilenet_v2", num_classes=2, width=0.35)
    rule = Preprocess(96, 0.9, "bicubic", (127.0,) * 3, (64.0,) * 3)
    run = Run(tmp_path / "search" / "final")
    run.root.mkdir(parents=True)
    Recipe(data="photos").write(run.recipe)
    with pytest.raises(UsageError, match="has no trained model yet"):
        tell(str(run.root), Scripted())
    edgewise.save_model(Model(network, rule, ("a", "b")), run.model)
    lesson = tell(str(run.root), Scripted())
    assert lesson.settings["size"] == 96
    assert sum(row[1] for row in lesson.tables[0].rows) == edgewise.profile(run.root).params
    with pytest.raises(UsageError, match=f"is a search. The run that it made is {run.root}"):
        tell(str(tmp_path / "search"), Scripted())
