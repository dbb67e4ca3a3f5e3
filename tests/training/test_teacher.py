"""Distillation: what a teacher says of the same crops, and what comes over."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import import_timm

from edgewise.data.dataset import load_dataset
from edgewise.errors import UsageError
from edgewise.model import Model
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from edgewise.run_folder import Run
from edgewise.training.evaluate import evaluate
from edgewise.training.history import read_history
from edgewise.training.learner import Learner
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.training.rounding import as_learned
from edgewise.training.start import reopen_run, resolve
from edgewise.training.teacher import Teacher, load_teacher
from edgewise.weights.create import create_model
from edgewise.weights.folder import save_model

CPU = torch.device("cpu")
RULE = Preprocess(32, 1.0, "bilinear", (120.0, 110.0, 100.0), (60.0, 50.0, 40.0))


@pytest.fixture(scope="module")
def teacher_run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One that has learned zeros, ones and fours well."""
    root = tmp_path_factory.mktemp("teacher") / "run"
    return train(replace(recipe, epochs=15, lr=1e-2, magnitude=0, crop_scale=0.9), root)


def learner_of(recipe: Recipe, teacher: Teacher | None) -> Learner:
    learner = Learner(recipe, RULE, [4, 4, 4], steps_per_epoch=5, teacher=teacher)
    learner.begin_epoch(0)
    return learner


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (12, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return pixels, torch.arange(12) % 3


def test_a_pupil_that_is_its_teacher_has_nothing_to_learn(recipe: Recipe) -> None:
    whole = replace(
        recipe, teacher_weight=1.0, weight_decay=0.0, optimizer="sgd", lr=1.0, dropout=0.0,
        freeze_norm=True, mixup=0.5,
    )  # fmt: skip
    own = learner_of(whole, None)
    teacher = Teacher(own.average.module.eval(), RULE, torch.arange(3), "")
    for same in (True, False):
        shown = teacher if same else replace(teacher, columns=torch.tensor([1, 2, 0]))
        learner = learner_of(whole, shown)
        before = {name: p.clone() for name, p in learner.network.named_parameters()}
        learner.step(*batch(0), 0)
        moved = max((p - before[n]).abs().max() for n, p in learner.network.named_parameters())
        assert (moved < 1e-6) == same


def test_the_loss_is_hintons(recipe: Recipe) -> None:
    """By hand in float64: a part labels, a part T^2 KL(teacher || pupil) at temperature T."""
    weight, warmth = 0.7, 3.0
    told = replace(
        recipe, teacher_weight=weight, teacher_temperature=warmth, freeze_norm=True, dropout=0.0,
        label_smoothing=0.0,
    )  # fmt: skip
    torch.manual_seed(1)
    other = create_model("tiny", 3).eval()
    learner = learner_of(told, Teacher(other, RULE, torch.arange(3), ""))
    pixels, labels = batch(1)
    inputs = RULE.normalise(pixels)
    with torch.no_grad():
        ours, theirs = (net(inputs).double().numpy() for net in (learner.network, other))
    loss, _ = learner.step(pixels, labels, 0)

    def softmax(logits: np.ndarray) -> np.ndarray:
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    p, q = softmax(theirs / warmth), softmax(ours / warmth)
    hard = -np.log(softmax(ours)[np.arange(12), labels.numpy()]).mean()
    soft = warmth**2 * (p * np.log(p / q)).sum(axis=1).mean()
    assert loss == pytest.approx((1 - weight) * hard + weight * soft, rel=1e-5)


def test_knowledge_comes_over_without_a_true_label(
    teacher_run: Run, digits: Path, recipe: Recipe, tmp_path: Path
) -> None:
    """All labels of the pupil's images are wrong; it learns the right ones from the teacher."""
    lines = ["path,label,split"]
    for sample in load_dataset(digits, workers=1).splits["train"]:
        lines.append(f"{sample.path},{(1, 4, 0)[sample.label]},train")
    for split in ("val", "test"):
        for sample in load_dataset(digits, workers=1).splits[split]:
            lines.append(f"{sample.path},{(0, 1, 4)[sample.label]},{split}")
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("\n".join(lines) + "\n")
    pupil = replace(
        recipe, data=str(wrong), epochs=15, lr=1e-2, magnitude=0, crop_scale=0.9,
        teacher=str(teacher_run.root), teacher_weight=1.0,
    )  # fmt: skip
    learned = evaluate(train(pupil, tmp_path / "pupil"), "test", "cpu").top1
    taught = evaluate(teacher_run, "test", "cpu").top1
    assert taught >= 0.8 and learned >= 0.7
    alone = train(replace(pupil, teacher=None), tmp_path / "alone")
    assert read_history(alone)[-1].val_accuracy <= 0.1


def test_a_run_goes_on_with_the_same_teacher_only(
    teacher_run: Run, recipe: Recipe, tmp_path: Path
) -> None:
    folder = tmp_path / "teacher"
    model = Model(create_model("tiny", 3), RULE, ("0", "1", "4"))
    save_model(model, folder)
    run = train(replace(recipe, teacher=str(folder), epochs=1), tmp_path / "run")
    torch.nn.init.zeros_(model.network.head.classifier.weight)
    save_model(model, folder)
    with pytest.raises(UsageError, match="was changed since this run began"):
        train(Recipe.read(run.recipe), run.root, resume=True)


def test_classes_in_another_order_and_another_rule(tmp_path: Path) -> None:
    """Its own normalisation and size, whatever the pupil's are."""
    rule = Preprocess(48, 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD)
    network = create_model("tiny", 4).eval()
    save_model(Model(network, rule, ("d", "a", "c", "b")), tmp_path / "model")
    teacher = load_teacher(str(tmp_path / "model"), ("a", "b", "c"), CPU)
    pixels, _ = batch(2)
    larger = pixels.repeat_interleave(3, dim=1).repeat_interleave(3, dim=2)[:, ::2, ::2]
    logits = teacher.logits(RULE.normalise(pixels), RULE)
    with torch.no_grad():
        same_size = network(rule.normalise(pixels))[:, [1, 3, 2]]
        own = replace(teacher, preprocess=replace(rule, size=32))
        assert torch.allclose(own.logits(RULE.normalise(pixels), RULE), same_size, atol=1e-5)
        near = network(rule.normalise(larger))[:, [1, 3, 2]]
    assert logits.shape == (12, 3) and torch.allclose(logits, near, atol=0.5)
    with pytest.raises(UsageError, match=r"doesn't know the class 'e'.*it knows d, a, c, b"):
        load_teacher(str(tmp_path / "model"), ("a", "e"), CPU)


def test_a_teacher_that_learned_int8_gives_its_int8_answers(tmp_path: Path) -> None:
    """As the run gives them everywhere else."""
    network = create_model("tiny", 3).eval()
    model = Model(network, RULE, ("a", "b", "c"), {"head.classifier": (-1.0, 1.0)})
    save_model(model, tmp_path / "model")
    inputs = RULE.normalise(batch(2)[0])
    answers = load_teacher(str(tmp_path / "model"), model.labels, CPU).logits(inputs, RULE)
    with torch.no_grad():
        assert torch.allclose(answers, as_learned(model).network.eval()(inputs), atol=1e-5)
        assert not torch.allclose(answers, network(inputs), atol=1e-4)


def test_timms_network_answers_as_it_does_in_timm(tmp_path: Path) -> None:
    timm = import_timm()
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv3_small_050", num_classes=3).eval()
    torch.save(network.state_dict(), tmp_path / "teacher.pth")
    source = f"timm:mobilenetv3_small_050:{tmp_path / 'teacher.pth'}"
    teacher = load_teacher(source, ("a", "b", "c"), CPU)
    config = timm.data.resolve_model_data_config(network)
    images = torch.rand(2, 3, *config["input_size"][1:])
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    own = Preprocess(224, 1.0, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    with torch.no_grad():
        expected = network((images - mean) / std)
    assert torch.allclose(teacher.logits(images * 255, own), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("timm:no_such_net", r"timm .* has no model no_such_net"),
        ("timm:resnet18:gone.pth", "no such checkpoint of the teacher: gone.pth"),
        ("gone", "no such model folder: gone"),
    ],
)
def test_a_teacher_that_is_not_there(source: str, says: str) -> None:
    import_timm()
    with pytest.raises(UsageError, match=says):
        load_teacher(source, ("a", "b"), CPU)


def test_a_run_can_be_resumed_from_another_folder_than_its_teacher_was_named_in(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for named, stored in (
        ("runs/large", str(tmp_path / "runs" / "large")),
        ("timm:resnet18:best.pth", f"timm:resnet18:{tmp_path / 'best.pth'}"),
        ("timm:resnet18", "timm:resnet18"),
        (None, None),
    ):
        resolved = resolve(replace(recipe, teacher=named))
        assert resolved.teacher == stored
        assert resolve(resolved) == resolved


def test_a_run_of_an_older_version_named_its_teachers_file_relatively(
    reference: Run, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(reference.root, run.root)
    stored = replace(Recipe.read(run.recipe), teacher="timm:resnet18:best.pth")
    stored.write(run.recipe)
    recipe, _, _ = reopen_run(stored, run)
    assert recipe.teacher == f"timm:resnet18:{Path('best.pth').resolve()}"


def test_a_bad_teacher_is_found_before_a_run_is_made(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such model folder"):
        train(replace(recipe, teacher="gone"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
