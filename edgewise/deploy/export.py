"""From a trained model to a file for another runtime, with what it takes to check that file."""

from __future__ import annotations

from pathlib import Path

from edgewise.deploy.formats import Format, format_named
from edgewise.deploy.golden import FILE, write_golden
from edgewise.deploy.predictor import open_model
from edgewise.errors import UsageError
from edgewise.files import write_manifest
from edgewise.run_folder import Run


def export(source: str | Path, format: str = "onnx", output: Path | None = None) -> Path:
    """Exports a run, a model folder or a model name (its ImageNet weights) and gives the file.

    A run's file goes into the run, with golden inputs and a manifest for `verify`; any other's to
    `output`, or to NAME.SUFFIX in the current folder.

    Raises:
        UsageError: an unknown format or source; an `output` for a run, or of another suffix.
        EdgewiseError: a file can't be written.
    """
    chosen = format_named(format)
    if Run.is_run(Path(source)):
        if output is not None:
            raise UsageError(
                f"an output path is not for a run: {source} keeps its exports in its own folder. "
                f"Leave it out, or export the model folder {Run(Path(source)).model}."
            )
        return export_run(Run(Path(source)), chosen)
    path = output or Path(f"{Path(source).resolve().name}{chosen.suffix}")
    if path.suffix.lower() != chosen.suffix or path.is_dir():
        raise UsageError(f"the output must be a file name that ends in {chosen.suffix}, not {path}")
    chosen.export(open_model(source), path)
    return path


def artifact(run: Run, format: Format) -> Path:
    """Where a run's export of one format is."""
    return run.exports / f"model{format.suffix}"


def export_run(run: Run, format: Format) -> Path:
    """Exports a run's model into the run: the file, 16 golden inputs and a manifest over both.

    Raises:
        UsageError: the run has no model yet.
        EdgewiseError: a file can't be written.
    """
    from edgewise.deploy.pytorch import TorchPredictor

    model = open_model(run.root)
    path = artifact(run, format)
    format.export(model, path)
    write_golden(TorchPredictor(model), _validation_images(run), run.exports / FILE)
    write_manifest(run.exports, [path.name, FILE])
    return path


def _validation_images(run: Run) -> list[Path]:
    """The run's validation images; none where its data is not: an export doesn't need them."""
    from edgewise.data.dataset import read_dataset

    try:
        return [sample.path for sample in read_dataset(run).splits["val"]]
    except UsageError:
        return []
