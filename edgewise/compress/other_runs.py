"""A run's model taken apart, used to int8 or with other activations, in a run of its own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from edgewise.compress.activation import with_activation
from edgewise.compress.retrain import GENTLY, check_unused, retrain
from edgewise.compress.separate import FITTED, Report, separate
from edgewise.deploy.calibration import calibration_pixels
from edgewise.files import sha256_file
from edgewise.measure.count import count
from edgewise.model import Model
from edgewise.run_folder import Run
from edgewise.weights.folder import load_model


def separate_run(
    run: Run, root: Path, rank: int | None = None, macs: float | None = None, epochs: int = 0
) -> tuple[Run, Report]:
    """Takes a run's dense convolutions apart and trains the network on; see `separate`, `retrain`.

    They are fitted on up to 256 of its training images. `root/start` is the network before it was
    trained, `root/compress.json` says what was done.

    Args:
        run: a trained run; it is not changed.
        root: of the new run.
        rank: see `separate`.
        macs: likewise.
        epochs: how many; 0 for as many as the run had.

    Raises:
        UsageError: the run has no model or no images any more, `root` is in use, or nothing can be
            taken apart as asked for. Nothing was written.
        Stopped, Diverged, EdgewiseError: see `train`.
    """
    check_unused(root)
    model = load_model(run.trained().model)
    pixels = calibration_pixels(run.root, None, model.preprocess, model.labels, FITTED)
    images = model.preprocess.normalise(torch.from_numpy(pixels))
    network, report = separate(model.network, images, rank, macs)
    smaller, size = Model(network, model.preprocess, model.labels), model.preprocess.size
    before, after = (count(m.network.spec, size) for m in (model, smaller))
    facts = {
        "model_sha256": sha256_file(run.weights),
        "separating": asdict(report),
        "params": [before.params, after.params],
        "macs": [before.macs, after.macs],
    }
    return retrain(smaller, run, root, facts, epochs), report


def round_run(run: Run, root: Path, epochs: int = 0) -> Run:
    """Trains a run's model on with its weights and inputs rounded as in int8; see `retrain`.

    It learns at a tenth of the run's rate, with batch norm as it is. What int8 then costs, `verify`
    says of the exported file.

    Args:
        run: a trained run; it is not changed.
        root: of the new run.
        epochs: how many; 0 for as many as the run had.

    Raises:
        UsageError: the run has no model or no images any more, or `root` is in use. Nothing was
            written.
        Stopped, Diverged, EdgewiseError: see `train`.
    """
    check_unused(root)
    model = load_model(run.trained().model)
    cost = count(model.network.spec, model.preprocess.size)
    facts = {
        "model_sha256": sha256_file(run.weights),
        "qat": True,
        "params": [cost.params] * 2,
        "macs": [cost.macs] * 2,
    }
    return retrain(model, run, root, facts, epochs, GENTLY, qat=True)


def activation_run(run: Run, root: Path, act: str, epochs: int = 0) -> Run:
    """Gives a run's model a cheaper activation and trains it on; see `with_activation`, `retrain`.

    It learns at a tenth of the run's rate: at the whole rate it came to half a point less.
    `root/start` is the network before it was trained, `root/compress.json` says what was done.

    Args:
        run: a trained run; it is not changed.
        root: of the new run.
        act: "hard_swish", "relu6" or "relu".
        epochs: how many; 0 for as many as the run had.

    Raises:
        UsageError: the run has no model or no images any more, `root` is in use, or the network
            has no dearer activation. Nothing was written.
        Stopped, Diverged, EdgewiseError: see `train`.
    """
    check_unused(root)
    model = load_model(run.trained().model)
    cheaper = with_activation(model, act)
    cost = count(cheaper.network.spec, model.preprocess.size)
    facts = {
        "model_sha256": sha256_file(run.weights),
        "activation": act,
        "params": [cost.params] * 2,
        "macs": [cost.macs] * 2,
    }
    return retrain(cheaper, run, root, facts, epochs, GENTLY)
