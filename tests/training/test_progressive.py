"""Progressive learning, held to the paper's table 6 and to what a run really does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edgewise.errors import UsageError
from edgewise.training import loop
from edgewise.training.defaults import check_first_stage
from edgewise.training.learner import Learner
from edgewise.training.loop import train
from edgewise.training.progressive import at_epoch
from edgewise.training.recipe import Recipe
from edgewise.training.recipe_file import laid_over, parse_settings, read_settings
from edgewise.training.start import preprocess_of, resolve

# Table 6: the first and the last value of image size, RandAugment, mixup and dropout.
TABLE = {
    "efficientnet_v2_s": ((128, 300), (5, 15), (0.0, 0.0), (0.1, 0.3)),
    "efficientnet_v2_m": ((128, 380), (5, 20), (0.0, 0.2), (0.1, 0.4)),
    "efficientnet_v2_l": ((128, 380), (5, 25), (0.0, 0.5), (0.1, 0.5)),
}


def of_table(model: str) -> Recipe:
    sizes, magnitudes, mixups, dropouts = TABLE[model]
    return Recipe(
        "photos",
        model,
        epochs=350,
        train_imgsz=sizes[1],
        magnitude=magnitudes[1],
        mixup=mixups[1],
        dropout=dropouts[1],
        stages=4,
        first_imgsz=sizes[0],
        first_magnitude=magnitudes[0],
        first_mixup=mixups[0],
        first_dropout=dropouts[0],
    )


@pytest.mark.parametrize("model", TABLE)
def test_four_stages_from_the_first_values_to_the_last(model: str) -> None:
    recipe = of_table(model)
    stages = [at_epoch(recipe, epoch) for epoch in range(350)]
    assert stages[0] == stages[87] != stages[88]
    for stage, at in ((stages[0], 0), (stages[-1], 1)):
        values = stage.train_imgsz, stage.magnitude, stage.mixup, stage.dropout
        assert values == pytest.approx(tuple(pair[at] for pair in TABLE[model]))
    assert len({stage.train_imgsz for stage in stages}) == 4
    sizes = [stage.train_imgsz or 0 for stage in stages]
    assert sizes == sorted(sizes)
    assert all(size % 8 == 0 for size in sizes if size != recipe.train_imgsz)
    assert stages[-1] == recipe


def test_one_stage_changes_nothing() -> None:
    recipe = Recipe("photos", first_imgsz=32, first_magnitude=1)
    assert at_epoch(recipe, 0) is recipe


def test_a_run_learns_from_larger_images_and_more_dropout_each_stage(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = replace(
        recipe, epochs=2, stages=2, first_imgsz=16, imgsz=32, dropout=0.4, first_dropout=0.1
    )
    seen: list[tuple[int, float]] = []
    step = Learner.step

    def watched(self: Learner, pixels: torch.Tensor, labels: torch.Tensor, number: int):  # type: ignore[no-untyped-def]
        seen.append((pixels.shape[1], self.network.head.dropout.p))
        return step(self, pixels, labels, number)

    monkeypatch.setattr(loop.Learner, "step", watched)
    run = train(growing, tmp_path / "run")
    assert list(dict.fromkeys(seen)) == [(16, 0.1), (32, 0.4)]
    assert Recipe.read(run.recipe).stages == 2


def test_dropout_goes_where_the_network_has_it() -> None:
    for model, classes in (("mobilenet_v3_small", 3), ("mobilenet_v2", 3)):
        recipe = Recipe(
            "photos", model, epochs=2, pretrained=False, dropout=0.45, imgsz=32, device="cpu"
        )
        learner = Learner(recipe, preprocess_of(recipe), [4] * classes, steps_per_epoch=1)
        learner.begin_epoch(0)
        rates = [m.p for m in learner.network.head.modules() if isinstance(m, torch.nn.Dropout)]
        assert rates.count(0.45) == 1 and sum(rates) == 0.45


def test_more_stages_than_epochs() -> None:
    with pytest.raises(UsageError, match="4 stages need at least as many epochs, not 3"):
        resolve(Recipe("photos", epochs=3, stages=4, pretrained=False, device="cpu"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"first_imgsz": 32, "first_dropout": 0.1},
            "without stages=4 or so nothing comes of first_imgsz and first_dropout. Set both, or "
            "first_imgsz=null first_dropout=0",
        ),
        ({"stages": 2, "first_mixup": 0.1}, "without mixup or cutmix nothing .* first_mixup=0"),
        ({"stages": 2, "first_dropout": 0.1}, "without dropout nothing .* first_dropout=0"),
    ],
)
def test_a_first_value_that_would_do_nothing(
    settings: dict[str, Any], says: str, recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=says):
        train(replace(recipe, **settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_first_stage(replace(recipe, **{**settings, "stages": 2, "mixup": 0.2, "dropout": 0.0}))


def test_a_published_recipe_in_a_single_stage() -> None:
    settings = read_settings("efficientnet_v2_s") | {"stages": 1}
    with pytest.raises(
        UsageError, match="Set both, or first_imgsz=null first_magnitude=0"
    ) as error:
        check_first_stage(Recipe("photos", **settings))
    off = str(error.value).partition("Set both, or ")[2].rstrip(".").split()
    check_first_stage(Recipe("photos", **laid_over(settings, parse_settings(off))))
