"""Says what is in photos, by the model beside this file. It doesn't need edgewise.

    python3 predict.py photo.jpg ...
    python3 predict.py --check          does this device give the answers of the export?

In a program of your own:

    from predict import Classifier
    classifier = Classifier()
    classifier(Image.open("photo.jpg"))  # [("daisy", 0.98), ("rose", 0.01) ..], the likeliest first

Python 3.8, NumPy, Pillow and a runtime: onnxruntime or openvino for an .onnx file, openvino for an
.xml, ai-edge-litert or tflite-runtime for a .tflite, ncnn, executorch for a .pte, torch for a .pt2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

if TYPE_CHECKING:  # Python 3.8 can't evaluate these
    from collections.abc import Callable

    Engine = Callable[[Any], Any]  # one input -> (1, classes)

HERE = Path(__file__).resolve().parent
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
EXACT, ROUNDED = 1e-4, 0.05  # how far a probability may be off: in float32, in fewer bits


def onnxruntime(runtime: Any, path: str, precision: str) -> Engine:
    """An ONNX file."""
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(["probabilities"], {"pixels": pixels})[0]


def openvino(runtime: Any, path: str, precision: str) -> Engine:
    """An ONNX or OpenVINO file, for one image at a time."""
    core = runtime.Core()
    model = core.read_model(path)
    model.reshape([1, *list(model.inputs[0].partial_shape)[1:]])
    # Left alone, it takes bfloat16 wherever the processor is faster at it.
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    compiled = core.compile_model(model, "CPU", hints)
    return lambda pixels: compiled({"pixels": pixels})["probabilities"]


def litert(runtime: Any, path: str, precision: str) -> Engine:
    """A LiteRT file."""
    interpreter = runtime.Interpreter(path, num_threads=os.cpu_count())
    interpreter.allocate_tensors()
    entry, answer = (
        details[0]["index"]
        for details in (interpreter.get_input_details(), interpreter.get_output_details())
    )

    def call(pixels: Any) -> Any:
        interpreter.set_tensor(entry, pixels)
        interpreter.invoke()
        return interpreter.get_tensor(answer)

    return call


def ncnn(runtime: Any, path: str, precision: str) -> Engine:
    """A .param file and the .bin file beside it."""
    net = runtime.Net()
    # Half precision is ncnn's default wherever the processor has it.
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, precision == "fp16")
    for option in ("use_bf16_packed", "use_bf16_storage"):
        setattr(net.opt, option, precision == "bf16")
    if net.load_param(path) or net.load_model(str(Path(path).with_suffix(".bin"))):
        raise ValueError(f"ncnn can't read {path}, or the .bin file beside it")
    (entry,), (answer,) = net.input_names(), net.output_names()

    def call(normalised: Any) -> Any:
        image = np.ascontiguousarray(normalised[0])  # a Mat has only its address: it must live on
        extractor = net.create_extractor()
        extractor.input(entry, runtime.Mat(image))
        status, values = extractor.extract(answer)
        if status:
            raise ValueError(f"ncnn stopped with the status {status}")
        return np.array(values, np.float32).reshape(1, -1)

    return call


def executorch(runtime: Any, path: str, precision: str) -> Engine:
    """An ExecuTorch program."""
    tensors = import_module("torch")
    method = runtime.Runtime.get().load_program(Path(path)).load_method("forward")
    return lambda pixels: method.execute([tensors.from_numpy(pixels)])[0].numpy()


def torch(runtime: Any, path: str, precision: str) -> Engine:
    """A `torch.export` file."""
    module = runtime.export.load(path).module()
    return lambda pixels: module(runtime.from_numpy(pixels)).detach().numpy()


# By the format of a file: what loads it, the module for that, and the package that brings it. The
# first module that is there is taken.
RUNTIMES = {
    "onnx": (
        (onnxruntime, "onnxruntime", "onnxruntime"),
        (openvino, "openvino", "openvino"),
    ),
    "openvino": ((openvino, "openvino", "openvino"),),
    "litert": (
        (litert, "ai_edge_litert.interpreter", "ai-edge-litert"),
        (litert, "tflite_runtime.interpreter", "tflite-runtime"),
    ),
    "ncnn": ((ncnn, "ncnn", "ncnn"),),
    "executorch": ((executorch, "executorch.runtime", "executorch"),),
    "torch-export": ((torch, "torch", "torch"),),
}


class Classifier:
    """The model in this folder.

    Attributes:
        labels: a name for each column of the answer.
        size: height and width of the input, in pixels.
        exact: whether it computes in float32.
    """

    def __init__(self, runtime: str = "") -> None:
        """Loads it.

        Args:
            runtime: "onnxruntime" or "openvino" for an .onnx file; "" for the first that is there.

        Raises:
            ImportError: no runtime for it is installed.
        """
        info = json.loads((HERE / "artifact.json").read_text(encoding="utf-8"))
        # Not splitlines, which also splits at characters that a label may hold.
        self.labels = (HERE / "labels.txt").read_text(encoding="utf-8").split("\n")[:-1]
        self._rule = json.loads((HERE / "preprocess.json").read_text(encoding="utf-8"))
        self.size: int = self._rule["size"]
        self.exact: bool = info["precision"] == "fp32"
        self._normalised: bool = info["input"] == "normalised"
        self._engine = _open(info, runtime)

    def __call__(self, image: Image.Image) -> list[tuple[str, float]]:
        """Each label with its probability, the likeliest first."""
        (row,) = self.probabilities(self.pixels(image)[None])
        return [(self.labels[i], float(row[i])) for i in np.argsort(-row, kind="stable")]

    def pixels(self, image: Image.Image) -> Any:
        """Any image -> uint8 RGB (size, size, 3): the centre, of the shorter side resized."""
        shorter = int(self.size / self._rule["crop"])
        rgb = _upright_rgb(image)
        width, height = (shorter * side // min(rgb.size) for side in rgb.size)
        resized = rgb.resize((width, height), RESAMPLING[self._rule["interpolation"]])
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return np.array(resized.crop((left, top, left + self.size, top + self.size)))

    def probabilities(self, pixels: Any) -> Any:
        """uint8 RGB (N, size, size, 3) -> float32 (N, classes)."""
        inputs = np.ascontiguousarray(pixels)
        if self._normalised:
            mean, std = (np.array(self._rule[name], np.float32) for name in ("mean", "std"))
            inputs = ((inputs.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2)
        return np.concatenate([self._engine(inputs[n : n + 1]) for n in range(len(inputs))])


def _open(info: dict[str, Any], runtime: str) -> Engine:
    able = [row for row in RUNTIMES[info["format"]] if runtime in ("", row[0].__name__)]
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # nobody is told
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # What an int8 file leaves in float is computed in bfloat16 where that can be.
    precision = "bf16" if info.get("float_layers") else info["precision"]
    for load, module, _ in able:
        try:
            found = import_module(module)
        except ImportError:
            continue
        return load(found, str(HERE / info["file"]), precision)
    if not able:
        names = " or ".join(dict.fromkeys(row[0].__name__ for row in RUNTIMES[info["format"]]))
        raise ImportError(f"{info['file']} is run by {names}, not by {runtime}")
    packages = " or ".join(package for _, _, package in able)
    raise ImportError(f"{info['file']} needs {packages}: pip install {able[0][2]}")


def _upright_rgb(image: Image.Image) -> Image.Image:
    """8 bits, three channels, transparency on white."""
    image.load()
    with suppress(Exception):  # a broken EXIF block must not lose the photo
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip
        grey = (np.asarray(image).astype(np.int64) + 128) // 257
        image = Image.fromarray(grey.astype(np.uint8))
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def check(classifier: Classifier) -> bool:
    """Whether the answers to the golden inputs are those of the export; prints how far off.

    A file of fewer bits is held to its own answers, which other kernels round a little otherwise.
    """
    with np.load(HERE / "golden.npz") as golden:
        rounded = not classifier.exact and "answers" in golden
        expected = golden["answers" if rounded else "probabilities"]
        answers = classifier.probabilities(golden["pixels"])
    most = EXACT if classifier.exact else ROUNDED
    off = float(np.nan_to_num(np.abs(answers - expected), nan=1.0).max())
    passed = off <= most
    print(
        f"{'PASS' if passed else 'FAIL'}: of {len(answers)} golden inputs a probability is off by "
        f"{off:.1e} at most; {most:.0e} is allowed"
    )
    return passed


def main() -> None:
    """Prints a line for each photo; exit status 1 if one can't be read, or the check fails."""
    if hasattr(sys.stdout, "reconfigure"):  # a label may have letters that a device's output lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(description="Says what is in photos.")
    parser.add_argument("photos", nargs="*", metavar="PHOTO")
    parser.add_argument("--top", type=int, default=3, help="classes to print of each (3)")
    parser.add_argument("--runtime", default="", help="onnxruntime or openvino, for an .onnx file")
    parser.add_argument("--check", action="store_true", help="hold it to the golden inputs")
    asked = parser.parse_args()
    if not asked.photos and not asked.check:
        parser.error("name a photo, or --check")
    try:
        classifier = Classifier(asked.runtime)
    except (ImportError, OSError) as error:
        sys.exit(f"error: {error}")
    passed = check(classifier) if asked.check else True
    for photo in asked.photos:
        try:
            answers = classifier(Image.open(photo))[: asked.top]
        except Exception as error:  # damaged bytes can make a decoder raise almost anything
            print(f"{photo} can't be read: {error}", file=sys.stderr)
            passed = False
        else:
            print(photo, *(f"{label} {share:.1%}" for label, share in answers), sep="  ")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
