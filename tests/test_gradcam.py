"""Grad-CAM against captum's, against CAM by its definition, and where we put the object."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from photos import picture
from sklearn.datasets import load_digits
from small import small_model
from torch import nn

from edgewise.errors import UsageError
from edgewise.families import variant
from edgewise.gradcam import grad_cam
from edgewise.model import Model
from edgewise.network import build
from edgewise.preprocess import Preprocess
from edgewise.spec import Conv, Head, Spec

LABELS = ("a", "b", "c", "d")
CLASSES = (2, 0, 3, 1, 2)
DIGITS = load_digits(n_class=2, return_X_y=True)
HEADS = {  # what stands before the pooling: a convolution, or the last stage
    "mobilenet_v1": "stages",
    "mobilenet_v2": "conv",
    "mobilenet_v3_large": "conv",
    "mobilenet_v4_conv_small": "conv",
    "mobilenet_v4_hybrid_medium": "conv",
    "efficientnet_b0": "conv",
    "efficientnet_v2_s": "conv",
    "convnext_atto": "stages",
    "convnext_v2_atto": "stages",
    "resnet50": "stages",
    "vgg16": "stages",
}


def photos(model: Model) -> np.ndarray:
    return np.stack([model.preprocess.pixels(picture(seed)) for seed in range(len(CLASSES))])


def vgg() -> Model:
    """It pools to 7 x 7 and has layers behind that."""
    torch.manual_seed(0)
    network = build(variant("vgg16").spec(0.125, classes=len(LABELS)))
    return Model(
        network.eval(), Preprocess(128, 1.0, "bilinear", (127.0,) * 3, (64.0,) * 3), LABELS
    )


@pytest.mark.parametrize("name", HEADS)
def test_maps_are_captums(name: str) -> None:
    model = vgg() if name == "vgg16" else small_model(name, LABELS, 128)
    network = model.network
    layer = network.head.conv if HEADS[name] == "conv" else network.stages[-1]
    x = model.preprocess.normalise(torch.from_numpy(photos(model))).requires_grad_()
    captum = LayerGradCam(network, layer)
    raw = captum.attribute(x, target=torch.tensor(CLASSES), relu_attributions=True)
    theirs = raw[:, 0].detach().numpy()
    largest = theirs.max((1, 2), keepdims=True)
    assert (largest > 0).sum() >= 3 and largest.size == len(CLASSES)  # else nothing is compared
    ours = grad_cam(model, photos(model), CLASSES)
    assert ours.dtype == np.float32 and min(ours.shape[1:]) >= 2
    assert ours == pytest.approx(theirs / np.where(largest > 0, largest, 1), abs=2e-5)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenet_v1", "resnet18"])
def test_with_nothing_but_a_classifier_behind_the_pooling_it_is_cam(name: str) -> None:
    """Zhou et al. 2016: the map's channels, summed with the classifier's weights of the class."""
    model = small_model(name, LABELS, 128)
    network = model.network
    with torch.no_grad():
        x = model.preprocess.normalise(torch.from_numpy(photos(model)))
        last = network.head.conv(network.features(x)[-1]).numpy()
    weights = network.head.classifier.weight.detach().numpy()[list(CLASSES)]
    cam = np.maximum(np.einsum("nchw,nc->nhw", last, weights), 0)
    expected = cam / np.maximum(cam.max((1, 2), keepdims=True), 1e-12)
    assert grad_cam(model, photos(model), CLASSES) == pytest.approx(expected, abs=2e-5)


def test_the_model_is_as_it_was() -> None:
    model = small_model("efficientnet_lite0", LABELS, 64)
    x = model.preprocess.normalise(torch.from_numpy(photos(model)))
    before = model.network(x)
    first = grad_cam(model, photos(model), CLASSES)
    assert torch.equal(model.network(x), before)
    assert all(parameter.grad is None for parameter in model.network.parameters())
    frozen = Model(model.network.requires_grad_(False), model.preprocess, LABELS)
    with torch.no_grad():
        assert (grad_cam(frozen, photos(model), CLASSES) == first).all()


def test_where_all_speaks_against_a_class_its_map_is_empty() -> None:
    model = small_model("efficientnet_lite0", LABELS, 64)  # its last map is ReLU6's: never negative
    with torch.no_grad():
        model.network.head.classifier.weight[1] = -1.0
    assert (grad_cam(model, photos(model)[:2], (1, 1)) == 0).all()


@pytest.mark.parametrize("classes", [(0,), (0, 4), (0, -1)])
def test_classes_that_do_not_fit(classes: tuple[int, ...]) -> None:
    model = small_model("mobilenet_v3_small", LABELS, 32)
    with pytest.raises(UsageError, match=r"need as many classes|from 0 to 3"):
        grad_cam(model, photos(model)[:2], classes)


def placed(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Zeros and ones of sklearn's digits, each in a quadrant of a noisy picture of 64 pixels.

    Returns:
        The pictures (N, 64, 64, 3), which digit, and which quadrant (0 to 3, by rows).
    """
    images, digits = DIGITS
    which, quadrants = rng.integers(len(images), size=count), rng.integers(4, size=count)
    pictures = rng.integers(0, 60, (count, 64, 64))
    for ground, chosen, quadrant in zip(pictures, which, quadrants, strict=True):
        top, left = 32 * (quadrant // 2) + 4, 32 * (quadrant % 2) + 4
        big = images[chosen].reshape(8, 8).repeat(3, 0).repeat(3, 1)
        ground[top : top + 24, left : left + 24] += (12 * big).astype(int)
    return pictures.astype(np.uint8)[..., None].repeat(3, 3), digits[which], quadrants


def test_an_object_in_a_quadrant_lights_it_up() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    stem, *rest = (Conv(out=out, stride=2, act="relu") for out in (16, 24, 32))
    spec = Spec("toy", 3, 2, stem, ((), *((row,) for row in rest)), Head())
    preprocess = Preprocess(64, 1.0, "bilinear", (60.0,) * 3, (60.0,) * 3)
    model = Model(build(spec), preprocess, ("0", "1"))
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=5e-3)
    for _ in range(50):
        pictures, digits, _ = placed(16, rng)
        logits = model.network(preprocess.normalise(torch.from_numpy(pictures)))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, torch.from_numpy(digits)).backward()
        optimizer.step()
    pictures, digits, quadrants = placed(200, rng)
    with torch.no_grad():
        logits = model.network.eval()(preprocess.normalise(torch.from_numpy(pictures)))
    right = (logits.argmax(1).numpy() == digits).mean()
    maps = grad_cam(model, pictures, digits.tolist())
    n, h, w = maps.shape
    shares = maps.reshape(n, 2, h // 2, 2, w // 2).sum((2, 4)).reshape(n, 4)
    lit = (shares.argmax(1) == quadrants).mean()
    assert right > 0.95 and lit > 0.95
