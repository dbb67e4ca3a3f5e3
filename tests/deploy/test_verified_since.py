"""What was verified counts as long as everything that the runtime loads is as it was then."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgewise.deploy.artifact import ENGINE, MAIN, Info, digest, making
from edgewise.deploy.verification import Seen, Verification, seen_before
from edgewise.deploy.verify import SPLIT, TOLERANCE, _write, verify
from edgewise.files import sha256_file
from edgewise.reporting.record import read_record
from edgewise.run_folder import Run

# By the format: what the runtime is given, and where the weights are.
FILES = {
    "openvino": ("model.xml", "model.bin"),
    "coreml": ("model.mlpackage", "model.mlpackage/Data/weights/weight.bin"),
}


@pytest.fixture(params=FILES)
def weights(request: pytest.FixtureRequest, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of an artefact of two files that is alone in `run` and was verified; no runtime reads it."""
    monkeypatch.setattr("edgewise.deploy.verify.TRUSTED", tuple(FILES))  # in this process
    file, beside = FILES[request.param]
    first = "model.mlpackage/Manifest.json" if file.endswith("package") else file
    info = replace(Info.read(run.exports / MAIN), format=request.param, file=file)
    with making(run.exports / info.name) as staging:
        info.write(staging)
        for name in (first, beside):
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(name.encode())
    verify(run, [info.name])
    return run.exports / info.name / beside


def still_counts(run: Run) -> bool:
    told = json.loads(run.verification.read_text())
    kept = seen_before(run.verification, run.root, told["model_sha256"])
    assert bool(kept) != read_record(run).verification_outdated
    return bool(kept)


def test_other_weights_beside_the_file_are_not_called_verified(weights: Path, run: Run) -> None:
    assert still_counts(run)
    content = weights.read_bytes()
    weights.write_bytes(content[::-1])
    assert not still_counts(run)
    weights.unlink()
    assert not still_counts(run)
    weights.write_bytes(content)
    assert still_counts(run)


def test_what_was_verified_before_all_files_were_told_counts(weights: Path, run: Run) -> None:
    told = json.loads(run.verification.read_text())
    (item,) = told["artifacts"]
    file = run.root / item["file"]
    item["sha256"] = sha256_file(file) if file.is_file() else ""
    run.verification.write_text(json.dumps(told))
    assert still_counts(run)
    weights.write_bytes(b"other weights")
    assert not still_counts(run)


def test_two_that_verify_at_once_keep_each_others_record(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two exports of a run do: the second begins where the first has read and not written."""

    def record(name: str) -> None:
        seen = Seen(name, f"export/{MAIN}")
        _write(Verification("", SPLIT, (), TOLERANCE, 0.0, (seen,)), run)

    second = threading.Thread(target=record, args=("second",))

    def slowly(*arguments: Any) -> tuple[Seen, ...]:
        known = seen_before(*arguments)
        if second.ident is None:
            second.start()
            second.join(0.5)
        return known

    monkeypatch.setattr("edgewise.deploy.verify.seen_before", slowly)
    record("first")
    second.join()
    told = json.loads(run.verification.read_text())
    assert [item["name"] for item in told["artifacts"]] == ["first", "second"]


def test_the_digest_is_a_files_own_or_that_of_sha256sums_lines(run: Run) -> None:
    folder = run.exports / MAIN
    model = folder / "model.onnx"
    alone = hashlib.sha256(model.read_bytes()).hexdigest()
    for name in (ENGINE, ".DS_Store"):  # built on the device; left by whoever looked
        (folder / name).write_bytes(b"theirs")
    assert digest(folder) == alone
    (folder / "Weights").mkdir()
    (folder / "Weights" / "a.bin").write_bytes(b"abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of FIPS 180
    lines = f"{abc}  Weights/a.bin\n{alone}  model.onnx\n"
    assert digest(folder) == hashlib.sha256(lines.encode()).hexdigest()
    assert digest(run.root / "eval") == ""
