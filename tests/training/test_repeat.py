"""The same seed gives the same run; what several processes may share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from edgewise.errors import UsageError
from edgewise.run_folder import Run
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
    recipe: Recipe, reference: Run, tmp_path: Path
) -> None:
    run = train(replace(recipe, deterministic=True), tmp_path)
    assert torch.are_deterministic_algorithms_enabled()
    assert run.weights.read_bytes() == reference.weights.read_bytes()


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
