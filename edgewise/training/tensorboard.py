"""The epochs as TensorBoard shows them: the columns of `metrics.csv`, a scalar each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from edgewise.errors import EdgewiseError, missing_package
from edgewise.run_folder import Run
from edgewise.training.history import EpochMetrics
from edgewise.training.world import resume_command

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

NO_SCALARS = ("epoch", "phase")


def epoch_log(run: Run, wanted: bool) -> Callable[[EpochMetrics], None]:
    """What to call at each epoch's end; it does nothing if TensorBoard isn't `wanted`.

    Each process that trains writes one event file, from its first finished epoch on. It says which
    epoch it begins with, so TensorBoard forgets an epoch that was under way when an earlier
    process was killed, and shows each once.

    The function raises an EdgewiseError if the events can't be written.
    """
    if not wanted:
        return lambda metrics: None
    writer: SummaryWriter | None = None

    def log(metrics: EpochMetrics) -> None:
        nonlocal writer
        from torch.utils.tensorboard import SummaryWriter

        try:
            if writer is None:
                writer = SummaryWriter(run.tensorboard, purge_step=metrics.epoch)
            for name, value in asdict(metrics).items():
                if name not in NO_SCALARS:
                    writer.add_scalar(name, value, metrics.epoch)
            writer.flush()
        except OSError as error:
            raise EdgewiseError(
                f"can't write {run.tensorboard}: {error.strerror or error}. Free some space, then "
                f"go on with: {resume_command(run.root)}"
            ) from error

    return log


def require() -> None:
    """Looks for the package.

    Raises:
        UsageError: it isn't installed; the message says how to.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise missing_package("tensorboard", "tensorboard") from error
