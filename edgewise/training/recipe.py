"""What a training run was asked to do: one flat record, written as `recipe.json`."""

from __future__ import annotations

import math
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from edgewise.errors import UsageError
from edgewise.files import read_json, write_json


def _setting(default: Any, help: str, low: float | None = None, high: float | None = None) -> Any:
    """A field with its documentation and its range, both of which the command line reuses."""
    return field(default=default, metadata={"help": help, "low": low, "high": high})


@dataclass(frozen=True)
class Recipe:
    """The settings of a run. The text beside each field is its documentation.

    A setting of None is chosen when the run starts, by `start.resolve`; the recipe in a run folder
    has none left.

    Raises:
        UsageError: a setting is of the wrong type or out of range; the message names it.
    """

    data: str = field(metadata={"help": "Folder or CSV of labelled images."})
    model: str = _setting("efficientnet_lite0", "Network to train; see `edgewise models`.")
    pretrained: bool | None = _setting(
        None, "Start from ImageNet weights. Default: if the model has them."
    )
    imgsz: int | None = _setting(
        None, "Height and width of the input in pixels. Default: the model's own, at most 224.", 16
    )
    epochs: int = _setting(10, "Passes over the training images.", 1)
    head_epochs: int = _setting(
        1,
        "Of these, how many train the new classifier alone, the pretrained rest frozen. "
        "None without pretrained weights, and at least one epoch trains everything.",
        0,
    )
    batch: int = _setting(32, "Images in a step of the optimiser.", 2)
    lr: float = _setting(1e-3, "Peak learning rate of AdamW.", 1e-8, 10.0)
    weight_decay: float = _setting(0.02, "AdamW's, on all weights but norms and biases.", 0, 1)
    warmup_epochs: float = _setting(
        0.5, "Epochs in which the learning rate rises to its peak, once everything trains.", 0
    )
    label_smoothing: float = _setting(0.1, "Part of the target spread over all classes.", 0, 0.9)
    ema_decay: float = _setting(
        0.999, "Decay per step of the moving average of the weights, which is what is kept.", 0, 1
    )
    flip: bool = _setting(True, "Mirror half of the training images.")
    crop_scale: float = _setting(
        0.7, "Random crops keep at least this part of an image's area.", 0.05, 1
    )
    randaugment: int = _setting(5, "Magnitude of RandAugment; 0 is off.", 0, 10)
    patience: int = _setting(
        0, "Stop after this many epochs without a better validation accuracy; 0 never does.", 0
    )
    seed: int = _setting(0, "The same seed gives the same run.", 0, 2**31 - 1)
    workers: int | None = _setting(
        None, "Processes that decode images; 0 is none. Default: one a core, at most 8.", 0, 256
    )
    device: str = _setting("auto", "auto, cpu, cuda, cuda:1 or mps.")

    def __post_init__(self) -> None:
        types = get_type_hints(Recipe)
        for setting in fields(self):
            _check(setting, types[setting.name], getattr(self, setting.name))

    def write(self, path: Path) -> None:
        """Writes the recipe as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """The inverse of `write`.

        Raises:
            UsageError: not such a file; a setting is missing, unknown or out of range.
        """
        value = read_json(path)
        names = [setting.name for setting in fields(cls)]
        if not isinstance(value, dict):
            raise UsageError(f"{path}: a recipe is a JSON object, not {type(value).__name__}")
        for problem, keys in (
            ("doesn't have", [name for name in names if name not in value]),
            ("has the unknown", [name for name in value if name not in names]),
        ):
            if keys:
                raise UsageError(f"{path} {problem} setting '{keys[0]}'; restore the file.")
        try:
            return cls(**value)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None


def _check(setting: Field[Any], kind: Any, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float:
        fits = is_number and math.isfinite(value)
    else:  # True is an int to isinstance, but nobody means one epoch by it
        fits = isinstance(value, kind) and ("bool" in str(kind) or not isinstance(value, bool))
    if not fits:
        raise UsageError(f"{setting.name} must be {setting.type}, not {value!r}")
    low, high = setting.metadata.get("low"), setting.metadata.get("high")
    if is_number and low is not None and value < low:
        raise UsageError(f"{setting.name} must be at least {low}, not {value}")
    if is_number and high is not None and value > high:
        raise UsageError(f"{setting.name} must be at most {high}, not {value}")
