"""A checkpoint is whole, or the one before is taken: cut off, changed, full disk, no permission."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import python

from edgewise.errors import EdgewiseError, UsageError
from edgewise.run_folder import Run
from edgewise.training import checkpoint
from edgewise.training.checkpoint import load_checkpoint, save_checkpoint
from edgewise.training.learner import Learner
from edgewise.training.loop import train
from edgewise.training.recipe import OPTIMIZERS, Recipe
from edgewise.training.start import preprocess_of


def test_checkpoint_is_plain_and_two_are_kept(tmp_path: Path) -> None:
    for value in (1, 2, 3):
        save_checkpoint(Run(tmp_path), {"value": torch.tensor(value), "list": [1.5, "a", None]})
    state, problem = load_checkpoint(Run(tmp_path))
    assert state is not None and (state["value"], state["list"]) == (3, [1.5, "a", None])
    assert problem == ""
    (tmp_path / "checkpoints" / "last.safetensors").rename(tmp_path / "newest")
    previous, _ = load_checkpoint(Run(tmp_path))
    assert previous is not None and previous["value"] == 2
    (tmp_path / "newest").rename(tmp_path / "checkpoints" / "last.safetensors")
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "gone"])
def test_broken_checkpoint_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    run = Run(tmp_path)
    for value in (1, 2):
        save_checkpoint(run, {"value": torch.full((1000,), value)})
    break_file(run.checkpoints / "last.safetensors", damage)
    state, problem = load_checkpoint(run)
    assert state is not None and state["value"][0] == 1
    if damage != "gone":
        assert re.search(
            r"last\.safetensors is cut off.*previous\.safetensors, the one before", problem
        )
        break_file(run.checkpoints / "previous.safetensors", damage)
        with pytest.raises(
            EdgewiseError, match=r"last\.safetensors is.*previous\.safetensors is.*--name"
        ):
            load_checkpoint(run)


def break_file(path: Path, damage: str) -> None:
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"hello"}[damage])


def test_full_disk_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    save_checkpoint(run, {"value": 1})

    def no_space(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(EdgewiseError, match=r"No space left.*Free some space"):
        save_checkpoint(run, {"value": 2})
    assert load_checkpoint(run) == ({"value": 1}, "")
    assert [path.name for path in run.checkpoints.iterdir()] == ["last.safetensors"]


def test_limit_of_the_system_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    script = """
        import resource, signal, sys
        from pathlib import Path
        import torch
        from edgewise.errors import EdgewiseError
        from edgewise.run_folder import Run
        from edgewise.training.checkpoint import save_checkpoint
        run = Run(Path(sys.argv[1]))
        save_checkpoint(run, {"value": torch.zeros(10)})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save_checkpoint(run, {"value": torch.ones(1_000_000)})
        except EdgewiseError as error:
            print(error)
    """
    done = python(script, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "can't write" in done.stdout and "Free some space" in done.stdout
    state, problem = load_checkpoint(Run(tmp_path))
    assert state is not None and torch.equal(state["value"], torch.zeros(10)) and not problem
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.safetensors"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_checkpoint_gives_back_every_bit(optimizer: str, recipe: Recipe, tmp_path: Path) -> None:
    """Types, places in memory and what is learned next: a fused optimiser reads tensors as they
    lie, so that an average in another order than its weight would be another average.
    """
    recipe = replace(recipe, optimizer=optimizer, layer_decay=0.9)
    pixels = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    one, other = (
        Learner(recipe, preprocess_of(recipe), [4] * 3, steps_per_epoch=4) for _ in range(2)
    )
    one.begin_epoch(1)
    for number in range(3):
        one.step(pixels, labels, number)
    before = {"numbers": (1, 2.5, float("inf"), None, True), **one.state_dict()}
    save_checkpoint(Run(tmp_path), before)
    after, _ = load_checkpoint(Run(tmp_path))
    assert after is not None
    assert_same(after, before)

    other.load_state_dict(after)
    other.begin_epoch(1)
    assert other.step(pixels, labels, 3) == one.step(pixels, labels, 3)
    assert_same(other.state_dict(), one.state_dict())


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other) or (isinstance(one, dict) and isinstance(other, dict))
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert [*one] == [*other]
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, list | tuple):
        for ours, theirs in zip(one, other, strict=True):
            assert_same(ours, theirs)
    else:
        assert one == other


def test_types_that_a_network_may_have(tmp_path: Path) -> None:
    kinds = (torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool)
    state = {str(kind): torch.tensor([[0, 1], [1, 0]]).to(kind) for kind in kinds}
    state |= {"empty": torch.zeros(0, 3), "number": torch.tensor(2.5)}
    save_checkpoint(Run(tmp_path), state)
    assert_same(load_checkpoint(Run(tmp_path))[0], state)


def test_safetensors_can_read_it(reference: Run) -> None:
    """Without us, without pickle."""
    tensors = load_file(reference.checkpoints / "last.safetensors")
    kept = load_file(reference.weights)
    assert {name.removeprefix("/average/module.") for name in tensors} >= set(kept)


def test_any_changed_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    run, draw = Run(tmp_path), random.Random(0)
    state = {"weight": torch.arange(30.0), "steps": {0: torch.tensor(3)}, "note": [1, "a"]}
    save_checkpoint(run, state)
    save_checkpoint(run, state)
    last = run.checkpoints / "last.safetensors"
    whole, noticed = last.read_bytes(), 0
    for _ in range(300):
        spoilt = bytearray(whole)
        spoilt[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        last.write_bytes(spoilt)
        try:
            found, problem = load_checkpoint(run)
        except EdgewiseError as error:
            assert "has format" in str(error)  # it was the format's number
            continue
        assert_same(found, state)  # from this file or the one before
        noticed += "the one before" in problem
    assert noticed > 250


def test_checkpoint_of_another_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 7)
        save_checkpoint(run, {"value": 1})
    with pytest.raises(EdgewiseError, match=r"last\.safetensors has format 7 .* reads format 1"):
        load_checkpoint(run)


def test_pickle_of_an_older_edgewise_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").write_bytes(b"PK")
    with pytest.raises(EdgewiseError, match=r"last\.pt has format 0"):
        load_checkpoint(Run(tmp_path))


@pytest.fixture
def unwritable() -> Iterator[Path]:
    """A folder that this process may not write in while the test lasts, whoever runs it."""
    folder = Path(tempfile.mkdtemp())
    (folder / "checkpoints").mkdir()
    for path in (folder, folder / "checkpoints"):
        path.chmod(0o555)
    user, nobody = os.getuid(), 65534
    if user == 0:
        os.setresuid(nobody, nobody, 0)
    yield folder
    os.setresuid(user, user, user)
    for path in (folder, folder / "checkpoints"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_read_only_folder(recipe: Recipe, unwritable: Path) -> None:
    with pytest.raises(EdgewiseError, match=r"can't write .*new\.safetensors: Permission denied"):
        save_checkpoint(Run(unwritable), {"value": 1})
    with pytest.raises(UsageError, match=f"can't write in {unwritable}: make it writable"):
        train(recipe, unwritable / "runs" / "first")
