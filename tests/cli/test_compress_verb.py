"""`edgewise compress` from a small run to one that evaluates and exports like any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commandline import edgewise
from photos import write_photos
from small import small_model

from edgewise.cli.compress import _summary
from edgewise.compress import retrain
from edgewise.compress.other_runs import round_run
from edgewise.data.dataset import load_dataset, read_dataset, write_dataset
from edgewise.deploy.export import export
from edgewise.deploy.verify import verify
from edgewise.errors import UsageError
from edgewise.files import claimed, sha256_file
from edgewise.measure.count import count
from edgewise.run_folder import Run
from edgewise.training.recipe import Recipe
from edgewise.weights.folder import load_model, save_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/first and its pruned runs/small; not to be changed."""
    root = tmp_path_factory.mktemp("compress")
    dataset = load_dataset(write_photos(root / "photos", {"a": 20, "b": 16}), workers=1)
    run = Run(root / "runs" / "first")
    run.root.mkdir(parents=True)
    Recipe(
        data="photos", model="mobilenet_v3_small", pretrained=False, imgsz=32, epochs=3, batch=8,
        workers=0, flip=False, dropout=0.1, stages=2, first_imgsz=24, lr=3e-3,
    ).write(run.recipe)  # fmt: skip
    write_dataset(dataset, run)
    save_model(small_model("mobilenet_v3_small", dataset.classes, size=32), run.model)
    return root


@pytest.fixture(scope="module")
def small(made: Path) -> Run:
    before = {path: sha256_file(path) for path in made.rglob("*") if path.is_file()}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        call = edgewise(
            "compress", "runs/first", "--prune", "30%", "--epochs", 1, "--name", "small"
        )
    assert call.status == 0, call.errors
    assert "VAL ACCURACY" in call.output and "edgewise eval runs/small" in call.output
    assert {path: sha256_file(path) for path in before} == before  # nothing of the old run moved
    return Run(made / "runs" / "small")


def test_the_new_run_is_smaller_and_says_what_was_done(made: Path, small: Run) -> None:
    old, new = (load_model(run.model) for run in (Run(made / "runs" / "first"), small))
    facts = json.loads(small.compression.read_text())
    costs = [count(model.network.spec, 32) for model in (old, new)]
    assert facts["params"] == [cost.params for cost in costs]
    assert facts["macs"] == [cost.macs for cost in costs]
    assert costs[1].macs < 0.75 * costs[0].macs
    assert facts["pruning"]["criterion"] == "taylor"
    assert facts["weights_licence"] is None
    assert (new.labels, new.preprocess) == (old.labels, old.preprocess)


def test_it_has_the_same_split_and_learned_from_the_old_one(made: Path, small: Run) -> None:
    old = Run(made / "runs" / "first")
    assert read_dataset(small).splits == read_dataset(old).splits
    recipe = Recipe.read(small.recipe)
    assert recipe.teacher == str(old.root)
    assert recipe.model == str(small.start)
    assert (recipe.epochs, recipe.head_epochs, recipe.stages) == (1, 0, 1)
    start, end = (load_model(folder).network for folder in (small.start, small.model))
    assert start.spec == end.spec
    kernels = (network.stem.conv.weight for network in (start, end))
    assert not torch.equal(*kernels)  # it has learned


@pytest.mark.slow
def test_it_is_a_run_like_any_other(
    made: Path, small: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(made)
    assert "nothing left to do" in edgewise("train", "--resume", "runs/small").output
    assert edgewise("eval", "runs/small").status == 0
    call = edgewise("report", "runs/small")
    assert call.status == 0, call.errors
    card = small.model_card.read_text()
    assert "mobilenet\\_v3\\_small\\_0.25\\_pruned, trained on from another model" in card
    assert str(made) not in card  # no path of this machine
    export(small.root)
    assert all(not seen.failures for seen in verify(small).artifacts)


def test_bad_calls(made: Path, small: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    for arguments, status, words in (
        (("runs/none", "--prune", "30%"), 2, "no such run"),
        (("runs/first", "--prune", "0"), 2, "'0' is not a part such as 30% or 0.3"),
        (("runs/first", "--prune", "120%"), 2, "not a part"),
        (("runs/first",), 2, "--prune"),
        (("runs/first", "--prune", "30%", "--name", "small"), 2, "Choose another --name"),
        (("runs/first", "--prune", "30%", "--name", "a/b"), 2, "without a path"),
        (("runs/first", "--prune", "99%", "--name", "x"), 2, "would empty stem"),
        (("runs/first", "--prune", "1%", "--round", 256, "--name", "x"), 2, "nothing would go: 1%"),
        (("runs/first", "--prune", "99.9%", "--target", "macs", "--name", "x"), 2, "would empty"),
    ):
        call = edgewise("compress", *arguments)
        assert (call.status, words in call.errors) == (status, True), call.errors
    assert not (made / "runs" / "x").exists()


@pytest.mark.parametrize(
    ("source", "way", "options", "words"),
    [
        ("runs/first", ["--prune", "30%"], ["--rank", 1], "--prune takes no --rank."),
        (
            *("runs/first", ["--qat"]),
            ["--target", "channels", "--criterion", "l1", "--round", 4, "--macs", "50%"],
            "--qat takes no --target, --criterion, --round, --macs.",
        ),
        (
            *("runs/first", ["--separate"], ["--round", 8, "--calibrate", "photos"]),
            "--separate of a RUN takes no --round, --calibrate.",
        ),
        (
            *("runs/first/model", ["--separate"], ["--epochs", 2]),
            "--separate of a MODEL that is no run takes no --epochs.",
        ),
    ],
)
def test_options_that_the_way_would_ignore_are_refused(
    made: Path,
    source: str,
    way: list[str],
    options: list[object],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(made)
    call = edgewise("compress", source, *way, *options, "--name", "x")
    assert (call.status, words in call.errors) == (2, True), call.errors
    assert not (made / "x").exists() and not (made / "runs" / "x").exists()


def test_a_run_made_meanwhile_is_left_alone(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a second `edgewise compress`; `.lock` is what it leaves once it was stopped."""
    monkeypatch.setattr("edgewise.files.PATIENCE", 0.1)
    monkeypatch.chdir(made)
    root, original = tmp_path / "run", Run(Path("runs", "first"))
    with claimed(root), pytest.raises(UsageError, match="another process is at work in"):
        round_run(original, root, 1)
    assert [path.name for path in root.iterdir()] == [".lock"]

    @contextmanager
    def claimed_late(folder: Path) -> Iterator[None]:
        (root / "recipe.json").write_text("of the other")
        with claimed(folder):
            yield

    monkeypatch.setattr("edgewise.compress.retrain.claimed", claimed_late)
    with pytest.raises(UsageError, match="holds something already"):
        round_run(original, root, 1)
    assert {path.name for path in root.iterdir()} == {".lock", "recipe.json"}


def test_images_that_are_gone(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made / "runs" / "first", tmp_path / "runs" / "first")
    data = tmp_path / "runs" / "first" / "data.json"
    data.write_text(data.read_text().replace(str(made), "/gone"))
    monkeypatch.chdir(tmp_path)
    call = edgewise("compress", "runs/first", "--prune", "30%")
    assert call.status == 2 and "the images of this run are gone" in call.errors


def test_a_run_without_a_model(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made / "runs" / "first", tmp_path / "runs" / "first")
    shutil.rmtree(tmp_path / "runs" / "first" / "model")
    monkeypatch.chdir(tmp_path)
    call = edgewise("compress", "runs/first", "--prune", "30%")
    assert call.status == 2 and "no trained model yet" in call.errors


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_run_of_a_gpu_is_compressed_on_a_machine_without_one(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made / "runs" / "first", tmp_path / "runs" / "first")
    run = Run(tmp_path / "runs" / "first")
    there = replace(Recipe.read(run.recipe), device="cuda", precision="fp16", sync_batch_norm=True)
    there.write(run.recipe)
    monkeypatch.chdir(tmp_path)
    call = edgewise("compress", "runs/first", "--activation", "relu", "--epochs", 1)
    assert call.status == 0, call.errors
    assert "there is no device 'cuda' here: trained on 'cpu'" in call.errors
    here = Recipe.read(tmp_path / "runs" / "first-relu-1" / run.recipe.name)
    assert (here.device, here.precision, here.sync_batch_norm) == ("cpu", "fp32", False)


@pytest.mark.slow
def test_part_of_the_latency(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(made)
    options = ("--prune", "10%", "--target", "latency", "--epochs", 1, "--name", "fast")
    call = edgewise("compress", "runs/first", *options)
    assert call.status == 0, call.errors
    facts = json.loads(Run(made / "runs" / "fast").compression.read_text())
    assert facts["macs"][1] < facts["macs"][0]


@pytest.mark.slow
def test_a_run_used_to_int8(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same network, which reloads, evaluates, and exports to an int8 file that is checked."""
    monkeypatch.chdir(made)
    call = edgewise("compress", "runs/first", "--qat", "--epochs", 1, "--name", "rounded")
    assert call.status == 0, call.errors
    old, new = (Run(Path("runs", name)) for name in ("first", "rounded"))
    assert load_model(new.model).network.spec == load_model(old.model).network.spec
    facts = json.loads(new.compression.read_text())
    assert facts["macs"][0] == facts["macs"][1]
    recipe = Recipe.read(new.recipe)
    assert recipe.qat and recipe.teacher == str(old.root.resolve())
    assert edgewise("eval", "runs/rounded").status == 0
    exported = edgewise("export", "runs/rounded", "--precision", "fp32,int8")
    assert exported.status == 0, exported.errors
    rows = [line.split() for line in exported.output.splitlines()]
    assert ["onnx", "int8"] in [row[:2] for row in rows]


def test_a_cheaper_activation(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tensors and MACs, another activation, in a run that learned and evaluates."""
    monkeypatch.chdir(made)
    call = edgewise("compress", "runs/first", "--activation", "relu", "--epochs", 1)
    assert call.status == 0, call.errors
    assert "runs/first-relu-1" in call.output
    old, new = (Run(Path("runs", name)) for name in ("first", "first-relu-1"))
    before, after = load_model(old.model).network, load_model(new.model).network
    assert before.spec.stages[-1][-1].act == "hard_swish"
    assert after.spec.stages[-1][-1].act == "relu"
    assert before.state_dict().keys() == after.state_dict().keys()
    facts = json.loads(new.compression.read_text())
    assert facts["activation"] == "relu" and facts["macs"][0] == facts["macs"][1]
    recipe = Recipe.read(new.recipe)
    assert recipe.teacher == str(old.root.resolve())
    assert str(recipe.lr) == "0.0003"  # as it is shown, a tenth of 0.003
    assert edgewise("eval", "runs/first-relu-1").status == 0
    again = edgewise("compress", "runs/first-relu-1", "--activation", "relu")
    assert again.status == 2 and "no activation that relu could stand for" in again.errors
    for way, rate in ((("--prune", "30%"), 1.0), (("--qat",), 0.1)):  # of the first run's, again
        call = edgewise("compress", "runs/first-relu-1", *way, "--epochs", 1, "--name", way[0][2:])
        assert call.status == 0, call.errors
        third = Recipe.read(Run(Path("runs", way[0][2:])).recipe)
        assert third.lr == pytest.approx(rate * Recipe.read(old.recipe).lr)


@pytest.mark.slow
def test_dense_convolutions_taken_apart(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run, which learns on, and of a model folder, which does not."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "photos", "photos")
    dataset = load_dataset(Path("photos"), workers=1)
    run = Run(Path("runs", "dense"))
    run.root.mkdir(parents=True)
    Recipe(
        data="photos", model="resnet18", pretrained=False, imgsz=33, epochs=1, batch=8, workers=0,
        flip=False,
    ).write(run.recipe)  # fmt: skip
    write_dataset(dataset, run)
    save_model(small_model("resnet18", dataset.classes, size=33), run.model)
    call = edgewise("compress", "runs/dense", "--separate", "--macs", "60%", "--name", "apart")
    assert call.status == 0, call.errors
    assert "RANK" in call.output and "VAL ACCURACY" in call.output
    facts = json.loads(Run(Path("runs", "apart")).compression.read_text())
    assert facts["macs"][1] <= 0.6 * facts["macs"][0]
    spec = load_model(Path("runs/apart/model")).network.spec
    assert count(spec, 33).macs == facts["macs"][1]
    exported = edgewise("export", "runs/apart")
    assert exported.status == 0, exported.errors
    folder = edgewise("compress", "runs/dense/model", "--separate", "--calibrate", "photos")
    assert folder.status == 0, folder.errors
    assert load_model(Path("model-separated")).network.spec.name.endswith("_separated")
    blind = edgewise("compress", "runs/dense/model", "--separate", "--rank", 1, "--name", "blind")
    assert blind.status == 0
    assert "without --calibrate" in blind.errors


def test_a_folder_that_is_there_is_not_replaced(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even by a model's: it may have learned for days. "." has no name of its own."""
    save_model(small_model("resnet18", ("a", "b"), size=33), tmp_path / "dense")
    shutil.copytree(tmp_path / "dense", tmp_path / "dense-separated")
    before = sha256_file(tmp_path / "dense-separated" / "model.safetensors")
    monkeypatch.setattr("edgewise.compress.separate_model.separate_model", lambda *_: 1 / 0)
    monkeypatch.chdir(tmp_path)
    call = edgewise("compress", "dense", "--separate", "--rank", 1)
    assert call.status == 2, call.errors
    assert "dense-separated is there already. Choose another --name." in call.errors
    monkeypatch.chdir(tmp_path / "dense")
    Path("dense-separated").write_text("mine")
    call = edgewise("compress", ".", "--separate", "--rank", 1)
    assert call.status == 2 and "dense-separated is there already" in call.errors, call.errors
    assert sha256_file(tmp_path / "dense-separated" / "model.safetensors") == before


def test_images_that_were_learned_tell_no_accuracy(small: Run, tmp_path: Path) -> None:
    said = _summary(small, small).splitlines()
    assert said[1].endswith("%")
    copy = Run(shutil.copytree(small.root, tmp_path / "all"))
    lines = copy.split.read_text(encoding="utf-8").splitlines()
    learned = [line.replace(",val,", ",train,") for line in lines if ",val," in line]
    copy.split.write_text("\n".join([*lines, *learned, ""]), encoding="utf-8")
    first, second = _summary(small, copy).splitlines()[1:3]
    assert first.endswith("%") and second.endswith(" -")


def test_a_start_that_was_killed_is_no_hindrance(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it came, until the recipe makes the folder a run."""

    class Killed(BaseException):
        pass

    class Enough(BaseException):
        pass

    def kill(*arguments: object) -> None:
        raise Killed

    def train(*arguments: object, **more: object) -> None:
        raise Enough

    first, root = Run(made / "runs" / "first"), tmp_path / "int8"
    monkeypatch.setattr(retrain, "train", train)
    for name in ("save_model", "write_dataset", "write_json", "environment"):
        with monkeypatch.context() as patch:
            patch.setattr(retrain, name, kill)
            with pytest.raises(Killed):
                round_run(first, root)
    (root / ".recipe.json.1.tmp").touch()
    (root / ".start.incoming").mkdir()
    (root / ".lock").touch()
    with pytest.raises(Enough):
        round_run(first, root)
    assert load_model(Run(root).start).labels == load_model(first.model).labels
    with pytest.raises(UsageError, match="holds something already"):
        round_run(first, root)  # a run by now
