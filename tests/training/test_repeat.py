"""The same seed gives the same run; what several processes may share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgewise.data.dataset import load_dataset
from edgewise.errors import UsageError
from edgewise.run_folder import Run
from edgewise.training import trial
from edgewise.training.learner import Learner
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.training.start import create_run, preprocess_of
from edgewise.training.world import World


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def test_on_a_cpu_deterministic_changes_nothing(
    recipe: Recipe, reference: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(replace(recipe, deterministic=True), tmp_path)
    assert torch.are_deterministic_algorithms_enabled()
    assert run.weights.read_bytes() == reference.weights.read_bytes()
    assert re.search(
        r"^--deterministic: a step takes \d\.\d\d times as", capsys.readouterr().out, re.M
    )


def test_what_deterministic_costs_is_measured_in_turns(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that only steps move, by 1 s and by 1.5 s where every operator is asked."""
    clock, ways = [0.0], []

    def step(self: Learner, pixels: Tensor, labels: Tensor, number: int) -> tuple[float, int]:
        assert len(pixels) == len(labels) == 4
        ways.append(torch.are_deterministic_algorithms_enabled())
        clock[0] += 1.5 if ways[-1] else 1.0
        return 0.0, 0

    monkeypatch.setattr(Learner, "step", step)
    monkeypatch.setattr(trial.time, "monotonic", lambda: clock[0])
    chosen = replace(recipe, batch=4, deterministic=True)
    dataset = load_dataset(Path(recipe.data), workers=1)
    cost = trial.cost_of_determinism(chosen, preprocess_of(recipe), dataset)
    assert cost == pytest.approx(1.5)
    assert ways == [False, False, True, True] * trial.TURNS
    assert torch.are_deterministic_algorithms_enabled()


def test_sync_batch_norm_needs_gpus(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sync_batch_norm works between NVIDIA GPUs only"):
        train(replace(recipe, sync_batch_norm=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sync_batch_norm_keeps_names_and_leaves_the_average_plain(recipe: Recipe) -> None:
    plain, synced = (
        Learner(
            replace(recipe, sync_batch_norm=sync), preprocess_of(recipe), [4] * 3, 4, World(0, 2)
        )
        for sync in (False, True)
    )
    norms = [m for m in synced.network.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert len(norms) == sum(isinstance(m, nn.BatchNorm2d) for m in plain.network.modules()) > 5
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in synced.average.modules())
    assert [*synced.network.state_dict()] == [*plain.network.state_dict()]
    with torch.no_grad():
        for index, value in enumerate(synced.network.state_dict().values()):
            value.fill_(index)
        synced.average.update_parameters(synced.network)  # the first is a copy
    for index, value in enumerate(synced.average.module.state_dict().values()):
        assert torch.all(value == index)


def test_too_few_images_for_the_processes(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    few = Recipe(str(digits), "tiny", pretrained=False, imgsz=32, batch=7, workers=0, device="cpu")
    with pytest.raises(UsageError, match="7 images in a batch are too few for 4 processes"):
        create_run(few, Run(tmp_path / "run"), ExitStack())
    assert not (tmp_path / "run").exists()
