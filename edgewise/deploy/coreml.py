"""Core ML: an .mlpackage, which any machine can write and only Apple's can run."""

from __future__ import annotations

import io
import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, Any

from edgewise.deploy.onnx import metadata_of, quiet
from edgewise.deploy.traced import traced
from edgewise.errors import EdgewiseError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgewise.deploy.formats import Job
    from edgewise.model import Model

INPUT = "image"
LABEL = "label"  # and coremltools calls the dictionary "label_probs"
PRECISIONS = {"fp32": "float32", "fp16": "float16"}


def write(job: Job) -> None:
    """Writes `model.mlpackage`, a folder, for iOS 15 and macOS 12 and later.

    It is an image classifier as Xcode and Vision know them: "image", an RGB image of the model's
    size, normalised inside; "label", the likeliest one; "label_probs", a dictionary from label to
    probability. The labels and the rule for resizing and cropping are in the package's metadata, as
    in an ONNX file. In "fp16" weights and arithmetic are float16.

    Raises:
        EdgewiseError: Core ML lacks an operator of the network (the message names it and its
            layer), two classes have the same label, or the package can't be written.
    """
    _check_labels(job.model.labels)
    package = _converted(job.model, job.precision)
    package.short_description = f"{job.model.network.spec.name}, {len(job.model.labels)} classes"
    package.user_defined_metadata.update(metadata_of(job.model))
    package.save(str(job.path))
    job.notes.append(
        f'it takes an RGB image called "{INPUT}", and gives "{LABEL}" and "{LABEL}_probs", a '
        "dictionary from label to probability"
    )


def _check_labels(labels: tuple[str, ...]) -> None:
    """Its answer is a dictionary: it could not hold both of two classes."""
    ((label, count),) = Counter(labels).most_common(1)
    if count > 1:
        raise EdgewiseError(
            f"Core ML needs a label of its own for each class, and '{label}' stands for {count}: "
            "rename all but one"
        )


def _converted(model: Model, precision: str) -> Any:
    """A `coremltools.models.MLModel`."""
    with quiet(), _listening() as said:
        import coremltools as ct

        size = model.preprocess.size
        shape = (1, 3, size, size)
        try:
            return ct.convert(
                traced(_of_image(model), shape),
                inputs=[ct.ImageType(INPUT, shape, color_layout=ct.colorlayout.RGB)],
                classifier_config=ct.ClassifierConfig(list(model.labels), LABEL),
                compute_precision=ct.precision(PRECISIONS[precision]),
                minimum_deployment_target=ct.target.iOS15,
                skip_model_load=True,
            )
        except OSError:  # a full disk
            raise
        except Exception as error:  # it has no class of its own
            found = re.search(r"converting '(.*?)' op \(located at: '(.*?)'\)", said.getvalue())
            where = f": the operator {found[1]} of the layer {found[2]}" if found else ""
            raise EdgewiseError(f"Core ML can't take it{where} ({error})") from error


@contextmanager
def _listening() -> Iterator[io.StringIO]:
    """What coremltools says on the way: progress bars, and the layer that it stumbled over."""
    said = io.StringIO()
    logger, handler = logging.getLogger("coremltools"), logging.StreamHandler(said)
    logger.addHandler(handler)
    try:
        with redirect_stderr(said):
            yield said
    finally:
        logger.removeHandler(handler)


def _of_image(model: Model) -> nn.Module:
    """The module that is shipped, of an image as Core ML gives it: (1, 3, size, size), 0 to 255."""
    from torch import nn

    from edgewise.model import Classifier

    class OfImage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = Classifier(model)

        def forward(self, image: Tensor) -> Tensor:
            probabilities: Tensor = self.classifier(image.permute(0, 2, 3, 1))
            return probabilities

    return OfImage()
