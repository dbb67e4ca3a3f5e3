"""What a training run was asked to do: one flat record, written as `recipe.json`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import Field

from edgewise.data.policies import MAX_MAGNITUDE, POLICIES
from edgewise.files import read_json, write_json
from edgewise.validation import from_plain, one_of, record

CACHES = ("none", "ram", "disk")
OPTIMIZERS = ("adamw", "sgd", "rmsprop", "rmsprop-tf")
PRECISIONS = ("fp32", "bf16", "fp16")
SCHEDULES = ("cosine", "exponential", "step", "constant")
SELECTIONS = ("accuracy", "macro-f1")


@record()
class Recipe:
    """The settings of a run. The text beside each field is its documentation, and its help.

    A setting of None, and `epochs`, `batch` and `lr` of 0, are chosen when the run starts, for this
    machine by `start.resolve` and for the data by `defaults.fit`; the recipe in a run folder has
    none left.

    Raises:
        UsageError: a setting is of the wrong type or out of range; the message names it.
    """

    data: str = Field(description="Folder or file of labelled images.")
    model: str = Field(
        "efficientnet_lite0",
        description="Network to train, see `edgewise models`; or a run or model folder to go on "
        "from, whose classifier keeps the classes of the same names.",
    )
    pretrained: bool | None = Field(
        None, description="Start from ImageNet weights. Default: if the model has them."
    )
    imgsz: int | None = Field(
        None,
        ge=16,
        description="Height and width of the input in pixels. Default: the model's own, at most "
        "224.",
    )
    train_imgsz: int | None = Field(
        None,
        ge=16,
        description="The same for training: a random crop shows things larger than the picture "
        "that is classified later does. Default: with pretrained weights 0.8 to 0.9 of imgsz.",
    )
    epochs: int = Field(
        0,
        ge=0,
        description="Passes over the training images. Default: 10, or as many as are 400 steps.",
    )
    head_epochs: int = Field(
        1,
        ge=0,
        description="Of these, how many train the new classifier alone, the pretrained rest "
        "frozen. None without pretrained weights, and at least one epoch trains everything.",
    )
    minutes: float | None = Field(
        None,
        gt=0,
        description="Plan as many epochs as end in this time on this machine; see --time.",
    )
    batch: int = Field(
        0, ge=0, description="Images in a step of the optimiser. Default: 32, 8 or 16 for few."
    )
    find_batch: bool = Field(
        False, description="Find the smallest batch with which training is about as fast as it can."
    )
    accumulate: int = Field(
        1, ge=1, description="Parts that a batch is computed in, one after the other: less memory."
    )
    precision: Annotated[str, one_of(*PRECISIONS)] = Field(
        "fp32", description="Of the sums: fp32, bf16 or fp16 (on a GPU); weights stay in fp32."
    )
    qat: bool = Field(
        False,
        description="Learn with weights and inputs rounded as in int8 (quantization-aware "
        "training), after the same network was trained without.",
    )
    compile: bool = Field(False, description="Compile the network with torch.compile.")
    optimizer: Annotated[str, one_of(*OPTIMIZERS)] = Field(
        "adamw", description=f"One of {', '.join(OPTIMIZERS)} (TensorFlow's, epsilon in the root)."
    )
    lr: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Peak learning rate. Default: 5e-4 with pretrained weights, else 1e-3.",
    )
    find_lr: bool = Field(
        False,
        description="Find the peak learning rate: a tenth of the one at which the loss is lowest "
        "while the rate rises.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Of SGD and RMSProp; AdamW's first beta.")
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Each block learns at this part of the rate of the block behind it. Default: "
        "0.9 for a pretrained ConvNeXt, else 1.",
    )
    weight_decay: float = Field(0.02, ge=0, le=1, description="On all but norms and biases.")
    clip: float = Field(
        0.0, ge=0, description="Largest norm of the gradient of all weights; 0 never clips."
    )
    schedule: Annotated[str, one_of(*SCHEDULES)] = Field(
        "cosine", description=f"How the learning rate falls: {', '.join(SCHEDULES)}."
    )
    decay_rate: float = Field(
        0.97, gt=0, le=1, description="Factor of the exponential and the step schedule ..."
    )
    decay_epochs: float = Field(2.4, gt=0, description="... in so many epochs.")
    warmup_epochs: float = Field(
        0.5,
        ge=0,
        description="Epochs in which the learning rate rises to its peak, once everything trains.",
    )
    freeze_norm: bool | None = Field(
        None,
        description="Keep the pretrained statistics of batch norm. Default: where fewer than 16 "
        "images go through at once.",
    )
    mixup: float = Field(0.0, ge=0, le=10, description="Alpha of mixup; 0 is off.")
    cutmix: float = Field(0.0, ge=0, le=10, description="Alpha of CutMix; 0 is off.")
    dropout: float | None = Field(
        None, ge=0, lt=1, description="Before the classifier. Default: the network's own."
    )
    drop_path: float | None = Field(
        None, ge=0, lt=1, description="Rate of stochastic depth. Default: the network's own."
    )
    teacher: str | None = Field(
        None,
        description="Learn also from the answers of this model to the same crops and mixtures: a "
        "run or model folder, timm:NAME, or timm:NAME:FILE for a checkpoint of timm's.",
    )
    teacher_weight: float = Field(
        0.9, ge=0, le=1, description="Part of the loss that is the teacher's; the rest is labels'."
    )
    teacher_temperature: float = Field(
        2.0, ge=0.5, le=20, description="Divides both networks' logits in the teacher's part."
    )
    label_smoothing: float = Field(
        0.1, ge=0, le=0.9, description="Part of the target spread over all classes."
    )
    ema_decay: float = Field(
        0.999,
        ge=0,
        le=1,
        description="Decay per step of the moving average of the weights, which is what is kept.",
    )
    flip: bool = Field(True, description="Mirror half of the training images.")
    crop_scale: float = Field(
        0.7, ge=0.05, le=1, description="Random crops keep at least this part of an image's area."
    )
    balance: bool | None = Field(
        None,
        description="Learn as if all classes were as frequent (logit adjustment). Default: if one "
        "has over 5 times the images of another.",
    )
    select: Annotated[str, one_of(*SELECTIONS)] | None = Field(
        None,
        description="What epochs are judged by on the validation images: accuracy or macro-f1. The "
        "last is kept that is not worse than the highest by more than chance. Default: macro-f1 "
        "with balance, else accuracy.",
    )
    policy: Annotated[str, one_of(*POLICIES, "none")] = Field(
        "randaugment", description=f"Operations on training images: {', '.join(POLICIES)}, none."
    )
    magnitude: int | None = Field(
        None,
        ge=0,
        le=MAX_MAGNITUDE,
        description="Of RandAugment; 0 is off, 10 the usual end. Default: 5, and 2 for fewer than "
        "1,000 training images.",
    )
    jitter: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Brightness, contrast and saturation of training images change by up to this "
        "part. Default: 0.4 with pretrained weights, else 0.",
    )
    erase: float = Field(
        0.0, ge=0, le=1, description="Probability that a box of noise covers a part of an image."
    )
    stages: int = Field(
        1,
        ge=1,
        description="Progressive learning (EfficientNetV2): image size, magnitude, mixup, CutMix "
        "and dropout grow in so many stages, from the first_... settings to their own.",
    )
    first_imgsz: int | None = Field(None, ge=16, description="Image size of the first stage.")
    first_magnitude: int = Field(
        0, ge=0, le=MAX_MAGNITUDE, description="RandAugment's magnitude in the first stage."
    )
    first_mixup: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Alpha in the first stage, of mixup and CutMix where they are on.",
    )
    first_dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout of the first stage, if dropout is set."
    )
    calibrate: bool = Field(
        True,
        description="Divide the kept model's logits by the temperature with which its "
        "probabilities fit the validation images best; the answers stay the same.",
    )
    cache: Annotated[str, one_of(*CACHES)] = Field(
        "none",
        description="Decode each training image once, a little larger than it is trained on, and "
        f"keep it: {', '.join(CACHES)}.",
    )
    patience: int = Field(
        0,
        ge=0,
        description="Stop after this many epochs without a higher score (see select), or an equal "
        "one at a lower validation loss; 0 never does.",
    )
    tensorboard: bool = Field(
        False, description="Also log the epochs' metrics for TensorBoard, in RUN/tensorboard."
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="The same seed gives the same run.")
    deterministic: bool = Field(
        False,
        description="On a GPU, use only operators that always give the same sums; what that costs "
        "is measured, and said. On a CPU they all do.",
    )
    retries: int = Field(
        0,
        ge=0,
        le=20,
        description="When training diverges, go back to the kept epoch or else to the start and "
        "halve the learning rate, so many times at most.",
    )
    sync_batch_norm: bool = Field(
        False, description="Batch norm over the images of all processes (on GPUs only)."
    )
    workers: int | None = Field(
        None,
        ge=0,
        le=256,
        description="Processes that decode images; 0 is none. Default: one a core, at most 8.",
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")

    @property
    def folder(self) -> Path | None:
        """The model folder that training starts from; None where `model` is a network's name."""
        path = Path(self.model)
        # In this order: a whole path may lead through a folder where this user may not even look.
        return path if path.is_absolute() or path.is_dir() else None

    def write(self, path: Path) -> None:
        """Writes the recipe as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """The inverse of `write`.

        Raises:
            UsageError: not such a file; a setting is unknown or out of range.
        """
        return from_plain(cls, read_json(path), str(path))
