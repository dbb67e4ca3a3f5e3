"""Downloads against a hub on this machine: what is fetched, kept, refused and said."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import safetensors.torch
import torch
from commandline import edgewise
from fake_hub import FakeHub
from oracles import import_timm, randomise, with_random_weights
from torch import nn

from edgewise.deploy.predictor import open_model
from edgewise.errors import EdgewiseError, UsageError
from edgewise.weights.create import create_model
from edgewise.weights.hub import HubFile, cache_folder
from edgewise.weights.importing import import_weights
from edgewise.weights.pretrained import choose, load_pretrained

pytest.importorskip("huggingface_hub")

SMALL = ("mobilenet_v2", "lamb_in1k", 0.5)
NAME = "mobilenetv2_050.lamb_in1k"


@cache
def oracle(name: str) -> nn.Module:
    return with_random_weights(lambda: import_timm().create_model(name)).eval()


def content(name: str) -> bytes:
    """As timm publishes it: the tensors sorted by type and name."""
    return safetensors.torch.save(oracle(name).state_dict())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    from huggingface_hub import constants

    fake = FakeHub()
    template = fake.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", fake.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "cache"))
    yield fake
    fake.close()


def kept(tmp_path: Path) -> list[str]:
    """What is in our cache, locks apart."""
    folder = tmp_path / "cache" / "weights"
    return sorted(path.name for path in folder.glob("*") if path.suffix != ".lock")


def test_a_cache_that_can_not_be_read_is_named(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a name that is too long: root, who may run these tests, may read what others may not."""
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / ("x" * 300)))
    assert not HubFile(f"timm/{NAME}").ready
    called = edgewise("models", "mobilenet_v2")
    assert called.status == 0 and "mobilenet_v2" in called.output
    with pytest.raises(EdgewiseError, match="EDGEWISE_CACHE"):
        load_pretrained(*SMALL)


@pytest.mark.parametrize(
    ("model", "tag", "width", "name"),
    [
        (*SMALL, NAME),
        ("mobilenet_v3_small", "in1k", 0.75, "tf_mobilenetv3_small_075.in1k"),
        ("mobilenet_v4_conv_small", None, 0.5, "mobilenetv4_conv_small_050.e3000_r224_in1k"),
        ("efficientnet_lite0", "ra_in1k", 1.0, "efficientnet_lite0.ra_in1k"),
        ("convnext_v2_atto", "fcmae_ft_in1k", 1.0, "convnextv2_atto.fcmae_ft_in1k"),
        ("resnet18", None, 1.0, "resnet18.a1_in1k"),
    ],
)
def test_downloaded_weights_give_timms_logits(
    hub: FakeHub, model: str, tag: str | None, width: float, name: str
) -> None:
    hub.put(f"timm/{name}", content(name))
    for loaded in (load_pretrained(model, tag, width), load_pretrained(model, tag, width)):
        for size in (64, 97):
            torch.manual_seed(0)
            images = torch.randn(1, 3, size, size)
            with torch.inference_mode():
                ours, theirs = loaded.network(images), oracle(name)(images)
            assert theirs.std() > 0
            assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("with_norm", [False, True])
def test_weights_that_learned_without_labels_give_timms_features_and_start_a_training(
    hub: FakeHub, with_norm: bool
) -> None:
    # The authors' file ends with the last stage; timm's keeps its own fresh norm behind that.
    name = "convnextv2_atto.fcmae"
    timms = import_timm().create_model(name, num_classes=0)
    norm = {key: value.clone() for key, value in timms.head.norm.state_dict().items()}
    randomise(timms)
    timms.eval().head.norm.load_state_dict(norm)
    tensors = timms.state_dict()
    kept = {k: v for k, v in tensors.items() if with_norm or not k.startswith("head.")}
    hub.put(f"timm/{name}", safetensors.torch.save(kept))

    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for model in (load_pretrained("convnext_v2_atto", "fcmae") for _ in range(2)):
        assert model.labels == ()
        with torch.inference_mode():
            ours, theirs = model.network(images), timms(images)
        assert ours.shape == (2, 320)
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    start = create_model(name, num_classes=7, pretrained=True)
    assert start(images).shape == (2, 7)
    assert torch.equal(start.stem.conv.weight, timms.stem[0].weight)
    with pytest.raises(UsageError, match=r"no classes.*edgewise train .* --model .*fcmae"):
        open_model(name)


def test_second_call_asks_nobody_and_a_log_stays_quiet(
    hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.put(f"timm/{NAME}", content(NAME))
    first = load_pretrained(*SMALL)
    assert hub.downloads() == 1
    assert choose(*SMALL).source.ready
    hub.requests.clear()
    second = load_pretrained(*SMALL)
    assert hub.requests == []
    assert (first.preprocess, first.labels) == (second.preprocess, second.labels)
    assert first.network.spec == second.network.spec
    for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert capsys.readouterr() == ("", "")


def test_a_download_that_breaks_off_leaves_nothing_and_the_next_one_works(
    hub: FakeHub, tmp_path: Path
) -> None:
    stored = hub.put(f"timm/{NAME}", content(NAME))
    stored.breaks = len(stored.content) // 2
    with pytest.raises(EdgewiseError, match=r"can't download the weights") as error:
        load_pretrained(*SMALL)
    assert error.value.exit_status == 1
    assert hub.downloads() >= 1
    assert kept(tmp_path) == []
    assert not list((tmp_path / "hf").rglob("*.safetensors"))
    stored.breaks = None
    load_pretrained(*SMALL)
    assert kept(tmp_path) == [NAME]


def test_another_content_than_announced_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    whole = content(NAME)
    changed = bytearray(whole)
    changed[-1] ^= 1
    stored = hub.put(f"timm/{NAME}", bytes(changed))
    right = hub.put("timm/right", whole).sha256
    stored.sha256 = right
    for _ in range(2):  # and isn't taken from a cache the next time
        with pytest.raises(EdgewiseError, match="another SHA-256 than the hub announced"):
            load_pretrained(*SMALL)
    assert hub.downloads() == 2
    assert kept(tmp_path) == []
    stored.content = whole
    load_pretrained(*SMALL)


def test_another_networks_weights_are_refused(hub: FakeHub, tmp_path: Path) -> None:
    hub.put(f"timm/{NAME}", content("resnet18.a1_in1k"))
    with pytest.raises(
        UsageError, match=r"model.safetensors is not the file of.*don't fit mobilenet_v2"
    ):
        load_pretrained(*SMALL)
    assert kept(tmp_path) == []


def test_without_the_hub_the_message_says_what_to_fetch_and_where_to_put_it(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.close()
    with pytest.raises(EdgewiseError) as error:
        load_pretrained(*SMALL)
    message, placed = str(error.value), tmp_path / "cache" / "weights" / f"{NAME}.safetensors"
    assert f"{hub.address}/timm/{NAME}/resolve/main/model.safetensors" in message
    assert str(placed) in message
    assert f"edgewise import model.safetensors --model {NAME}" in message
    assert error.value.exit_status == 1

    placed.write_bytes(content(NAME))  # as it says
    assert choose(*SMALL).source.ready
    load_pretrained(*SMALL)
    assert kept(tmp_path) == [NAME, placed.name]
    placed.unlink()
    load_pretrained(*SMALL)


def test_the_import_that_the_message_names_gives_the_checkpoints_own_input(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.close()
    wanted = choose("mobilenet_v3_large", "miil_in21k_ft_in1k").preprocess
    assert wanted != choose("mobilenet_v3_large").preprocess
    with pytest.raises(EdgewiseError, match="edgewise import") as error:
        load_pretrained("mobilenet_v3_large", "miil_in21k_ft_in1k")
    file, name = re.findall(r"edgewise import (\S+) --model (\S+)", str(error.value))[0]
    (tmp_path / file).write_bytes(content("mobilenetv3_large_100"))
    assert import_weights(tmp_path / file, name).preprocess == wanted


def test_a_half_file_placed_by_hand_is_named(hub: FakeHub, tmp_path: Path) -> None:
    placed = tmp_path / "cache" / "weights" / f"{NAME}.safetensors"
    placed.parent.mkdir(parents=True)
    placed.write_bytes(content(NAME)[:1000])
    with pytest.raises(UsageError, match=f"{placed} is not the file of these weights"):
        load_pretrained(*SMALL)
    assert placed.stat().st_size == 1000
    assert hub.requests == []


def test_what_timm_has_fetched_is_used_without_the_hub(hub: FakeHub) -> None:
    from huggingface_hub import hf_hub_download

    hub.put(f"timm/{NAME}", content(NAME))
    assert not choose(*SMALL).source.ready
    hf_hub_download(f"timm/{NAME}", "model.safetensors")
    hub.close()
    assert choose(*SMALL).source.ready  # so a search counts on it
    load_pretrained(*SMALL)


def test_what_was_fetched_is_found_by_timm_and_by_us_without_the_hub(
    hub: FakeHub, tmp_path: Path
) -> None:
    from huggingface_hub import hf_hub_download

    hub.put(f"timm/{NAME}", content(NAME))
    load_pretrained(*SMALL)
    hub.close()
    found = hf_hub_download(f"timm/{NAME}", "model.safetensors", local_files_only=True)
    assert Path(found).read_bytes() == content(NAME)
    shutil.rmtree(tmp_path / "cache")
    load_pretrained(*SMALL)


def test_a_file_that_the_hub_lacks(hub: FakeHub) -> None:
    with pytest.raises(EdgewiseError, match=r"can't download the weights.*NotFound"):
        load_pretrained(*SMALL)


@pytest.mark.parametrize("harm", ["changed", "cut", "older version", "half deleted"])
def test_a_damaged_cache_is_made_again(hub: FakeHub, tmp_path: Path, harm: str) -> None:
    hub.put(f"timm/{NAME}", content(NAME))
    whole = load_pretrained(*SMALL)
    folder = tmp_path / "cache" / "weights" / NAME
    if harm == "changed":
        data = bytearray((folder / "model.safetensors").read_bytes())
        data[-1] ^= 1
        (folder / "model.safetensors").write_bytes(data)
    elif harm == "cut":
        os.truncate(folder / "model.safetensors", 100)
    elif harm == "older version":
        (folder / "spec.json").write_text('{"written by": "an older version"}')
    else:
        (folder / "spec.json").unlink()
    again = load_pretrained(*SMALL)
    for a, b in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert hub.downloads() == 1  # huggingface_hub still has it


def test_a_cached_model_with_other_settings_than_the_table_is_made_again(
    hub: FakeHub, tmp_path: Path
) -> None:
    from edgewise.model import Model
    from edgewise.preprocess import Preprocess
    from edgewise.weights.folder import save_model

    hub.put(f"timm/{NAME}", content(NAME))
    right = load_pretrained(*SMALL)
    wrong = Preprocess(224, 0.875, "bilinear", (0.0,) * 3, (1.0,) * 3)
    save_model(Model(right.network, wrong, right.labels), tmp_path / "cache" / "weights" / NAME)
    assert load_pretrained(*SMALL).preprocess == right.preprocess


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
def test_a_kill_between_download_and_conversion_costs_nothing(hub: FakeHub, tmp_path: Path) -> None:
    """In a process of its own, which also finds the hub as people name it: HF_ENDPOINT."""
    hub.put(f"timm/{NAME}", content(NAME))
    program = (
        "import os, signal\n"
        "from edgewise.weights import convert\n"
        "from edgewise.weights.pretrained import load_pretrained\n"
        "convert.copy_by_order = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"load_pretrained{SMALL}\n"
    )
    places = {"HF_ENDPOINT": hub.address, "HF_HUB_CACHE": str(tmp_path / "hf")}
    died = subprocess.run([sys.executable, "-c", program], env={**os.environ, **places})
    assert died.returncode == -signal.SIGKILL
    assert hub.downloads() == 1
    assert kept(tmp_path) == []
    load_pretrained(*SMALL)
    assert hub.downloads() == 1


def test_two_at_once_download_once(hub: FakeHub) -> None:
    hub.put(f"timm/{NAME}", content(NAME))
    oracle(NAME)
    threads = [threading.Thread(target=load_pretrained, args=SMALL) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(line.startswith("HEAD") for line in hub.requests) <= 3  # of one download
    assert hub.downloads() == 1


def test_a_cache_that_cant_be_written(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "file"))
    with pytest.raises(EdgewiseError, match=r"can't write in.*EDGEWISE_CACHE"):
        load_pretrained(*SMALL)
    assert hub.requests == []


def test_without_huggingface_hub_the_message_says_how_to_install_it(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"'huggingface_hub'.*pip install 'edgewise\[weights\]'"):
        load_pretrained(*SMALL)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert HubFile("timm/a.b").placed == tmp_path / "weights" / "a.b.safetensors"
    monkeypatch.delenv("EDGEWISE_CACHE")
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(variable, str(tmp_path))
    assert cache_folder() == tmp_path / "edgewise"
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable)
    assert cache_folder() == Path.home() / ".cache" / "edgewise"


def test_a_read_only_cache_is_enough_to_load(hub: FakeHub, tmp_path: Path) -> None:
    hub.put(f"timm/{NAME}", content(NAME))
    load_pretrained(*SMALL)
    shutil.rmtree(tmp_path / "hf")
    weights = tmp_path / "cache" / "weights"
    for lock in weights.glob(".*.lock"):
        lock.unlink()
    hub.requests.clear()
    load_pretrained(*SMALL)
    assert hub.requests == []
    assert [p.name for p in weights.iterdir()] == [NAME]  # no lock was taken
