"""A run's model pruned, and trained again in a run of its own."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np

from edgewise.compress.groups import channel_groups
from edgewise.compress.importance import Batch
from edgewise.compress.prune import prune
from edgewise.compress.pruning import Pruning
from edgewise.compress.retrain import check_unused, retrain
from edgewise.data.dataset import read_dataset
from edgewise.data.loader import evaluation_batches
from edgewise.errors import UsageError
from edgewise.files import sha256_file
from edgewise.measure.count import count
from edgewise.model import Model
from edgewise.run_folder import Run
from edgewise.weights.folder import load_model

IMAGES = 256  # of training, for the criterion and for batch norm
BATCH = 32


def prune_run(run: Run, root: Path, how: Pruning, epochs: int = 0) -> Run:
    """Prunes a run's model and trains it again; see `prune` and `retrain`.

    `root/start` is the pruned model before it was trained, `root/compress.json` says what was done.

    Args:
        run: a trained run; it is not changed.
        root: of the new run.
        how: what is to go.
        epochs: how many; 0 for as many as the run had.

    Raises:
        UsageError: the run has no model or no images any more, `root` is in use, a group of
            channels would be emptied (the message names it), or none would lose any. Nothing was
            written.
        Stopped, Diverged, EdgewiseError: see `train`.
    """
    check_unused(root)
    model = load_model(run.trained().model)
    smaller = prune(model, how, training_batches(run, model))
    if smaller is model:
        raise UsageError(
            f"nothing would go: {100 * how.part:.4g}% is less than what widths are rounded by. "
            "Take more out, or round to a smaller multiple."
        )
    size = model.preprocess.size
    before, after = (count(m.network.spec, size) for m in (model, smaller))
    old, new = (channel_groups(m.network.spec) for m in (model, smaller))
    facts = {
        "model_sha256": sha256_file(run.weights),
        "pruning": asdict(how),
        "params": [before.params, after.params],
        "macs": [before.macs, after.macs],
        "channels": {a.name: [a.size, b.size] for a, b in zip(old, new, strict=True)},
    }
    return retrain(smaller, run, root, facts, epochs)


def training_batches(run: Run, model: Model) -> list[Batch]:
    """Up to 256 training images, the same ones each time, as (inputs, labels).

    They are preprocessed and not augmented, in batches of about the same size: 17 to 32, or all if
    they are fewer.
    """
    samples = read_dataset(run).splits["train"]
    order = np.random.default_rng(0).permutation(len(samples))[:IMAGES]
    batch = math.ceil(len(order) / math.ceil(len(order) / BATCH))
    some = [samples[i] for i in order]
    batches = evaluation_batches(some, model.preprocess, batch=batch, workers=0)
    return [(model.preprocess.normalise(pixels), labels) for pixels, labels in batches]
