"""A trained model's dense convolutions taken apart: from a run or folder to a model folder."""

from __future__ import annotations

from pathlib import Path

import torch

from edgewise.compress.separate import FITTED, Report, separate
from edgewise.deploy.calibration import calibration_pixels
from edgewise.deploy.predictor import open_model
from edgewise.errors import UsageError
from edgewise.model import Model
from edgewise.run_folder import Run
from edgewise.weights.folder import save_model


def separate_model(
    source: str | Path,
    output: Path,
    rank: int | None = None,
    macs: float | None = None,
    calibrate: Path | None = None,
) -> Report:
    """Writes the model folder of a network that `edgewise.compress.separate` took apart.

    A run's network is fitted on up to 256 of its own training images, any on those in `calibrate`.
    Without images the kernels alone are approximated, which loses far more: `Report.images` is 0.

    Args:
        source: a run, a model folder or a model's name (its ImageNet weights).
        output: a new or empty folder, or one that holds a model, which is replaced.
        rank: see `separate`.
        macs: likewise.
        calibrate: a folder or file of images.

    Raises:
        UsageError: what `source`, `output`, `rank` or `macs` names can't be used.
        EdgewiseError: a number of the network is not finite; the folder can't be written.
    """
    model = open_model(source)
    channels = model.network.spec.in_chans
    images = torch.zeros(1, channels, *[model.preprocess.size] * 2)
    fitted = calibrate is not None or Run.is_run(Path(source))
    if fitted:
        if channels != 3:
            raise UsageError(
                f"{source} takes images of {channels} channels, and those in {calibrate} become 3. "
                "Leave --calibrate out, or make one that takes 3: "
                f"edgewise.create_model('{source}', in_chans=3)"
            )
        pixels = calibration_pixels(source, calibrate, model.preprocess, model.labels, FITTED)
        images = model.preprocess.normalise(torch.from_numpy(pixels))
    network, report = separate(model.network, images, rank, macs, weights_only=not fitted)
    save_model(Model(network, model.preprocess, model.labels), output)
    return report
