"""A full disk, a kill, a link, two exports at once: nothing half, and the others go on."""

from __future__ import annotations

import errno
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commandline import edgewise
from small import small_model

from edgewise.deploy.artifact import GOLDEN, INFO, MAIN, making
from edgewise.deploy.export import export
from edgewise.deploy.verify import verify
from edgewise.errors import CantWrite, UsageError
from edgewise.files import MANIFEST
from edgewise.run_folder import Run
from edgewise.weights.folder import load_model, save_model

pytest.importorskip("openvino")


def no_space(*args: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["write_golden", "write_manifest"])
def test_a_full_disk_leaves_no_half(where: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in run.exports.rglob("*") if path.is_file()}
    module = "export" if where == "write_golden" else "artifact"
    monkeypatch.setattr(f"edgewise.deploy.{module}.{where}", no_space)
    said = edgewise("export", run.root)
    assert said.status == 1 and "No space left on device" in said.errors
    with pytest.raises(CantWrite):
        export(run.root)
    assert {path: path.read_bytes() for path in run.exports.rglob("*") if path.is_file()} == before
    assert [path.name for path in run.exports.iterdir()] == [MAIN]


def test_a_full_temporary_folder_is_named_and_stops_no_other_file(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("numpy.savez", lambda *_, **__: no_space())
    said = edgewise("export", run.root, "--precision", "int8,fp32")
    assert said.status == 1 and "passed" in said.output
    words = f"onnx-int8: can't write the images for int8 in the temporary folder {tmp_path} "
    assert f"failed: {words}" in said.errors
    assert "No space left on device" in said.errors and "TMPDIR" in said.errors
    with pytest.raises(CantWrite):  # which is no fault of the network: a search tries it again
        export(run.root, precision="int8")


def test_openvinos_own_words_for_a_full_disk_stop_no_other_format(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr("openvino.save_model", full)
    said = edgewise("export", run.root, "--format", "openvino,onnx")
    assert said.status == 1 and "passed" in said.output
    assert "can't write" in said.errors and "Free some space" in said.errors, said.errors
    assert [path.name for path in run.exports.iterdir()] == [MAIN]


def test_a_broken_install_stops_no_other_format(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    said = edgewise("export", run.root, "--format", "openvino,onnx")
    assert said.status == 1 and "passed" in said.output
    assert "failed: openvino-fp32: one of openvino, onnx, onnxscript, onnxruntime is" in said.errors
    assert "can't be loaded (ModuleNotFoundError: import of openvino" in said.errors


def test_what_a_kill_left_is_taken_away(run: Run) -> None:
    for end in ("partial", "old"):
        left = run.exports / f".{MAIN}.{end}"
        left.mkdir()
        (left / "model.onnx").write_bytes(b"half")
    assert [seen.name for seen in verify(run).artifacts] == [MAIN]
    export(run.root)
    assert [path.name for path in run.exports.iterdir()] == [MAIN]


def test_a_link_stays_one_and_what_it_leads_to_is_made_anew(tmp_path: Path) -> None:
    disk, link = tmp_path / "disk" / MAIN, tmp_path / "export" / MAIN
    link.parent.mkdir()
    link.symlink_to(disk)
    for content in (b"first", b"second"):
        with making(link) as staging:
            (staging / INFO).write_bytes(content)
        assert link.is_symlink() and (disk / INFO).read_bytes() == content
    for folder in (link.parent, disk.parent):
        assert [path.name for path in folder.iterdir()] == [MAIN]
    # As one was left when a link was taken for the old folder.
    (disk.parent / f".{MAIN}.old").symlink_to(tmp_path / "export")
    with making(disk) as staging:
        (staging / INFO).write_bytes(b"third")
    assert [path.name for path in disk.parent.iterdir()] == [MAIN]
    assert (link / INFO).read_bytes() == b"third"


def test_somebody_elses_folder_is_not_touched(run: Run, tmp_path: Path) -> None:
    (tmp_path / MAIN).mkdir()
    (tmp_path / MAIN / "letter.txt").write_text("dear")
    said = edgewise("export", run.model, "--output", tmp_path)
    assert said.status == 2 and "onnx-fp32 holds something else" in said.errors
    assert (tmp_path / MAIN / "letter.txt").read_text() == "dear"
    said = edgewise("export", run.model, "--output", tmp_path / "new")
    assert said.status == 0 and str(tmp_path / "new" / MAIN) in said.output


def test_what_lost_a_file_is_made_anew(tmp_path: Path) -> None:
    for lost in (INFO, GOLDEN, MANIFEST):
        for content in (b"old", b"new"):
            with making(tmp_path / lost) as folder:
                for name in (INFO, GOLDEN):
                    (folder / name).write_bytes(content)
            if content == b"old":
                (tmp_path / lost / lost).unlink()
        assert (tmp_path / lost / INFO).read_bytes() == b"new"
    model = small_model("mobilenet_v2", ("a", "b"), size=33)
    save_model(model, tmp_path / "model")  # it has a manifest of its own
    (tmp_path / MAIN).write_text("dear")
    for name, words in (("model", "model holds something else"), (MAIN, f"{MAIN} is a file")):
        with pytest.raises(UsageError, match=words), making(tmp_path / name):
            pass
    assert load_model(tmp_path / "model").labels == model.labels
    assert (tmp_path / MAIN).read_text() == "dear"


def test_the_second_of_two_exports_into_one_folder_waits(tmp_path: Path) -> None:
    begun = threading.Event()

    def second() -> None:
        begun.set()
        with making(tmp_path / MAIN) as staging:
            (staging / INFO).write_bytes(b"second")

    with ThreadPoolExecutor(1) as pool:
        with making(tmp_path / MAIN) as staging:
            done = pool.submit(second)
            begun.wait()
            time.sleep(0.2)  # in which it took away what is being made here
            (staging / INFO).write_bytes(b"first")
        done.result()
    assert (tmp_path / MAIN / INFO).read_bytes() == b"second"
    assert [path.name for path in tmp_path.iterdir()] == [MAIN]
