"""Which file is chosen, and when mending is tried: by hand."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_search import all_decisions

from edgewise.cli.run_text import told
from edgewise.errors import EdgewiseError
from edgewise.measure.rounds import summary
from edgewise.run_folder import Run
from edgewise.search import finishing
from edgewise.search.adapted import Clock
from edgewise.search.budget import Budget, Spent
from edgewise.search.choice import Trial
from edgewise.search.costs import Candidate, Cost
from edgewise.search.decisions import Decisions
from edgewise.search.device import Measured, TimedFile
from edgewise.search.entrants import Entrant
from edgewise.search.finishing import files_of, narrowed_files, nearest, needs_qat
from edgewise.search.pace import LEAST_TRIAL, LOWERING
from edgewise.search.request import SearchFolder
from edgewise.search.shipping import NOT_MADE, best_file, wrong
from edgewise.search.ways import Way
from edgewise.training.divergence import Diverged
from edgewise.training.trial import TooLittleTime


def file(precision: str, accuracy: float, used: float, **more: Any) -> dict[str, Any]:
    made = {
        "precision": precision,
        "accuracy": accuracy,
        "accuracy_model": 0.9,
        "images": 1_000,
        "failure": "",
        "fits": used <= 1,
        "used": {"latency": used},
        "spent": {"median_ms": 5 * used},
        "float_layers": [],
    }
    return made | more


def test_the_most_accurate_that_fits_then_the_fastest() -> None:
    dear, slow, quick = file("fp32", 0.95, 1.01), file("fp32", 0.9, 0.9), file("int8", 0.9, 0.5)
    assert best_file([dear, slow, quick, file("int8", 0.89, 0.1)]) is quick
    assert best_file([dear]) is None
    assert best_file([dear, file("fp32", 0.99, 0.5, failure="wrong")]) is None


def test_the_nearest_exceeds_its_worst_part_by_least() -> None:
    slow = file("fp32", 0.9, 2.0) | {"used": {"latency": 2.0, "size": 0.1}}
    large = file("int8", 0.9, 1.5) | {"used": {"latency": 0.5, "size": 1.5}}
    assert nearest([slow, large]) is large
    crashed = {"precision": "fp32", "fits": False, "failure": "crashed (SIGSEGV)"}
    assert nearest([slow, crashed]) is slow
    with pytest.raises(EdgewiseError, match="SIGSEGV"):
        nearest([crashed])


def timed_afresh(
    monkeypatch: pytest.MonkeyPatch, files: list[dict[str, Any]], now: dict[str, float]
) -> tuple[dict[str, Any], list[str]]:
    """What `tested` says where 5 ms are the budget and files take so many now; what was timed."""
    asked, looked = [], []

    def measure(timed: list[TimedFile], seconds: float) -> dict[str, Measured]:
        asked.append(timed[0].path.name)
        ms = now[asked[-1]]
        return {"chosen": Measured(summary([[ms] * 5] * 20, 5) if ms else None, 1, "timed out")}

    def accuracy_on(*arguments: Any) -> dict[str, Any]:
        looked.append(arguments)
        return {"accuracy": 0.5, "low": 0.4, "high": 0.6, "images": 10, "tested_in": "a"}

    read = SimpleNamespace(read=lambda folder: SimpleNamespace(path=folder, bytes=1))
    monkeypatch.setattr(finishing, "Artifact", read)
    of = SimpleNamespace(of=lambda made, key, runtime: TimedFile(key, made.path, runtime))
    monkeypatch.setattr(finishing, "TimedFile", of)
    monkeypatch.setattr(finishing, "accuracy_on", accuracy_on)
    search: Any = SimpleNamespace(
        budget=Budget.parse("latency=5ms"),
        device=SimpleNamespace(measure=measure),
        folder=SearchFolder(Path()),
        dataset=SimpleNamespace(splits={"test": ()}),
        request=SimpleNamespace(workers=0),
    )
    found = finishing.tested(search, files)
    assert len(looked) == 1
    return found, asked


def test_a_file_that_does_not_fit_any_more_makes_way_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = {"runtime": "onnxruntime", "low": 0.0, "high": 1.0}
    files = [
        file("fp32", 0.95, 0.99, folder="first", **own),
        file("fp16", 0.94, 0.98, folder="second", **own),
        file("int8", 0.93, 0.5, folder="third", **own),
        file("bf16", 0.99, 1.5, folder="dear", **own),
    ]
    now = {"first": 5.1, "second": 0.0, "third": 2.6, "dear": 7.0}
    found, asked = timed_afresh(monkeypatch, files, now)
    assert asked == ["first", "second", "third"]
    assert (found["folder"], found["fits"], found["spent"]["median_ms"]) == ("third", True, 2.6)
    assert [(one["folder"], one["failure"]) for one in found["over"]] == [
        ("first", ""),
        ("second", "timed out"),
    ]
    said = told("test", found)
    assert "fp32 in onnxruntime does not fit any more, timed afresh: 102.0% of the latency" in said
    assert "third: int8 in onnxruntime, fits the budget" in said

    found, asked = timed_afresh(monkeypatch, files, now | {"third": 5.2})
    assert asked == ["first", "second", "third"]  # the nearest is not timed twice
    assert (found["folder"], found["fits"], found["spent"]["median_ms"]) == ("first", False, 5.1)
    assert [one["folder"] for one in found["over"]] == ["second", "third"]

    found, asked = timed_afresh(monkeypatch, files, now | {"first": 9.0, "third": 9.0})
    assert asked == ["first", "second", "third", "dear"]
    assert (found["folder"], found["spent"]["median_ms"]) == ("dear", 7.0)


def test_an_accuracy_that_another_runtime_computed_says_which() -> None:
    """The device may have a runtime that this machine has not."""
    made = all_decisions()["test"]
    assert made["runtime"] == "onnxruntime"
    for tested_in, words in (("onnxruntime 1.31.1", ""), ("openvino 2026.2", "openvino 2026.2")):
        said = told("test", {**made, "tested_in": tested_in}).splitlines()[-2]
        where = f", computed here in {words}" if words else ""
        assert said.endswith(f"95 images that no decision has seen{where}")
    assert "that no decision has seen\n" in told("test", made)  # an older log


def test_few_test_images_are_said_to_be_few() -> None:
    """As two classes of ten images have."""
    made = all_decisions()["test"]
    said = told("test", {**made, "low": 0.3, "high": 0.9032, "images": 4})
    assert "  beware:   these images are few: 60 points lie between both ends" in said
    assert "beware" not in told("test", {**made, "low": 0.93, "high": 0.97, "images": 1000})


def test_an_old_time_is_not_held_against_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device takes twice as long now. What never fitted was timed while it was fast."""
    own = {"runtime": "onnxruntime", "low": 0.0, "high": 1.0}
    files = [
        file("int8", 0.95, 0.9, folder="fitted", **own),
        file("bf16", 0.94, 1.6, folder="dear", **own),
        file("fp32", 0.94, 1.7, folder="breaks", **own),
        file("fp16", 0.94, 3.0, folder="far", **own),
    ]
    now = {"fitted": 9.0, "dear": 16.0, "breaks": 0.0, "far": 30.0}
    found, asked = timed_afresh(monkeypatch, files, now)
    assert asked == ["fitted", "dear", "breaks"]
    assert (found["folder"], found["spent"]["median_ms"]) == ("fitted", 9.0)
    assert found["over"] == []  # the others never fitted

    found, asked = timed_afresh(monkeypatch, files, now | {"breaks": 8.0})
    assert asked == ["fitted", "dear", "breaks"]
    assert (found["folder"], found["spent"]["median_ms"]) == ("breaks", 8.0)
    assert [one["folder"] for one in found["over"]] == ["fitted"]

    with pytest.raises(EdgewiseError, match="none of the exported files can be shipped: timed out"):
        timed_afresh(monkeypatch, files, dict.fromkeys(now, 0.0))


def test_rounding_is_learned_only_where_it_is_needed() -> None:
    lossy, fine = file("int8", 0.88, 0.5), file("int8", 0.895, 0.5)
    dear, fitting = file("fp32", 0.9, 1.5), file("fp32", 0.9, 0.9)
    assert needs_qat([lossy, dear])
    assert not needs_qat([fine, dear])  # half a point
    assert not needs_qat([lossy, fitting])  # float fits
    assert not needs_qat([lossy, fine, dear])  # in another runtime it keeps its accuracy
    assert not needs_qat([dear])
    assert not needs_qat([lossy, file("bf16", 0.9, 0.9)])  # so does half of a float
    assert not needs_qat([lossy | {"images": 60}, dear])  # one image more or less
    assert needs_qat([file("int8", 0.8, 0.5) | {"images": 60}, dear])


def test_layers_in_float_that_the_budget_has_no_room_for_are_rounded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before any smaller image is learned; the file takes the place of the other."""
    asked: list[tuple[list[str], tuple[str, ...] | None]] = []

    def ship(
        made: Run, ways: list[Way], device: Any, budget: Any, keep_float: tuple[str, ...] | None
    ) -> list[dict[str, Any]]:
        asked.append(([way.precision for way in ways], keep_float))
        used = {"fp32": 1.9, "int8": room if keep_float is None else 0.8}
        kept = {"fp32": [], "int8": ["stem.conv"] if keep_float is None else []}
        return [
            file(way.precision, 0.9, used[way.precision], float_layers=kept[way.precision])
            | {"folder": str(made.root / way.name), "low": 0.8, "high": 1.0, **asdict(way)}
            | {"spent": asdict(Spent(*[5 * used[way.precision]] * 3, 1))}
            for way in ways
        ]

    monkeypatch.setattr(finishing, "ship", ship)
    monkeypatch.setattr(finishing.Recipe, "read", lambda path: SimpleNamespace(imgsz=160))
    ways = [Way("onnx", precision, "onnxruntime") for precision in ("fp32", "int8")]
    for room in (1.3, 0.9):
        log = Decisions(tmp_path / f"{room}")
        search: Any = SimpleNamespace(decide=log.decide, ways=ways, device=None, budget=None)
        search.folder, search.log = SearchFolder(tmp_path), log_of(1.9)
        found = files_of(search, Run(tmp_path / "final"))
        best = best_file(found)
        assert len(found) == 2
        assert best
        assert best["used"]["latency"] == min(room, 0.8 if room > 1 else room)
        if room > 1:
            assert list(log.made) == ["files", "files: int8 throughout"]
            assert asked == [(["fp32", "int8"], None), (["int8"], ())]
            said = told("files: int8 throughout", log.made["files: int8 throughout"])
            assert said.startswith("none fits, so again without layers in float:\n")
        else:
            assert list(log.made) == ["files"]
        asked.clear()


def test_a_late_training_that_fails_leaves_the_files_that_there_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And a still smaller image, whose epoch is shorter, is tried all the same."""
    asked: list[tuple[str, int]] = []

    def ship(made: Run, ways: list[Way], *rest: Any) -> list[dict[str, Any]]:
        return [file(way.precision, 0.8, 1.5) | {"folder": str(made.root)} for way in ways]

    def go_on(run: Run, imgsz: int, minutes: float, root: Path) -> dict[str, Any]:
        asked.append((run.root.name, imgsz))
        if imgsz == 128:
            raise TooLittleTime("one epoch takes about 4.0 minutes here, more than the 1.2 given")
        if imgsz == 64:
            raise Diverged("the loss is not finite", "stages.0")
        return {"score": 0.8}

    def round_run(run: Run, root: Path, epochs: int) -> Run:
        raise Diverged("the loss is not finite", "stages.0")

    monkeypatch.setattr(finishing, "ship", ship)
    monkeypatch.setattr(finishing, "round_run", round_run)
    monkeypatch.setattr(finishing.Recipe, "read", lambda path: SimpleNamespace(imgsz=160))
    log, ways = Decisions(tmp_path / "log"), [Way("onnx", "int8", "onnxruntime")]
    search: Any = SimpleNamespace(decide=log.decide, go_on=go_on, left=10.0, ways=ways)
    search.unspent, search.folder, search.log = 10.0, SearchFolder(tmp_path), log_of(0.95)
    search.device = search.budget = search.outcome = None
    found = files_of(search, Run(tmp_path / "final"))
    assert asked == [("final", 128), ("final", 96), ("96", 64)]
    assert [own["folder"] for own in found] == ["final", "shrunk/96"]
    assert list(log.made) == [
        "files", "lower: 128 px", "lower: 96 px", "files: 96 px", "lower: 64 px", "qat",
    ]  # fmt: skip
    failures = [told(step, own) for step, own in log.made.items() if "failure" in own]
    assert failures == [
        "lower: 128 px: one epoch takes about 4.0 minutes here, more than the 1.2 given",
        "lower: 64 px: training diverged: the loss is not finite",
        "qat: training diverged: the loss is not finite",
    ]


def test_only_the_first_files_have_to_be_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Later ones that can't be leave those that there are; without the first there are none."""
    ways = [Way("onnx", precision, "onnxruntime") for precision in ("fp32", "int8")]

    def ship(made: Run, ways: list[Way], *rest: Any) -> list[dict[str, Any]]:
        if made.root.name in broken:
            return [{**asdict(way), **NOT_MADE, "failure": "no such operator"} for way in ways]
        return [file(way.precision, 0.8, 1.5) | {"folder": str(made.root)} for way in ways]

    monkeypatch.setattr(finishing, "ship", ship)
    monkeypatch.setattr(finishing.Recipe, "read", lambda path: SimpleNamespace(imgsz=96))
    for broken in (("64",), ("final",)):
        log = Decisions(tmp_path / broken[0])
        search: Any = SimpleNamespace(decide=log.decide, left=10.0, unspent=0.0, ways=ways)
        search.folder, search.log = SearchFolder(tmp_path), log_of(0.95)
        search.go_on = lambda *given: {"score": 0.8}
        search.device = search.budget = None
        if broken == ("64",):
            found = files_of(search, Run(tmp_path / "final"))
            assert [own["failure"] for own in found] == ["", "", *["no such operator"] * 2]
            assert list(log.made) == ["files", "lower: 64 px", "files: 64 px"]
            assert told("files: 64 px", log.made["files: 64 px"]).count("no such operator") == 2
        else:
            words = r"no file could be made of .*final: no such operator$"
            with pytest.raises(EdgewiseError, match=words):
                files_of(search, Run(tmp_path / "final"))
            assert not log.made  # it is tried again on resume


def log_of(used: float) -> Any:
    """A log by which the trained network takes so much of the budget."""
    trials = [{"name": "other-224", "used": 1.0}, {"name": "a-160", "used": used}]
    return SimpleNamespace(made={"choose": {"trials": trials}, "train": {"trial": "a-160"}})


def finished(
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    files: dict[str, list[dict[str, Any]]],
    unspent: float = 0.0,
    used: float = 0.95,
) -> tuple[list[tuple[int, float]], list[str]]:
    """The sizes that were tried below 160 px with their minutes, and the steps of the search.

    Args:
        monkeypatch: undone after the test.
        root: of the search.
        files: of each run by its folder's name; of all others "".
        unspent: minutes that are left.
        used: of the budget, by the trained network before it was trained.
    """
    asked: list[tuple[int, float]] = []
    root.mkdir(exist_ok=True)

    def ship(made: Run, *rest: Any) -> list[dict[str, Any]]:
        own = files.get(made.root.name, files.get("", []))
        return [{**one, "folder": str(made.root)} for one in own]

    def go_on(run: Run, imgsz: int, minutes: float, root: Path) -> dict[str, Any]:
        asked.append((imgsz, pytest.approx(minutes)))
        return {"score": 0.8}

    monkeypatch.setattr(finishing, "ship", ship)
    monkeypatch.setattr(finishing, "round_run", lambda run, root, epochs: Run(root))
    monkeypatch.setattr(finishing.Recipe, "read", lambda path: SimpleNamespace(imgsz=160))
    log, ways = Decisions(root / "log"), [Way("onnx", "int8", "onnxruntime")]
    search: Any = SimpleNamespace(decide=log.decide, go_on=go_on, left=10.0, ways=ways)
    search.unspent, search.folder, search.log = unspent, SearchFolder(root), log_of(used)
    search.device = search.budget = None
    search.outcome = lambda run: {"score": 0.8}
    files_of(search, Run(root / "final"))
    return asked, list(log.made)


def test_smaller_images_are_not_tried_where_files_are_too_large(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Less time and memory they take; a file stays as large as it is."""
    broken = file("fp32", 0.9, 0.5, failure="wrong")
    for number, (used, tried) in enumerate(
        (
            ([{"size": 1.2}, {"size": 1.1, "latency": 1.5}], 0),
            ([{"size": 1.2}, {"size": 0.9, "latency": 1.5}], 3),
            ([{"size": 0.9, "memory": 1.5}], 3),
            ([], 3),  # nothing ran
        )
    ):
        files = [file("int8", 0.9, 1.5) | {"used": parts} for parts in used]
        asked, _ = finished(monkeypatch, tmp_path / f"{number}", {"": [*files, broken]})
        assert len(asked) == tried, used


def test_only_the_first_smaller_images_have_time_set_aside(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those after them take what is left, which is never much more than was given."""
    for unspent, later in ((5.0, 1.2), (0.7, 0.7), (-3.0, LEAST_TRIAL)):
        files = {"": [file("int8", 0.9, 1.5)]}
        asked, _ = finished(monkeypatch, tmp_path / f"{unspent}", files, unspent)
        assert asked == [(128, 10.0 * LOWERING), (96, later), (64, later)]
        # With room below the budget the long training had that time.
        root = tmp_path / f"{unspent} roomy"
        asked, _ = finished(monkeypatch, root, files, unspent, used=0.9)
        assert asked == [(128, later), (96, later), (64, later)]
    assert LOWERING == 0.12


def test_what_int8_loses_is_judged_by_the_network_that_fits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With larger images, which take too long, it lost nothing."""
    files = {
        "final": [file("fp32", 0.9, 2.0), file("int8", 0.9, 1.1)],
        "128": [file("fp32", 0.9, 1.5), file("int8", 0.8, 0.9)],
    }
    _, steps = finished(monkeypatch, tmp_path, files)
    assert steps == ["files", "lower: 128 px", "files: 128 px", "qat", "files: qat"]


def test_a_narrowed_network_that_diverges_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In its proposals, or in the training after them."""

    def diverge(*arguments: Any) -> Any:
        raise Diverged("the loss is not finite", "stages.0")

    def narrow(*arguments: Any) -> dict[str, Any]:
        return {"steps": [], "model": str(tmp_path / "shrunk" / "netadapt"), "fits": True}

    monkeypatch.setattr(finishing, "train_narrowed", diverge)
    monkeypatch.setattr(finishing, "outcome", lambda run: {"score": 0.5})
    least = Cost(Candidate("a", 96, "int8", "onnxruntime"), Spent(2.0, 2.0, 2.0, 2, 1))
    trial = Trial(Entrant("a", 70.0, 224, 1, True), 96, 70.0, 1.25, True, least)
    for name, narrowing, failed in (("one", diverge, "narrow"), ("two", narrow, "narrowed")):
        monkeypatch.setattr(finishing, "narrow", narrowing)
        log = Decisions(tmp_path / name)
        log.decide("survey", lambda: {"costs": [asdict(least)]})
        log.decide("round 2: a-96", lambda: {"run": "trials/2-a-96", "score": 0.9})
        search: Any = SimpleNamespace(device=None, left=10.0, log=log, decide=log.decide)
        search.budget, search.folder = Budget.parse("latency=1.6ms"), SearchFolder(tmp_path)
        search.outcome = None
        assert narrowed_files(search, [trial], Run(tmp_path)) == []
        step, numbers = list(log.made.items())[-1]
        assert told(step, numbers) == f"{failed}: training diverged: the loss is not finite"


def test_what_int8_loses_is_weighed_and_not_forbidden() -> None:
    lost = "int8 loses 2.0 points of accuracy: 90 % of 100 images are right in the model, ..."
    assert wrong([lost], "int8") == ""
    assert wrong([lost.replace("int8", "bf16")], "bf16") == ""
    assert wrong([lost, "its labels are others"], "int8") == "its labels are others"
    assert wrong(["fp32 loses 2.0 points of accuracy"], "fp32")
    changed = "/accuracy/onnx-int8/model.onnx was changed after it was written"
    assert wrong([changed, lost], "int8") == changed


def test_what_narrows_goes_by_an_onnx_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cheapest takes 2 ms, its ONNX file 5: that has to come down by the same factor."""
    least = Cost(Candidate("a", 96, "int8", "litert", "litert"), Spent(2.0, 2.0, 2.0, 2, 1))
    onnx = Cost(Candidate("a", 96, "int8", "onnxruntime"), Spent(5.0, 5.0, 5.0, 1))
    trial = Trial(Entrant("a", 70.0, 224, 1, True), 96, 70.0, 1.25, True, least)
    asked: list[tuple[Clock, Budget]] = []

    def narrow(original: Run, clock: Clock, budget: Budget, *rest: Any) -> dict[str, Any]:
        asked.append((clock, budget))
        return {"failure": "too few minutes", "fits": False}

    monkeypatch.setattr(finishing, "narrow", narrow)
    monkeypatch.setattr(finishing, "outcome", lambda run: {"score": 0.5})

    def narrowed(name: str, *costs: Cost, budget: str = "latency=1.6ms") -> dict[str, Any] | None:
        log = Decisions(tmp_path / name)
        log.decide("survey", lambda: {"costs": [asdict(cost) for cost in costs]})
        log.decide("round 2: a-96", lambda: {"run": "trials/2-a-96", "score": 0.9})
        search: Any = SimpleNamespace(budget=Budget.parse(budget), device=None, left=10.0, log=log)
        search.decide, search.folder = log.decide, SearchFolder(tmp_path)
        assert narrowed_files(search, [trial], Run(tmp_path)) == []
        return log.made.get("narrow")

    said = narrowed("both", least, onnx)
    assert said
    ((clock, budget),) = asked
    assert (clock.precision, clock.runtime) == ("int8", "onnxruntime")
    assert budget.latency_ms == pytest.approx(1.6 * 5 / 2)
    assert said["instead_of"] == "int8 in litert"
    assert told("narrow", said) == "narrow (timed as int8 in onnxruntime): too few minutes"
    said = narrowed("one", least)
    assert said and "by the times of ONNX files, and none of a-96 was timed" in said["failure"]
    for number, text in enumerate(("size=1B", "latency=3ms,size=1B", "latency=1.6ms,size=1B")):
        assert narrowed(f"{number}", least, onnx, budget=text) is None  # time is not all
    assert len(asked) == 1
    assert narrowed("small", least, onnx, budget="latency=1.6ms,size=2B,memory=1B")
    assert len(asked) == 2
