"""A batch in parts, in fewer bits and compiled: the same learning, as far as it can be."""

from __future__ import annotations

import pytest
import torch

from edgewise.errors import UsageError
from edgewise.training.learner import Learner
from edgewise.training.recipe import Recipe
from edgewise.training.start import preprocess_of, resolve
from edgewise.training.world import World


def learned(
    steps: int = 2, images: int = 6, **settings: object
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """ConvNeXt has no batch norm, so that a batch is the sum of its parts."""
    recipe = Recipe(
        "photos",
        "convnext_atto",
        imgsz=32,
        epochs=10,
        pretrained=False,
        device="cpu",
        **{"lr": 1e-3, "optimizer": "sgd", **settings},  # type: ignore[arg-type]
    )
    learner = Learner(recipe, preprocess_of(recipe), [4] * 3, steps_per_epoch=steps)
    learner.begin_epoch(0)
    torch.manual_seed(5)
    losses = []
    for number in range(steps):
        pixels = torch.randint(0, 256, (images, 32, 32, 3), dtype=torch.uint8)
        losses.append(learner.step(pixels, torch.arange(images) % 3, number)[0])
    return {name: p.detach() for name, p in learner.network.named_parameters()}, losses


@pytest.mark.parametrize("settings", [{}, {"mixup": 0.3}, {"clip": 0.01}])
def test_a_batch_in_parts_is_the_batch(settings: dict[str, object]) -> None:
    (whole, losses), (parts, in_parts) = learned(**settings), learned(accumulate=3, **settings)
    assert in_parts == pytest.approx(losses, rel=1e-5)
    for name, weight in whole.items():
        assert torch.allclose(parts[name], weight, rtol=1e-4, atol=1e-6), name


def test_no_part_of_a_batch_is_a_single_image(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, sizes = Learner._loss, []

    def sized(self: Learner, images: torch.Tensor, targets: torch.Tensor) -> object:
        sizes.append(len(images))
        return loss(self, images, targets)

    whole, losses = learned(images=10)
    monkeypatch.setattr(Learner, "_loss", sized)
    parts, in_parts = learned(images=10, accumulate=4)
    assert sizes == [3, 3, 2, 2] * 2
    assert in_parts == pytest.approx(losses, rel=1e-5)
    for name, weight in whole.items():
        assert torch.allclose(parts[name], weight, rtol=1e-4, atol=1e-6), name


def test_all_processes_compute_in_as_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a last batch of 7, one gets 4 images and the other 3, which make 1 part at most."""

    class OfTwo(World):
        def sum(self, *values: float) -> tuple[float, ...]:
            return (7.0,) if values in ((4.0,), (3.0,)) else values

    counts, own = [], Learner._loss

    def watched(learner: Learner, images: torch.Tensor, targets: torch.Tensor) -> object:
        counts.append(len(images))
        return own(learner, images, targets)

    def joined(learner: Learner) -> torch.nn.Module:
        learner.world = OfTwo(size=2)
        return learner.network

    monkeypatch.setattr(Learner, "_loss", watched)
    monkeypatch.setattr(Learner, "_forward", joined)
    for images in (4, 3):
        learned(steps=1, images=images, accumulate=2)
    assert counts == [4, 3]


def test_clipping_bounds_the_step() -> None:
    before, _ = learned(steps=1, lr=1e-8)
    after, _ = learned(steps=1, lr=1.0, momentum=0.0, weight_decay=0.0, clip=0.01)
    moved = sum((after[name] - before[name]).square().sum().item() for name in before) ** 0.5
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_bf16_learns_about_the_same() -> None:
    (_, losses), (weights, short) = learned(), learned(precision="bf16")
    assert short == pytest.approx(losses, rel=0.02)
    assert short != losses
    assert all(weight.dtype == torch.float32 for weight in weights.values())


@pytest.mark.slow
def test_compiled_it_learns_the_same() -> None:
    (whole, losses), (compiled, also) = learned(), learned(compile=True)
    assert also == pytest.approx(losses, rel=1e-4)
    for name, weight in whole.items():
        assert torch.allclose(compiled[name], weight, rtol=1e-3, atol=1e-5), name


def test_what_can_not_be_done() -> None:
    says = "a batch of 8 can't be computed in 5 parts.*Give accumulate=4 or less, or --batch 10 or"
    with pytest.raises(UsageError, match=says):
        resolve(Recipe("photos", batch=8, accumulate=5, pretrained=False, device="cpu"))
    with pytest.raises(UsageError, match="fp16 needs an NVIDIA GPU"):
        resolve(Recipe("photos", precision="fp16", pretrained=False, device="cpu"))
