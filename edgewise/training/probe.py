"""Labels that look wrong, by a second opinion: a linear classifier on a pretrained network.

The opinion of an image comes from a classifier that has not learned from it (five folds). Which
labels are then suspect is confident learning's rule (Northcutt et al. 2021, arXiv 1911.00068): an
image is, if another class is as probable as it is on average among the images of that class.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from edgewise.data.dataset import Sample
from edgewise.data.doctor import Opinion, Suspect
from edgewise.data.labelled import Labelled
from edgewise.data.loader import evaluation_batches, worker_lost
from edgewise.errors import EdgewiseError, UsageError, gpu_is_full
from edgewise.model import Model
from edgewise.progress import track
from edgewise.training.device import pick_device
from edgewise.weights.create import adapt
from edgewise.weights.pretrained import choose, load_pretrained

NETWORKS = (  # small ones, the first whose weights are on hand is taken
    "efficientnet_lite0",
    "mobilenet_v2",
    "mobilenet_v4_conv_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
)
SIZE = 128  # pixels: a quarter of the cost of 224, and enough to see what does not belong
PART = 5000  # images that are judged together, so that memory doesn't grow with the data
FEWEST = 10  # of a class in a part, below which it can't be learned from four fifths of them
FOLDS = 5
WIDTH = 128  # of the features that are kept: ten times as quick, and less to learn by heart
MOST_STEPS = 100
DECAY = 0.3  # of the classifier's weights, in the loss summed over images
MOST_OWN = 0.05  # probability of its own label, above which an image is no suspect
BATCH = 32


def second_opinion(
    images: Sequence[Labelled], *, everything: bool, workers: int, seed: int = 0
) -> Opinion:
    """Looks for wrong labels. The cost is one pass of a small network over the images.

    Args:
        images: usable ones, no two the same.
        everything: looks at all of them, and at most `PART`, drawn at random, if false.
        workers: processes that decode; 0 does it in this one.
        seed: of the draw, and of the folds.

    Returns:
        The suspects, the surest first; or none with the reason why nothing came of it.
    """
    try:
        name = on_hand()
        model = _features_only(load_pretrained(name))
    except EdgewiseError as error:
        return Opinion(f"labels were not checked: {error}")
    learned = _frequent(images)
    order = np.random.default_rng(seed).permutation(len(learned))
    count = max(1, -(-len(learned) // PART))
    drawn = np.array_split(order, count) if everything else [order[:PART]]
    # A class with enough images in all may have too few in a part to be learned from it.
    parts = [_frequent([learned[i] for i in sorted(part.tolist())]) for part in drawn]
    parts = [part for part in parts if len({image.label for image in part}) > 1]
    if not parts:
        return Opinion(
            f"labels were not checked: that takes two classes of {FEWEST} different images or more"
            + (f" in {PART:,}" if len(images) > PART else "")
        )
    try:
        suspects = [suspect for part in parts for suspect in _judge(model, part, workers)]
    except EdgewiseError as error:  # a file was changed meanwhile
        return Opinion(f"labels were not checked: {error}")
    except RuntimeError as error:
        why = "the GPU has too little memory" if gpu_is_full(error) else worker_lost(error)
        if why is None:
            raise
        return Opinion(f"labels were not checked: {why}")
    suspects.sort(key=lambda suspect: suspect.own)
    looked = sum(map(len, parts))
    judged, classes = ({image.label for image in some} for some in (chain(*parts), images))
    rare = len(classes) - len(judged)
    return Opinion(
        f"labels were checked by {name}, on {looked:,} of {len(images):,} different images"
        + (f"; of {len(classes):,} classes {rare:,} had too few to judge" if rare else ""),
        tuple(suspects),
        looked,
    )


def _frequent(images: Sequence[Labelled]) -> list[Labelled]:
    """Those of classes that have enough among them to be learned."""
    counts = Counter(image.label for image in images)
    return [image for image in images if counts[image.label] >= FEWEST]


def on_hand() -> str:
    """The first of `NETWORKS` whose weights can be had without a network.

    Raises:
        UsageError: there are none; the message says how to get some.
    """
    for name in NETWORKS:
        if choose(name).source.ready:
            return name
    how = choose(NETWORKS[0]).source.how
    raise UsageError(f"no pretrained weights are on hand. To have some: {how}")


def _features_only(model: Model) -> Model:
    network = adapt(model.network, replace(model.network.spec, classes=0)).eval()
    return replace(model, network=network, preprocess=replace(model.preprocess, size=SIZE, crop=1))


def _judge(model: Model, images: Sequence[Labelled], workers: int) -> list[Suspect]:
    classes = sorted({image.label for image in images})
    index = {label: i for i, label in enumerate(classes)}
    labels = np.array([index[image.label] for image in images])
    features = _features(model, [Sample(image.path, 0, "") for image in images], workers)
    probabilities = out_of_fold(features, labels, len(classes))
    return [
        Suspect(
            path=str(images[i].path),
            label=classes[labels[i]],
            probable=classes[other],
            probability=float(probabilities[i, other]),
            own=float(probabilities[i, labels[i]]),
        )
        for i, other in suspicious(probabilities, labels)
    ]


@torch.inference_mode()
def _features(model: Model, samples: Sequence[Sample], workers: int) -> NDArray[np.float32]:
    """(N, width), the pooled features before the classifier."""
    device = pick_device("auto")
    network = model.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = evaluation_batches(samples, model.preprocess, batch=BATCH, workers=workers)
    parts = [
        network(model.preprocess.normalise(pixels.to(device))).cpu()
        for pixels, _ in track(batches, "checking labels", len(batches))
    ]
    features: NDArray[np.float32] = torch.cat(parts).numpy()
    return features


def out_of_fold(
    features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, seed: int = 0
) -> NDArray[np.float32]:
    """The probabilities (N, classes) of each image by a classifier that has not seen it.

    Args:
        features: (N, width).
        labels: (N,), each below `classes`.
        classes: how many.
        seed: of the folds, each of which has its share of every class.
    """
    fold = np.empty(len(labels), np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    fold[order[np.argsort(labels[order], kind="stable")]] = np.arange(len(labels)) % FOLDS
    x, y = torch.from_numpy(principal(features)), torch.from_numpy(labels)
    result = np.zeros((len(labels), classes), np.float32)
    for number in range(FOLDS):
        held = torch.from_numpy(fold == number)
        weight, bias = fit(x[~held], y[~held], classes)
        result[held.numpy()] = torch.softmax(x[held] @ weight + bias, 1).numpy()
    return result


def principal(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, width) -> (N, at most `WIDTH`): the main directions, the first with variance 1."""
    places, sizes, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)
    scale = max(float(sizes[0]) / len(features) ** 0.5, 1e-9)  # 0 if all pictures look the same
    scaled: NDArray[np.float32] = places[:, :WIDTH] * (sizes[:WIDTH] / scale)
    return scaled


def fit(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression: weight (width, classes) and bias (classes,).

    It minimises the summed cross-entropy of x (N, width) and y (N,) plus DECAY / 2 times the
    squared weights; as scikit-learn's LogisticRegression with C = 1 / DECAY.
    """
    weight = torch.zeros(x.shape[1], classes, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=MOST_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = (
            cross_entropy(x @ weight + bias, y, reduction="sum") + DECAY / 2 * weight.square().sum()
        )
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def suspicious(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Confident learning: (index, the class that it more probably is) of each suspect.

    Args:
        probabilities: (N, classes), out of fold.
        labels: (N,), as given.
    """
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    of_class: dict[int, list[float]] = defaultdict(list)
    for label, probability in zip(labels.tolist(), own.tolist(), strict=True):
        of_class[label].append(probability)
    usual = np.full(probabilities.shape[1], np.inf)  # a class that no image has suits none
    for label, values in of_class.items():
        usual[label] = np.mean(values)
    confident = np.where(probabilities >= usual, probabilities, 0)
    best = confident.argmax(1)
    chosen = (confident.max(1) > 0) & (best != labels) & (own < MOST_OWN)
    return [(int(i), int(best[i])) for i in np.flatnonzero(chosen)]
