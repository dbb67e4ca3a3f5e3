"""One exported file in its runtime, on the device: device_runner.py starts one of these for each.

A process of its own, since a native runtime may crash, keeps its own threads and leaves memory
behind. It needs Python 3.8, NumPy and the file's runtime, and nothing of edgewise. It speaks JSON,
one object a line:

    python3 device_worker.py runtimes   says which runtimes are installed
    python3 device_worker.py work       loads a file and answers requests until its input ends

It prefers to be idle while it is not asked: nothing of it runs in the others' turns.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # Python 3.8 can't evaluate these
    from collections.abc import Callable

    Call = Callable[[], object]
    Loader = Callable[[Any, dict[str, Any], int], Call]

WINDOW = 5  # warm-up has settled once the medians of two windows in a row agree ...
SETTLED = 0.05  # ... to within this part
LONGEST_REASON = 300  # characters of a runtime's own words
BROKEN = "can't import "  # so begins what is said of a runtime that is there and doesn't work


class Broken(Exception):
    """A runtime can't be imported, or NumPy can't: no file is to blame."""


def load_onnxruntime(runtime: Any, file: dict[str, Any], threads: int) -> Call:
    """An ONNX file in a session with the settings of `edgewise.deploy.onnx`."""
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised as well
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait for the next call would slow down whatever is timed after this one.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = runtime.InferenceSession(file["path"], options, providers=["CPUExecutionProvider"])
    feed = {
        port.name: noise(port.shape, port.type[len("tensor(") : -1], file["shape"])
        for port in session.get_inputs()
    }
    return lambda: session.run(None, feed)


def load_openvino(runtime: Any, file: dict[str, Any], threads: int) -> Call:
    """An OpenVINO or ONNX file, compiled with the settings of `edgewise.deploy.openvino`."""
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        # Said for each: left alone, it takes bfloat16 wherever the processor is faster at it.
        "INFERENCE_PRECISION_HINT": "bf16" if file["precision"] == "bf16" else "f32",
    }
    core = runtime.Core()
    model = core.read_model(file["path"])
    if len(model.inputs) == 1 and model.inputs[0].partial_shape.rank.is_static:
        sides = list(model.inputs[0].partial_shape)
        # As `edgewise.deploy.openvino` does for one image.
        model.reshape([1 if sides[0].is_dynamic else sides[0], *sides[1:]])
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    for port in compiled.inputs:
        shape = port.partial_shape
        sides = list(shape) if shape.rank.is_static else []
        values = noise(
            [None if side.is_dynamic else side.get_length() for side in sides],
            port.element_type.to_dtype().name,
            file["shape"],
        )
        request.set_tensor(port, runtime.Tensor(values))
    return lambda: request.infer()


def load_litert(runtime: Any, file: dict[str, Any], threads: int) -> Call:
    """A LiteRT file in its interpreter with the XNNPACK kernels."""
    interpreter = runtime.Interpreter(file["path"], num_threads=threads)
    interpreter.allocate_tensors()
    for port in interpreter.get_input_details():
        shape = [int(side) for side in port["shape"]]
        values = noise(shape, port["dtype"].__name__, file["shape"])
        interpreter.set_tensor(port["index"], values)
    return lambda: interpreter.invoke()


def load_ncnn(runtime: Any, file: dict[str, Any], threads: int) -> Call:
    """A .param file and the .bin file beside it, with the settings of `edgewise.deploy.ncnn`."""
    net = runtime.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    # Half precision is ncnn's default wherever the processor has it.
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, file["precision"] == "fp16")
    for option in ("use_bf16_packed", "use_bf16_storage"):
        setattr(net.opt, option, file["precision"] == "bf16")
    if net.load_param(file["path"]) or net.load_model(str(Path(file["path"]).with_suffix(".bin"))):
        raise ValueError("ncnn can't read the .param file, or the .bin file beside it")
    (entry,), (answer,) = net.input_names(), net.output_names()
    values = noise([], "float32", file["shape"][1:])  # its maps have no batch

    def call() -> None:
        extractor = net.create_extractor()
        extractor.input(entry, runtime.Mat(values))
        status, _ = extractor.extract(answer)
        if status:
            raise RuntimeError(f"ncnn stopped with the status {status}")

    return call


def load_executorch(runtime: Any, file: dict[str, Any], threads: int) -> Call:
    """A program's only method."""
    import torch
    from executorch.extension.pybindings import portable_lib

    portable_lib._unsafe_reset_threadpool(threads)  # its pool serves the whole process
    method = runtime.Runtime.get().load_program(Path(file["path"])).load_method("forward")
    inputs = []
    for i in range(method.metadata.num_inputs()):
        port = method.metadata.input_tensor_meta(i)
        kind = {0: "uint8", 1: "int8"}.get(int(port.dtype()), "float32")  # PyTorch's numbers
        inputs.append(torch.from_numpy(noise(list(port.sizes()), kind, file["shape"])))
    return lambda: method.execute(inputs)


# What loads a runtime's files; modules of it and the packages that bring them: the first that is
# there is taken.
RUNTIMES: dict[str, tuple[Loader, tuple[tuple[str, str], ...]]] = {
    "onnxruntime": (
        load_onnxruntime,
        (("onnxruntime", "onnxruntime"), ("onnxruntime", "onnxruntime-gpu")),
    ),
    "openvino": (load_openvino, (("openvino", "openvino"),)),
    "litert": (
        load_litert,
        (
            ("ai_edge_litert.interpreter", "ai-edge-litert"),
            ("tflite_runtime.interpreter", "tflite-runtime"),
            ("tensorflow.lite.python.interpreter", "tensorflow"),
        ),
    ),
    "ncnn": (load_ncnn, (("ncnn", "ncnn"),)),
    "executorch": (load_executorch, (("executorch.runtime", "executorch"),)),
}


def installed(runtime: str) -> tuple[str, str] | None:
    """The module of a runtime and its version; None if it is not there, or NumPy is not."""
    for module, package in RUNTIMES[runtime][1]:
        with suppress(metadata.PackageNotFoundError):
            if util.find_spec("numpy") and util.find_spec(module.partition(".")[0]):
                return module, metadata.version(package)
    return None


def noise(shape: list[Any], kind: str, given: list[int]) -> Any:
    """Random values of a type; a side that is free is the given shape's, or else 1.

    Args:
        shape: as the runtime says; empty if it can't tell.
        kind: a type of NumPy; "float" and "double" are ONNX's names.
        given: the shape that the job says.
    """
    import numpy

    known = given if len(given) == len(shape) else [1] * len(shape)
    sides = [
        side if isinstance(side, int) and side > 0 else known[i] for i, side in enumerate(shape)
    ]
    generator = numpy.random.default_rng(0)
    dtype = numpy.dtype({"float": "float32", "double": "float64"}.get(kind, kind))
    if dtype.kind in "iu":
        low, high = (0, 256) if dtype.kind == "u" else (-128, 128)
        return generator.integers(low, high, sides or given).astype(dtype)
    return generator.standard_normal(sides or given).astype(dtype)


def resident(peak: bool = False) -> int | None:
    """Bytes of memory that this process has now, or had at most; None if that can't be known.

    Where there is no /proc, what it has now isn't known, and the most is said for both.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:" if peak else "VmRSS:"):
                return int(line.split()[1]) * 1024
    with suppress(ImportError):  # Windows
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return None


def forget_peak() -> None:
    """Linux only: the most memory is counted from here on, without what importing took.

    Not allowed in some containers: growth is then overstated by that.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def bind(threads: int) -> None:
    """Binds all threads of this process to as many cores; Linux only.

    The last ones: interrupts are mostly served by the first, and on ARM they are often the fast
    ones. Not before the file is loaded, for a compiler may use every core.
    """
    if sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))[-threads:]
        for task in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)


def one_call_ms(call: Call) -> float:
    """Of one call."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


def settle(call: Call, seconds: float) -> list[float]:
    """Calls until the time has settled or is over: the milliseconds of each."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        times.append(one_call_ms(call))
        before, now = times[-2 * WINDOW : -WINDOW], times[-WINDOW:]
        if len(before) == WINDOW and abs(median(now) / median(before) - 1) <= SETTLED:
            break
    return times


def loaded(file: dict[str, Any], threads: int) -> tuple[Call, int | None]:
    """What runs a file once, and the memory that the process had before it loaded it."""
    load, _ = RUNTIMES[file["runtime"]]
    found = installed(file["runtime"])
    if not found:
        raise ImportError(f"{file['runtime']} is not installed")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # see __init__.py
    try:
        importlib.import_module("numpy")  # first: a runtime only says that it failed
        runtime = importlib.import_module(found[0])
    except Exception as error:  # mostly ImportError, but a library's own code runs here
        raise Broken(f"{BROKEN}{file['runtime']}: {reason(error)}") from error
    forget_peak()
    before = resident()
    call = load(runtime, file, threads)
    bind(threads)
    return call, before


def reason(error: BaseException) -> str:
    """As `edgewise.errors.shortened`, which is not on the device: this file goes there alone."""
    while error.__cause__:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    # OpenVINO first says where in its source it found out.
    last = lines[0].startswith(("Exception from ", "Check '"))
    return f"{type(error).__name__}: {lines[-1] if last else lines[0]}"


def work(answer: Callable[..., None]) -> None:
    """Loads the file of the first line, then answers the requests of the others."""
    job = json.loads(sys.stdin.readline())
    call, before = loaded(job["file"], job["threads"])
    answer(bytes=resident(peak=True))
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if request["do"] == "warm_up":
            answer(times=settle(call, request["seconds"]))
        else:
            times = [one_call_ms(call) for _ in range(request["calls"])]
            most = resident(peak=True)
            grown = None if before is None or most is None else max(0, most - before)
            answer(times=times, bytes=grown)


def main() -> None:
    """Answers on the standard output that we were given; what libraries print there is no answer.

    They get standard error instead.
    """
    with suppress(ValueError):  # or else a module beside this one could hide one of a library
        sys.path.remove(str(Path(__file__).resolve().parent))
    if sys.argv[1:] == ["runtimes"]:
        found = {name: installed(name) for name in RUNTIMES}
        print(json.dumps({name: module[1] for name, module in found.items() if module}))
        return
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as output:
        os.dup2(2, 1)

        def answer(**values: Any) -> None:
            output.write(json.dumps(values) + "\n")
            output.flush()

        try:
            work(answer)
        except Broken as broken:
            answer(failure=str(broken)[:LONGEST_REASON])
        except Exception as error:  # whatever a runtime raises is this file's result
            answer(failure=reason(error)[:LONGEST_REASON])


if __name__ == "__main__":
    main()
