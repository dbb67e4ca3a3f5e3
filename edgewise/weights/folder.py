"""A model on disk: a folder of five plain files, and no pickle.

    model.safetensors   every tensor, in float32, under the name that the network gives it; in its
                        header `int8_ranges`, where the network learned to compute in int8
    spec.json           the network, row by row
    preprocess.json     how an image becomes an input
    labels.txt          one label a line, in the order of the logits, UTF-8
    MANIFEST.sha256     the digests of the four others, in the format of `sha256sum`

**How a save can't lose a model.** The new files are first written and synced into a sibling
folder, `.NAME.incoming`, its manifest last. Only then do they take the old ones' places, one
rename each. A full disk or a kill before that leaves the old model as it was. A kill between two
renames leaves a complete `.NAME.incoming`, and the next load or save carries out the renames that
are left. Other files in the folder are not touched.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open

from edgewise.errors import EdgewiseError, UsageError
from edgewise.files import (
    MANIFEST,
    changed_files,
    read_json,
    read_labels,
    unlisted_files,
    write_bytes,
    write_json,
    write_labels,
    write_manifest,
)
from edgewise.model import Model
from edgewise.network import Network, build
from edgewise.preprocess import Preprocess
from edgewise.run_folder import Run
from edgewise.spec import Spec
from edgewise.weights.tensors import first_difference, tensors_of

TENSORS = "model.safetensors"
SPEC = "spec.json"
PREPROCESS = "preprocess.json"
LABELS = "labels.txt"
FILES = (TENSORS, SPEC, PREPROCESS, LABELS)
INT8 = "int8_ranges"  # in the header of TENSORS: `Model.int8_ranges` as JSON


def save_model(model: Model, folder: Path) -> None:
    """Writes `model` as a model folder, in place of the model that is there, if any.

    A compiled network is saved as the one that was compiled, another precision as float32.

    Raises:
        UsageError: the labels, the tensors or the modules don't fit the network's spec, or `folder`
            holds something else; nothing was written.
        EdgewiseError: the disk is full or can't be written; the old model is still there.
    """
    check_labels(model.labels, model.network.spec.classes)
    try:
        tensors = tensors_of(model.network)
    except UsageError as error:
        raise UsageError(f"{error} Nothing was written.") from error
    incoming = incoming_of(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file. Name a new or an empty folder.")
    _finish_save(folder)  # of a save that was killed
    if folder.exists() and not (folder / SPEC).is_file() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not a model folder. Name a new or an empty folder.")
    shutil.rmtree(incoming, ignore_errors=True)
    try:
        ranges = {INT8: json.dumps(dict(model.int8_ranges))} if model.int8_ranges else None
        write_bytes(incoming / TENSORS, safetensors.torch.save(tensors, ranges))
        write_json(incoming / SPEC, model.network.spec.to_json())
        write_json(incoming / PREPROCESS, model.preprocess.to_json())
        write_labels(incoming / LABELS, model.labels)
        write_manifest(incoming, FILES)
    except BaseException:
        shutil.rmtree(incoming, ignore_errors=True)
        raise
    try:
        _finish_save(folder)
    except OSError as error:
        raise EdgewiseError(
            f"can't put the new model in {folder}: {error.strerror or error}. "
            f"It is whole in {incoming}; mend the folder and load it again."
        ) from error


def load_model(folder: str | Path) -> Model:
    """Reads a model folder; the network is in evaluation mode, on the CPU.

    Raises:
        UsageError: no such folder; or a file is missing, was changed, or doesn't fit the others.
            The message names the file and, inside of it, the row, the label or the tensor.
    """
    folder = Path(folder)
    _finish_save(folder)
    if not folder.is_dir():
        raise UsageError(f"no such model folder: {folder}. Check the path.")
    for name in FILES:
        if not (folder / name).is_file():
            final, hint = folder / "final", ""
            if Run.is_run(folder):
                hint = f" It is a run, and its model is {Run(folder).trained().model}."
            elif final.is_dir():
                hint = f" It is a search, and its model is {final}."
            raise UsageError(f"{folder} is not a whole model folder: it has no {name}.{hint}")
    # The contents come before the digests, since "row 3: kernel must be odd" helps a person who
    # edited a file by hand more than "this file was changed" does.
    try:
        spec = Spec.from_json(read_json(folder / SPEC))
    except UsageError as error:
        raise UsageError(f"{folder / SPEC}: {error}") from error
    try:
        preprocess = Preprocess.from_json(read_json(folder / PREPROCESS))
    except UsageError as error:
        raise UsageError(f"{folder / PREPROCESS}: {error}") from error
    labels = read_labels(folder / LABELS)
    try:
        check_labels(labels, spec.classes)
    except UsageError as error:
        raise UsageError(f"{folder / LABELS}: {error}") from error
    changed = changed_files(folder)
    unlisted = [name for name in unlisted_files(folder) if name in FILES]
    changed += [f"{folder / name} is not in {MANIFEST}" for name in unlisted]
    if changed:
        raise UsageError(f"{'; '.join(changed)}. Copy the whole model folder again.")

    network = build(spec)
    _load_tensors(network, folder / TENSORS)
    return Model(network.eval(), preprocess, labels, _int8_ranges(network, folder / TENSORS))


def learned_int8(folder: Path) -> bool:
    """Whether a folder's network learned to compute in int8; not if that can't be read."""
    try:
        with safe_open(folder / TENSORS, framework="pt") as file:
            return INT8 in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def check_labels(labels: Sequence[str], classes: int) -> None:
    """Checks that there is one label, of one line, for each class.

    Raises:
        UsageError: there is not.
    """
    if len(labels) != classes:
        raise UsageError(f"{len(labels)} labels for the {classes} classes of the network.")
    for index, label in enumerate(labels):
        if not label or "\n" in label or "\r" in label:
            raise UsageError(f"label {index} is {label!r}: a label is one line and not empty.")
        try:
            label.encode("utf-8")
        except UnicodeEncodeError:  # a folder name that is not UTF-8
            raise UsageError(f"label {index} is {label!r}: it has no UTF-8 form.") from None


def incoming_of(folder: Path) -> Path:
    """Where the new files of a model folder are written at first."""
    folder = folder.absolute()  # so that "." has a name
    return folder.with_name(f".{folder.name}.incoming")


def _finish_save(folder: Path) -> None:
    """Moves a completely written model into place; does nothing if there is none."""
    incoming = incoming_of(folder)
    if not (incoming / MANIFEST).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*FILES, MANIFEST):  # the manifest last: it says that `incoming` is complete
        with suppress(FileNotFoundError):  # already moved
            (incoming / name).replace(folder / name)
    shutil.rmtree(incoming, ignore_errors=True)


def _load_tensors(network: Network, path: Path) -> None:
    try:
        tensors = safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise UsageError(f"{path} is not a whole safetensors file: {error}") from error
    if difference := first_difference(tensors, network.state_dict()):
        raise UsageError(f"{path} doesn't fit {SPEC}: {difference}.")
    network.load_state_dict(tensors)


def _int8_ranges(network: Network, path: Path) -> dict[str, tuple[float, float]]:
    with safe_open(path, framework="pt") as file:
        told = (file.metadata() or {}).get(INT8, "{}")
    try:
        ranges = {name: (float(low), float(high)) for name, (low, high) in json.loads(told).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} has {INT8} that can't be read: {error}") from error
    for name in ranges.keys() - dict(network.named_modules()).keys():
        raise UsageError(f"{path} has {INT8} of a layer '{name}', which {SPEC} has not.")
    return ranges
