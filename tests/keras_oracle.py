"""Networks of Keras' own with weights that tell them apart, and what they answer."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from photos import picture

from edgewise.model import Model

FORMATS = ("h5", "keras", "weights.h5")


@cache
def import_keras() -> ModuleType:
    os.environ["KERAS_BACKEND"] = "torch"
    os.environ["KERAS_HOME"] = tempfile.mkdtemp()  # it writes a settings file
    import keras

    return keras


def pixels(size: int, count: int = 4) -> np.ndarray:
    """uint8 (N, size, size, 3): pictures with some noise."""
    pictures = np.stack([np.asarray(picture(seed, size, size)) for seed in range(count)])
    noise = np.random.default_rng(0).integers(0, 128, pictures.shape, dtype=np.uint8)
    return pictures // 2 + noise


def layers_of(network: Any) -> list[Any]:
    return list(network._flatten_layers(include_self=False, recursive=True))


def answers(network: Any, images: np.ndarray, training: bool = False) -> np.ndarray:
    """What Keras says to raw pixels; its V1 and V2 have their preprocessing outside."""
    inputs = images.astype("float32")
    kinds = {type(layer).__name__ for layer in layers_of(network)}
    if not kinds & {"Rescaling", "Normalization"}:
        inputs = import_keras().applications.mobilenet_v2.preprocess_input(inputs)
    with torch.no_grad():
        return np.asarray(network(inputs, training=training))


def randomise(network: Any, images: np.ndarray) -> Any:
    """No two channels alike, and activations of the size that they have after training."""
    keras = import_keras()
    random = np.random.default_rng(0)
    norms = [x for x in layers_of(network) if isinstance(x, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.gamma.assign(random.uniform(0.5, 1.0, norm.gamma.shape))
        norm.beta.assign(random.normal(0, 0.3, norm.beta.shape))
        norm.momentum = 0.0  # the statistics become those of the next batch
    if norms:
        answers(network, images, training=True)
    for norm in norms:  # a channel that hardly varies would be blown up, rounding and all
        variance = norm.moving_variance
        variance.assign(variance + 0.1 * np.asarray(variance).mean())
    for layer in layers_of(network):
        for weight in layer.weights:
            if "layer_scale" in layer.name:
                weight.assign(random.uniform(0.1, 1, weight.shape))
            elif weight.path.endswith("/bias") or "layernorm" in layer.name:
                weight.assign(weight + random.normal(0, 0.1, weight.shape))
    return network


def make(name: str, images: np.ndarray, **arguments: Any) -> Any:
    keras = import_keras()
    keras.utils.set_random_seed(0)
    arguments = {"classes": 1000, "classifier_activation": None} | arguments
    size = images.shape[1]
    network = getattr(keras.applications, name)(
        input_shape=(size, size, images.shape[3]), weights=None, **arguments
    )
    return randomise(network, images)


def save(network: Any, folder: Path, format: str) -> Path:
    path = folder / f"weights.{format}" if format != "weights.h5" else folder / "some.weights.h5"
    (network.save_weights if format == "weights.h5" else network.save)(path)
    return path


def save_weights_as_of_old(network: Any, path: Path) -> Path:
    """`model.save_weights("x.h5")` of Keras 2, as the published files of Keras are."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    import_keras()
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)
    return path


def logits(model: Model, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return model.network(model.preprocess.normalise(torch.from_numpy(images))).numpy()


def difference(model: Model, network: Any, images: np.ndarray) -> float:
    """Largest difference over the largest value, from raw pixels on."""
    return difference_to(answers(network, images), model, images)


def difference_to(theirs: np.ndarray, model: Model, images: np.ndarray) -> float:
    """The same, to answers that are known."""
    assert theirs.std(0).max() > 1e-3 * abs(theirs).max(), "it answers all pictures alike"
    return float(abs(logits(model, images) - theirs).max() / abs(theirs).max())


def half_frozen(images: np.ndarray, classes: int = 5) -> Any:
    """What people make: a trunk, frozen in part, under a new head."""
    keras = import_keras()
    trunk = make("MobileNetV2", images, alpha=0.35, include_top=False)
    for layer in trunk.layers[:100]:
        layer.trainable = False
    inputs = keras.Input(images.shape[1:])
    x = keras.layers.GlobalAveragePooling2D()(trunk(inputs))
    outputs = keras.layers.Dense(classes)(keras.layers.Dropout(0.2)(x))
    return keras.Model(inputs, outputs, name="mobilenet_with_a_head")
