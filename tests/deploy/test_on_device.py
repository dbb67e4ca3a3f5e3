"""An exported folder answers for photos by itself, as edgewise does with it."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewise.data.decode import decode
from edgewise.deploy import on_device
from edgewise.deploy.artifact import GOLDEN, PREDICT, Artifact, digest
from edgewise.deploy.export import export
from edgewise.deploy.formats import FORMATS
from edgewise.deploy.predictor import open_predictor
from edgewise.deploy.verify import OWN_TOLERANCE, TOLERANCE, verify_alone
from edgewise.run_folder import Run

# Runs a script as where nothing is installed but NumPy, Pillow and the file's runtime.
ALONE = """
import runpy, sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
EDGEWISE = "edgewise,torch,onnx,pydantic,click"


def alone(
    folder: Path, *arguments: object, without: str = EDGEWISE
) -> subprocess.CompletedProcess[str]:
    """`python3 predict.py ARGUMENTS`, elsewhere."""
    command = [sys.executable, "-c", ALONE, without, folder / PREDICT, *arguments]
    return subprocess.run(
        [str(word) for word in command],
        cwd=folder.anchor,
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )


def said(photo: Path, folder: Path, runtime: str = "") -> str:
    """The line that edgewise's own answer makes."""
    predictor = open_predictor(folder, runtime)
    (row,) = predictor.probabilities(predictor.preprocess.pixels(decode(photo))[None])
    best = np.argsort(-row, kind="stable")
    return "  ".join([str(photo), *(f"{predictor.labels[i]} {row[i]:.1%}" for i in best[:3])])


def photo_of(path: Path, mode: str, channels: int, **options: object) -> Path:
    """Noise, larger than the input and not square."""
    content = np.random.default_rng(0).integers(0, 256, (90, 131, channels), dtype=np.uint8)
    Image.frombytes(mode, (131, 90), content.tobytes()).save(path, **options)
    return path


def sixteen_bits(path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 65536, (90, 131), dtype=np.uint16)
    Image.fromarray(values).save(path)
    return path


def turned(path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    return photo_of(path, "RGB", 3, exif=exif)


def test_every_kind_of_photo_is_read_as_in_training(exported: Run, tmp_path: Path) -> None:
    folder = shutil.copytree(exported.exports / "onnx-fp32", tmp_path / "copy")
    photos = [
        photo_of(tmp_path / "rgb.jpg", "RGB", 3),
        turned(tmp_path / "turned.jpg"),
        photo_of(tmp_path / "cmyk.jpg", "CMYK", 4),
        photo_of(tmp_path / "rgba.png", "RGBA", 4),
        photo_of(tmp_path / "la.png", "LA", 2),
        photo_of(tmp_path / "grey.png", "L", 1),
        sixteen_bits(tmp_path / "sixteen.png"),
    ]
    done = alone(folder, *photos)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [said(photo, folder) for photo in photos]


def test_a_label_that_the_output_lacks_letters_for(
    exported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a serial console, or of a Windows that writes to a file."""
    folder = exported.exports / "onnx-fp32"
    photo = photo_of(tmp_path / "rgb.png", "RGB", 3)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = alone(folder, photo)
    assert done.returncode == 0, done.stderr
    expected = said(photo, folder).encode("ascii", "backslashreplace").decode()
    assert done.stdout == expected + "\n"
    assert "caf\\xe9" in done.stdout and "\\u72ac" in done.stdout


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_either_runtime_of_an_onnx_file(exported: Run, tmp_path: Path, runtime: str) -> None:
    folder = exported.exports / "onnx-fp32"
    photo = photo_of(tmp_path / "rgb.png", "RGB", 3)
    other = {"onnxruntime": "openvino", "openvino": "onnxruntime"}[runtime]
    done = alone(folder, "--runtime", runtime, photo, without=f"{EDGEWISE},{other}")
    assert done.stdout == said(photo, folder, runtime) + "\n", done.stderr
    assert alone(folder, photo, without=f"{EDGEWISE},{other}").stdout == done.stdout


@pytest.mark.parametrize(
    ("format", "precision"),
    [
        ("openvino", "fp32"),
        ("openvino", "bf16"),
        ("torch-export", "fp32"),
        ("onnx", "int8"),
        *(
            pytest.param(name, precision, marks=pytest.mark.slow)
            for name in ("litert", "executorch", "ncnn")
            for precision in ("fp32", "int8")
            if precision in FORMATS[name].precisions
        ),
    ],
)
def test_every_format_passes_its_own_check(
    run: Run, tmp_path: Path, format: str, precision: str
) -> None:
    if FORMATS[format].missing() or not FORMATS[format].runs_here():
        pytest.skip(f"{format} is not installed")
    folder = export(run.root, format, precision, output=tmp_path).folder
    photo = photo_of(tmp_path / "rgb.png", "RGB", 3)
    without = "edgewise" if format in ("torch-export", "executorch") else EDGEWISE
    done = alone(folder, "--check", photo, without=without)
    assert done.returncode == 0, done.stderr
    check, line = done.stdout.splitlines()[-2:]  # runtimes may say something before
    assert check.startswith("PASS: of 16 golden inputs"), done.stdout
    assert line == said(photo, folder)


def test_every_format_that_python_can_run_has_it() -> None:
    assert set(on_device.RUNTIMES) == {name for name, known in FORMATS.items() if known.readers}
    for name, rows in on_device.RUNTIMES.items():
        loads = list(dict.fromkeys(load.__name__ for load, _, _ in rows))
        assert loads == [reader.name for reader in FORMATS[name].readers]


def test_a_device_that_answers_otherwise_fails_the_check(run: Run) -> None:
    folder = run.exports / "onnx-fp32"
    with np.load(folder / GOLDEN) as golden:
        arrays = dict(golden)
    arrays["probabilities"] = np.roll(arrays["probabilities"], 1, axis=1)
    np.savez(folder / GOLDEN, **arrays)
    done = alone(folder, "--check")
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL: of 16 golden inputs a probability is off by")


def test_what_is_missing_is_named(exported: Run, tmp_path: Path) -> None:
    folder = exported.exports / "onnx-fp32"
    good = photo_of(tmp_path / "rgb.png", "RGB", 3)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no photo")
    done = alone(folder, bad, good, tmp_path / "none.jpg")
    assert done.returncode == 1
    assert done.stdout == said(good, folder) + "\n"
    first, second = done.stderr.splitlines()
    assert first.startswith(f"{bad} can't be read: ")
    assert second.startswith(f"{tmp_path / 'none.jpg'} can't be read: ")
    bare = alone(folder, good, without=f"{EDGEWISE},onnxruntime,openvino")
    assert bare.returncode == 1
    assert bare.stderr == (
        "error: model.onnx needs onnxruntime or openvino: pip install onnxruntime\n"
    )
    wrong = alone(folder, "--runtime", "ncnn", good)
    assert wrong.stderr == "error: model.onnx is run by onnxruntime or openvino, not by ncnn\n"
    assert "name a photo, or --check" in alone(folder).stderr


def test_a_program_that_imports_it_leaves_it_whole(run: Run) -> None:
    """Python writes what it compiled into the folder."""
    folder = run.exports / "onnx-fp32"
    before = Artifact.read(folder).bytes, digest(folder)
    command = [sys.executable, "-c", "from predict import Classifier; Classifier()"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run(command, cwd=folder, env=own, check=True)
    assert any(folder.glob("__pycache__/predict.*"))
    assert (Artifact.read(folder).bytes, digest(folder)) == before
    assert verify_alone(folder).failures == ()


def test_it_allows_what_verify_allows() -> None:
    assert (on_device.EXACT, on_device.ROUNDED) == (TOLERANCE, OWN_TOLERANCE)


def test_it_is_the_script_and_python_3_8_can_read_it(exported: Run) -> None:
    text = Path(on_device.__file__).read_text(encoding="utf-8")
    assert (exported.exports / "onnx-fp32" / PREDICT).read_text(encoding="utf-8") == text
    ast.parse(text, feature_version=(3, 8))
