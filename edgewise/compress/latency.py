"""How long a network of a spec takes here, beside another one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from edgewise.errors import EdgewiseError
from edgewise.measure.rounds import Here, interleave, ratio
from edgewise.network import Network, build
from edgewise.spec import Spec
from edgewise.timing.runtimes import RUNTIMES, Prepared, random_images

RUNTIME = "onnxruntime"
SECONDS = 0.5  # of timed calls of each of the two


def relative_latency(network: Network, size: int) -> Callable[[Spec], float]:
    """A function from a spec to its time over that of `network`: 0.7 takes 30 % less.

    One image on one thread in ONNX Runtime. The two are timed in turns, which is worth more than
    either time on a machine that drifts. Weights don't matter, and a spec is measured once.

    Args:
        network: to compare with.
        size: height and width of the image, in pixels.

    Raises:
        UsageError: ONNX Runtime is not installed.
    """
    shape = (1, network.spec.in_chans, size, size)

    def ready(other: Network) -> Prepared:
        with TemporaryDirectory() as folder:
            prepared = RUNTIMES[RUNTIME].prepare(other.eval(), shape, "fp32", 1, Path(folder))
        prepared.feed(random_images(shape)[0])
        return prepared

    whole = ready(network)

    @cache
    def relative(spec: Spec) -> float:
        if spec == network.spec:
            return 1.0
        both = {"other": Here(ready(build(spec)).call), "whole": Here(whole.call)}
        timings, failures = interleave(both, SECONDS)
        if failures:
            raise EdgewiseError(f"{spec.name} could not be timed: {failures}")
        return ratio(timings["other"].rounds_ms, timings["whole"].rounds_ms).value

    return relative
