"""NetAdapt against all of its proposals worked out by hand, on a device of a known cost."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from row_formula import SIZE, Formula, network_ms, small_spec

from edgewise.compress.groups import channel_groups, resized
from edgewise.compress.separate_spec import rank_fields, with_ranks
from edgewise.errors import EdgewiseError, UsageError
from edgewise.families import variant
from edgewise.model import Model
from edgewise.network import build
from edgewise.preprocess import Preprocess
from edgewise.search.latency_table import LatencyTable, Places
from edgewise.search.netadapt import DECAY, FIRST_STEP, best_of, narrowings, netadapt
from edgewise.search.netadapt_steps import Proposal, Step
from edgewise.spec import MBConv, Spec
from edgewise.weights.folder import load_model

Sizes = dict[Places, int]
RULE = Preprocess(SIZE, 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3)


def sizes_of(spec: Spec) -> Sizes:
    return {group.places: group.size for group in channel_groups(spec)}


def size_at(spec: Spec, places: Places) -> int:
    """Read off the spec: finding all groups of each proposal would take longer than making it."""
    row, field = places[0]
    found: Any = spec
    for part in f"{row}.{field}".split("."):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    return int(found)


FULL = sizes_of(small_spec())


def guess(spec: Spec) -> float:
    """An accuracy that falls with the channels, of each group at a rate of its own."""
    lost = 0.0
    for places, full in FULL.items():
        rate = 1 + zlib.crc32(repr(places).encode()) % 7
        lost += 0.01 * rate * (1 - size_at(spec, places) / full) ** 2
    return 0.9 - lost


class ByFormula:
    """Proposals whose accuracy is `guess`; `steps` of learning move the weights a little."""

    def __init__(self, wobble: float = 0.0) -> None:
        self.wobble = wobble

    def tune(self, model: Model, seed: int) -> Model:
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weights in model.network.parameters():
                weights += self.wobble * torch.randn(weights.shape, generator=draw)
        return model

    def accuracy(self, model: Model) -> float:
        total = sum(float(w.detach().double().sum()) for w in model.network.parameters())
        return guess(model.network.spec) + 1e-4 * self.wobble * (total % 1)


class Keeping(ByFormula):
    """Has all that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given = list[Model]()

    def tune(self, model: Model, seed: int) -> Model:
        self.given.append(model)
        return model


class Blind(ByFormula):
    """Sees no difference."""

    def accuracy(self, model: Model) -> float:
        return 0.5


def of(model: Model) -> float:
    return network_ms(model.network.spec)


def fresh(spec: Spec) -> Model:
    torch.manual_seed(0)
    return Model(build(spec).eval(), RULE, tuple("abcdefg"))


def smallest_spec() -> Spec:
    """Few groups of few channels, so that a run can go to its end."""
    spec = replace(small_spec(), stages=small_spec().stages[:2])
    return replace(spec, head=replace(spec.head, conv=16, hidden=()))


@pytest.fixture
def model() -> Model:
    return fresh(small_spec())


@pytest.fixture
def table() -> LatencyTable:
    return LatencyTable(small_spec(), SIZE, Formula())


def by_hand(now: Step, first: Step, spec: Spec, goal_ms: float) -> tuple[float, dict[str, int]]:
    """The aim of the next step, and the width of each group that meets it, by its name."""
    aim = now.latency_ms - 0.025 * first.latency_ms * 0.96**now.number
    aim = max(aim, goal_ms)
    met, least = {}, {}
    for group in channel_groups(spec):
        for size in range(8 * ((group.size - 1) // 8), 0, -8):
            least[group.name] = size
            if network_ms(resized(spec, {group.places: size})) <= aim * (1 + 1e-12):
                met[group.name] = size
                break
    return aim, met or least


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Step]]:
    """To 0.6 of the time."""
    model, table = fresh(small_spec()), LatencyTable(small_spec(), SIZE, Formula())
    folder = tmp_path_factory.mktemp("long") / "steps"
    return folder, list(netadapt(model, 0.6 * of(model), table, of, ByFormula(), folder))


def test_each_step_is_the_best_of_all_that_were_worked_out_by_hand(
    model: Model, long_run: tuple[Path, list[Step]]
) -> None:
    folder, steps = long_run
    goal = 0.6 * of(model)
    assert steps[0] == Step(0, of(model), of(model), guess(model.network.spec))
    assert len(steps) > 7
    assert steps[-1].latency_ms <= goal < steps[-2].latency_ms
    spec = model.network.spec
    for now, step in pairwise(steps):
        aim, widths = by_hand(now, steps[0], spec, goal)
        assert step.aim_ms == pytest.approx(aim)
        assert {p.group: p.after for p in step.proposals} == widths
        prices = {}
        for group in channel_groups(spec):
            if group.name in widths:
                smaller = resized(spec, {group.places: widths[group.name]})
                lost = now.accuracy - guess(smaller)
                prices[group.name] = lost / (now.latency_ms - network_ms(smaller))
        assert step.group == min(prices, key=prices.__getitem__)
        proposal = next(p for p in step.proposals if p.group == step.group)
        spec = load_model(folder / f"step-{step.number:03}").network.spec
        assert proposal.predicted_ms == pytest.approx(network_ms(spec))
        assert step.latency_ms == network_ms(spec)
        assert step.accuracy == proposal.accuracy == guess(spec)
        assert proposal.before > proposal.after


def test_the_numbers_are_the_papers() -> None:
    assert (FIRST_STEP, DECAY) == (0.025, 0.96)


def test_widths_stay_multiples_of_eight_and_residuals_fit(
    model: Model, long_run: tuple[Path, list[Step]]
) -> None:
    folder, steps = long_run
    last = load_model(folder / f"step-{steps[-1].number:03}").network
    assert last.spec.name == "mobilenet_v3_small_netadapt"
    before = sizes_of(model.network.spec)
    changed = [size for places, size in sizes_of(last.spec).items() if size != before[places]]
    assert changed
    assert all(size % 8 == 0 for size in changed)
    for stage in last.spec.stages:
        for first, second in pairwise(stage):
            assert isinstance(second, MBConv)
            assert second.skip
            assert first.out == second.out
    assert last(torch.zeros(1, 3, SIZE, SIZE)).shape == (1, 7)


def test_the_filters_of_the_largest_norm_stay(
    model: Model, table: LatencyTable, tmp_path: Path
) -> None:
    block = model.network.stages[3][1]
    large = torch.arange(0, 240, 2)
    with torch.no_grad():
        for weights in (block.expand.conv.weight, block.depthwise.conv.weight):
            weights[large] *= 20
        block.project.conv.weight[:, large] *= 20
    tuning = Keeping()
    next(
        s for s in netadapt(model, 0.97 * of(model), table, of, tuning, tmp_path / "a") if s.number
    )
    pruned = [m.network for m in tuning.given if m.network.spec.stages[3][1].expand < 240]
    assert pruned
    whole = block.depthwise.conv.weight.flatten(1)
    for network in pruned:
        left = network.stages[3][1].depthwise.conv.weight.flatten(1)
        kept = [int((whole == kernel).all(1).nonzero().item()) for kernel in left]
        assert kept == sorted(kept)
        assert set(large.tolist()) <= set(kept) or set(kept) <= set(large.tolist())


class Killed(Exception):
    pass


class Dies:
    """Whatever is called the n-th time raises."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, work: Callable[..., object]) -> Callable[..., object]:
        def call(*values: object) -> object:
            self.left -= 1
            if self.left == 0:
                raise Killed
            return work(*values)

        return call


def weights_of(folder: Path, step: Step) -> dict[str, torch.Tensor]:
    return dict(load_model(folder / f"step-{step.number:03}").network.state_dict())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Step]]:
    model, table = fresh(small_spec()), LatencyTable(small_spec(), SIZE, Formula())
    folder = tmp_path_factory.mktemp("whole") / "steps"
    return folder, list(netadapt(model, 0.9 * of(model), table, of, ByFormula(0.01), folder))


@pytest.mark.parametrize("at", [1, 2, 3, 4, 12, 30, 31, 57])
def test_a_killed_run_goes_on_and_is_the_same(
    at: int,
    model: Model,
    table: LatencyTable,
    uninterrupted: tuple[Path, list[Step]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, steps = uninterrupted
    assert len(steps) == 4
    folder, tuning, dies = tmp_path / "steps", ByFormula(0.01), Dies(at)
    monkeypatch.setattr(tuning, "tune", dies(tuning.tune))
    monkeypatch.setattr(tuning, "accuracy", dies(tuning.accuracy))
    with pytest.raises(Killed):
        list(netadapt(model, 0.9 * of(model), table, dies(of), tuning, folder))
    again = LatencyTable(small_spec(), SIZE, Formula())
    torch.manual_seed(at)  # nothing may come from torch's own state
    assert list(netadapt(model, 0.9 * of(model), again, of, ByFormula(0.01), folder)) == steps
    for step in steps:
        ours, theirs = weights_of(folder, step), weights_of(whole, step)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_killed_while_it_wrote_what_it_began_with(
    model: Model, table: LatencyTable, tmp_path: Path
) -> None:
    """The half that is left is nobody else's."""
    folder = tmp_path / "steps"
    folder.mkdir()
    (folder / ".netadapt.json.4711.tmp").write_text("{")
    assert list(netadapt(model, 0.98 * of(model), table, of, ByFormula(), folder))
    assert (folder / "netadapt.json").is_file()


def test_killed_between_a_steps_model_and_its_line(
    model: Model, table: LatencyTable, tmp_path: Path
) -> None:
    folder = tmp_path / "steps"
    goal = 0.93 * of(model)
    steps = list(netadapt(model, goal, table, of, ByFormula(0.01), folder))
    last = weights_of(folder, steps[-1])
    lines = (folder / "steps.jsonl").read_text().splitlines(keepends=True)
    (folder / "steps.jsonl").write_text("".join(lines[:-1]))
    assert list(netadapt(model, goal, table, of, ByFormula(0.01), folder)) == steps
    assert all(
        torch.equal(value, last[name]) for name, value in weights_of(folder, steps[-1]).items()
    )


def test_a_finished_run_is_read_and_nothing_is_done(
    model: Model, table: LatencyTable, tmp_path: Path
) -> None:
    steps = list(netadapt(model, 0.95 * of(model), table, of, ByFormula(), tmp_path / "steps"))
    none = Dies(1)(of)
    again = netadapt(model, 0.95 * of(model), table, none, ByFormula(), tmp_path / "steps")
    assert list(again) == steps


def test_a_goal_that_is_met_already(model: Model, table: LatencyTable, tmp_path: Path) -> None:
    (only,) = netadapt(model, of(model), table, of, ByFormula(), tmp_path / "steps")
    assert only.number == 0


def test_a_goal_below_what_is_possible_says_what_is(tmp_path: Path) -> None:
    spec = smallest_spec()
    model, table = fresh(spec), LatencyTable(spec, SIZE, Formula())
    floor = network_ms(resized(spec, dict.fromkeys(sizes_of(spec), 8)))
    with pytest.raises(EdgewiseError, match=rf"narrowed to .* it takes {floor:.3g} ms") as caught:
        list(netadapt(model, 0.9 * floor, table, of, Blind(), tmp_path / "steps"))
    assert not isinstance(caught.value, UsageError)
    assert not (tmp_path / "steps").exists()
    steps = list(netadapt(model, floor, table, of, Blind(), tmp_path / "steps"))
    assert steps[-1].latency_ms == floor


def test_a_device_that_grows_no_faster_is_given_up_on(tmp_path: Path) -> None:
    spec = smallest_spec()
    narrowest = resized(spec, dict.fromkeys(sizes_of(spec), 8))
    first = [False, True]  # the floor was measured in a lucky moment

    def stubborn(model: Model) -> float:
        narrow = sizes_of(model.network.spec) == sizes_of(narrowest)
        return 1.0 if narrow and first.pop() else 2.0

    table = LatencyTable(spec, SIZE, Formula())
    with pytest.raises(EdgewiseError, match="it takes 2 ms"):
        list(netadapt(fresh(spec), 1.5, table, stubborn, Blind(), tmp_path / "steps"))


def test_where_no_group_can_do_it_alone_each_does_what_it_can(table: LatencyTable) -> None:
    assert narrowings(table, table.full, 0.01) == {
        places: 8 for places in table.full if table.full[places] > 8
    }
    nothing = dict.fromkeys(table.full, 8)
    assert narrowings(table, nothing, 0.5) == {}


def proposal(group: str, predicted_ms: float, accuracy: float) -> Proposal:
    return Proposal(group, 16, 8, predicted_ms, accuracy)


@pytest.mark.parametrize(
    ("proposals", "best"),
    [
        # 2 points for 1 ms, 3 points for 2 ms, 1 point for 0.25 ms
        ([("a", 9.0, 0.78), ("b", 8.0, 0.77), ("c", 9.75, 0.79)], "b"),
        ([("a", 9.9, 0.81), ("b", 9.0, 0.82), ("c", 5.0, 0.79)], "b"),  # two lose nothing
        ([("a", 10.5, 0.79), ("b", 9.0, 0.40)], "b"),  # one saves nothing
    ],
)
def test_the_price_of_a_millisecond(proposals: list[tuple[str, float, float]], best: str) -> None:
    now = Step(3, 10.0, 10.0, 0.8)
    chosen = best_of([proposal(*values) for values in proposals], now)
    assert proposals[chosen][0] == best


def test_a_folder_of_something_else_is_left_alone(
    model: Model, table: LatencyTable, tmp_path: Path
) -> None:
    def begin(model: Model, part: float, folder: Path) -> list[Step]:
        return list(netadapt(model, part * of(model), table, of, ByFormula(), folder))

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    with pytest.raises(UsageError, match="mine holds something else"):
        begin(model, 0.98, tmp_path / "mine")
    begin(model, 0.98, tmp_path / "steps")
    with pytest.raises(UsageError, match=r"was begun for .* ms, not"):
        begin(model, 0.97, tmp_path / "steps")
    torch.manual_seed(1)
    other = replace(model, network=build(model.network.spec).eval())
    with pytest.raises(UsageError, match="begun with another model"):
        begin(other, 0.98, tmp_path / "steps")


def test_a_damaged_line_is_named(model: Model, table: LatencyTable, tmp_path: Path) -> None:
    folder = tmp_path / "steps"
    list(netadapt(model, 0.98 * of(model), table, of, ByFormula(), folder))
    good = (folder / "steps.jsonl").read_text()
    for bad, said in (('{"number": 1', "not valid JSON"), ('{"number": "one"}', "number")):
        (folder / "steps.jsonl").write_text(f"{good}{bad}\n")
        with pytest.raises(UsageError, match=rf"steps\.jsonl, line \d+.*{said}"):
            list(netadapt(model, 0.98 * of(model), table, of, ByFormula(), folder))


def test_a_table_that_does_not_fit_is_refused(model: Model, tmp_path: Path) -> None:
    def begin(table: LatencyTable, model: Model = model) -> None:
        list(netadapt(model, 1e-3, table, of, ByFormula(), tmp_path / "steps"))

    with pytest.raises(UsageError, match="the table is of 64 px, and the model takes 32"):
        begin(LatencyTable(small_spec(), 64, Formula()))
    with pytest.raises(UsageError, match="does not have the rows of"):
        begin(LatencyTable(variant("mobilenet_v2").spec(), SIZE, Formula()))
    resnet = variant("resnet18").spec(0.25, classes=7)
    apart = build(with_ranks(resnet, {next(iter(rank_fields(resnet))): 1}))
    with pytest.raises(UsageError, match="taken apart"):
        begin(LatencyTable(resnet, SIZE, Formula()), replace(model, network=apart))
