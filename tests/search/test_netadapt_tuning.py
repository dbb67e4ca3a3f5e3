"""Proposals that really learn, on real digits."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from row_formula import SIZE, Formula, network_ms
from search_device import FormulaDevice
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.swa_utils import update_bn

from edgewise.compress.pruned_run import training_batches
from edgewise.layers import DropPath
from edgewise.measure.rounds import summary
from edgewise.model import Model
from edgewise.run_folder import Run
from edgewise.search import adapted
from edgewise.search.adapted import Clock, narrow, train_narrowed
from edgewise.search.budget import Budget
from edgewise.search.device import Measured, TimedFile
from edgewise.search.latency_table import LatencyTable
from edgewise.search.netadapt import netadapt
from edgewise.search.netadapt_tuning import RunTuning
from edgewise.training.evaluate import evaluate
from edgewise.training.learner import Learner
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.weights.folder import load_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A short run on scikit-learn's zeros, ones and fours."""
    root = tmp_path_factory.mktemp("digits")
    images, labels = load_digits(return_X_y=True)
    for label in (0, 1, 4):
        (root / "all" / str(label)).mkdir(parents=True)
        for number, image in enumerate(images[labels == label][:40]):
            pixels = (image.reshape(8, 8) * 15.9).astype(np.uint8)
            Image.fromarray(pixels).save(root / "all" / str(label) / f"{number}.png")
    recipe = Recipe(
        data=str(root / "all"),
        model="tiny",
        pretrained=False,
        imgsz=SIZE,
        epochs=4,
        batch=16,
        lr=3e-3,
        flip=False,
        workers=0,
        device="cpu",
    )
    return train(recipe, root / "run")


def state(model: Model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in other)


def test_the_same_seed_learns_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning, model = RunTuning(run, steps=5), load_model(run.model)
    before, learned = state(model), []
    step = Learner.step
    monkeypatch.setattr(Learner, "step", lambda *a: learned.append(a[-1]) or step(*a))
    first = state(tuning.tune(copy.deepcopy(model), 3))
    assert learned == [0, 1, 2, 3, 4]
    torch.manual_seed(9)
    assert same(first, state(tuning.tune(copy.deepcopy(model), 3)))
    assert not same(first, state(tuning.tune(copy.deepcopy(model), 4)))
    assert not same(first, before)
    assert same(before, state(load_model(run.model)))


def test_as_many_steps_as_there_is_time_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that ticks a second a step of learning, and three a test."""
    clock, step = [0.0], Learner.step

    def ticking(*arguments: Any) -> Any:
        clock[0] += 1.0
        return step(*arguments)

    class Slow(RunTuning):
        def accuracy(self, model: Model) -> float:
            clock[0] += 3.0
            return super().accuracy(model)

    monkeypatch.setattr(Learner, "step", ticking)
    monkeypatch.setattr("edgewise.search.netadapt_tuning.time.perf_counter", lambda: clock[0])
    tuning, model = Slow(run, steps=20), load_model(run.model)
    before = state(model)
    assert [tuning.steps_within(s, model) for s in (2, 3.5, 7.5, 100)] == [0, 0, 4, 20]
    assert tuning.steps == 20
    assert same(before, state(model))


def test_batch_norm_gets_new_statistics_first(run: Run) -> None:
    model = load_model(run.model)
    for module in model.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(7.0)
    right = copy.deepcopy(model.network)
    for module in right.modules():  # PyTorch's averages in training mode
        if isinstance(module, DropPath):
            module.probability = 0.0
    update_bn((inputs for inputs, _ in training_batches(run, model)), right)
    tuned = RunTuning(run, steps=0).tune(model, 0).network
    assert same(dict(tuned.state_dict()), dict(right.state_dict()))


def test_it_learns(run: Run) -> None:
    model = load_model(run.model)

    def loss(model: Model) -> float:
        with torch.no_grad():
            losses = [
                nn.functional.cross_entropy(model.network.eval()(x), y, reduction="sum")
                for x, y in training_batches(run, model)
            ]
        return float(sum(losses))

    with torch.no_grad():
        model.network.head.classifier.weight.zero_()
    before = loss(model)
    assert loss(RunTuning(run, steps=30, rate=1.0).tune(model, 0)) < 0.8 * before


def test_the_accuracy_is_that_of_eval(run: Run) -> None:
    accuracy = RunTuning(run, steps=1).accuracy(load_model(run.model))
    assert accuracy == evaluate(run, "val").top1


def test_from_a_run_to_a_faster_network(run: Run, tmp_path: Path) -> None:
    model = load_model(run.model)
    whole_ms = network_ms(model.network.spec)

    def measure(model: Model) -> float:
        return network_ms(model.network.spec)

    def steps(folder: Path, most: int = 100) -> list[object]:
        table = LatencyTable(model.network.spec, SIZE, Formula())
        every = netadapt(model, 0.9 * whole_ms, table, measure, RunTuning(run, 3), folder)
        return [step for step, _ in zip(every, range(most), strict=False)]

    done = steps(tmp_path / "whole")
    assert len(done) > 2
    last = load_model(tmp_path / "whole" / f"step-{len(done) - 1:03}")
    assert measure(last) <= 0.9 * whole_ms
    assert last.labels == model.labels
    assert RunTuning(run, 3).accuracy(last) == done[-1].accuracy
    steps(tmp_path / "stopped", most=2)
    assert steps(tmp_path / "stopped") == done
    again = load_model(tmp_path / "stopped" / f"step-{len(done) - 1:03}")
    assert same(state(last), state(again))


class BytesDevice(FormulaDevice):
    """Takes a millisecond for each 100 kB of a file."""

    def _measured(self, file: TimedFile) -> Measured:
        return Measured(summary([[file.path.stat().st_size / 1e5] * 5] * 20, 5))


def test_a_search_narrows_and_trains_until_it_fits(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole rung on a device of known times; and nothing is done twice where it was stopped."""
    monkeypatch.setattr(adapted, "DeviceTimes", lambda *arguments: Formula())  # of its rows
    monkeypatch.setattr(RunTuning, "steps_within", lambda self, seconds, model: 3)
    clock, model = Clock(BytesDevice(), "fp32", "onnxruntime"), load_model(run.model)
    measure = clock.measuring(model, Budget.parse("latency=1ms"), tmp_path / "by hand")
    whole = measure(model)
    assert whole == (tmp_path / "by hand" / "first.onnx").stat().st_size / 1e5
    budget = Budget.parse(f"latency={0.98 * whole:.4f}ms")
    numbers = narrow(run, clock, budget, tmp_path / "netadapt", minutes=60)
    latencies = [step["latency_ms"] for step in numbers["steps"]]
    assert latencies[0] == pytest.approx(whole)
    assert latencies == sorted(latencies, reverse=True)
    assert numbers["fits"]
    assert latencies[-1] <= 0.97 * 0.98 * whole < latencies[-2]
    narrowed = load_model(Path(numbers["model"]))
    assert measure(narrowed) == pytest.approx(latencies[-1])
    assert narrowed.labels == model.labels
    with monkeypatch.context() as patch:
        patch.setattr(RunTuning, "tune", lambda *arguments: pytest.fail("was done before"))
        again = narrow(run, clock, budget, tmp_path / "netadapt", minutes=60)
    assert again == numbers
    trained = train_narrowed(Path(numbers["model"]), numbers["steps"], run, tmp_path / "narrowed")
    assert load_model(trained.model).network.spec == narrowed.network.spec
    # Of 85 images of three classes: the 14 of "val" are too few to tell that it learned.
    assert 0.6 < evaluate(trained, "train").top1 <= 1
    short = narrow(run, clock, Budget.parse("latency=1us"), tmp_path / "never", minutes=60)
    assert "no number of steps comes down to" in short["failure"]
    assert not short["fits"]
