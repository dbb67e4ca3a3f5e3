"""Training from a cache: the same as without where nothing is made smaller, and after a resume."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import skimage.data
from PIL import Image

from edgewise.data import cache as module
from edgewise.errors import EdgewiseError, UsageError
from edgewise.run_folder import Run
from edgewise.training import loop
from edgewise.training.interrupt import Stopped
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.training.world import World


def weights(run: Run) -> bytes:
    return run.weights.read_bytes()


@pytest.mark.parametrize("cache", ["ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_stay_as_they_are_give_the_same_run(
    recipe: Recipe, reference: Run, tmp_path: Path, cache: str, workers: int
) -> None:
    run = train(replace(recipe, cache=cache, workers=workers), tmp_path / "run")
    assert weights(run) == weights(reference)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Crops of two photos, each larger than what is trained on."""
    for name in ("chelsea", "coffee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            crop = getattr(skimage.data, name)()[5 * i : 5 * i + 150, 7 * i : 7 * i + 200]
            Image.fromarray(crop).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def test_resumed_equals_uninterrupted(
    recipe: Recipe, photos: Path, tmp_path: Path, stop_at: Callable[[int], None]
) -> None:
    cached = replace(recipe, data=str(photos), batch=4, epochs=2, cache="disk")
    whole = train(cached, tmp_path / "whole")
    assert weights(train(replace(cached, cache="ram"), tmp_path / "ram")) == weights(whole)
    plain = train(replace(cached, cache="none"), tmp_path / "none")
    assert weights(plain) != weights(whole)  # crops of a smaller copy are other pixels
    for cache in ("disk", "ram"):
        stop_at(2)
        with pytest.raises(Stopped):
            train(replace(cached, cache=cache), tmp_path / f"stopped-{cache}")
        resumed = replace(cached, cache=cache)
        assert weights(train(resumed, tmp_path / f"stopped-{cache}", resume=True)) == weights(whole)
    with pytest.raises(UsageError, match="cache can't be changed on resume"):
        train(cached, tmp_path / "stopped-ram", resume=True)


def test_too_little_room_leaves_no_run(
    recipe: Recipe, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(EdgewiseError, match=r"the cache takes [\d,]+ bytes"):
        train(replace(recipe, data=str(photos), cache="ram"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_several_processes_share_a_disk_and_not_memory(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="With torchrun use cache=disk"):
        loop._train(
            replace(recipe, cache="ram"), Run(tmp_path / "run"), False, World(size=2), ExitStack()
        )
    assert not (tmp_path / "run").exists()


def test_no_such_cache(recipe: Recipe) -> None:
    with pytest.raises(UsageError, match="cache: must be one of none, ram, disk, not 'tape'"):
        replace(recipe, cache="tape")
