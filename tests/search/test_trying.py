"""The rungs that train: who goes on, and what a training that fails changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_search import all_decisions, reached, write_search

from edgewise.cli.run_text import told
from edgewise.errors import EdgewiseError
from edgewise.run_folder import Run
from edgewise.search.budget import Spent
from edgewise.search.choice import Trial
from edgewise.search.costs import Candidate, Cost
from edgewise.search.decisions import Decisions
from edgewise.search.entrants import entrants
from edgewise.search.pace import DISTILLING, FEW_STEPS, Pace
from edgewise.search.request import Request, SearchFolder
from edgewise.search.trying import round_of, trained
from edgewise.training.divergence import Diverged
from edgewise.training.trial import TooLittleTime

NAME = "tiny224"  # the network of the tests, as if it were published for images of 224 px
SCORES = {"a": 0.3, "b": 0.5, "c": 0.9}
QUICK = Pace(0.1, 0.0, steps=FEW_STEPS, trained=700, tested=100, minutes=60.0)


def search_of(log: Decisions, left: float) -> Any:
    """As much of a search as a round needs."""
    request, folder = SimpleNamespace(minutes=left), SearchFolder(log.path.parent)
    return SimpleNamespace(left=left, log=log, decide=log.decide, request=request, folder=folder)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks learn enough in a tenth of a second to be held against each other."""
    monkeypatch.setattr("edgewise.search.trying.Pace.read", lambda made, minutes: QUICK)


@pytest.mark.usefixtures("quick")
def test_a_trial_that_diverges_is_out(tmp_path: Path) -> None:
    """And the search goes on with the others; where all diverge it says so at last."""

    def train(model: str, imgsz: int, minutes: float, root: Path, **settings: Any) -> Run:
        if model in diverging:
            raise Diverged("the loss is not finite", "stages.0")
        return Run(Path(model))

    entrant = entrants((NAME,))[0]
    least = Cost(Candidate(NAME, 96, "fp32", "onnxruntime"), Spent(1.0, 1.0, 1.0, 1))
    trials = [
        Trial(replace(entrant, model=name), 96, prior, 0.5, False, least)
        for name, prior in (("a", 80.0), ("b", 70.0), ("c", 60.0))
    ]
    for diverging, kept in (("a", ["c-96", "b-96"]), ("abc", ["a-96", "b-96", "c-96"])):
        log = Decisions(tmp_path / diverging)
        search = search_of(log, 60.0)
        search.trainer = SimpleNamespace(train=train)
        search.outcome = lambda run: {"score": SCORES[run.root.name], "images": 10_000}
        found = round_of(search, 1, trials, 0.12, above=2)
        assert [trial.name for trial in found] == log.made["round 1"]["kept"] == kept
        said = told("round 1: a-96", log.made["round 1: a-96"])
        assert said == "round 1: a-96: training diverged: the loss is not finite"


@pytest.mark.usefixtures("quick")
def test_a_first_round_that_nobody_leaves_is_left_out(tmp_path: Path) -> None:
    """Three trials, or time for three: all would be in the second. Its time is the long one's."""
    entrant = entrants((NAME,))[0]
    least = Cost(Candidate(NAME, 96, "fp32", "onnxruntime"), Spent(1.0, 1.0, 1.0, 1))
    trials = [Trial(replace(entrant, model=c), 96, 70.0, 0.5, False, least) for c in "abcde"]
    log = Decisions(tmp_path / "log")
    search = search_of(log, 60.0)
    assert round_of(search, 1, trials[:3], 0.12, above=3) == trials[:3]
    search.left = 9.0
    assert round_of(search, 1, trials, 0.12, above=3) == trials[:3]
    tried: list[float] = []

    def train(model: str, imgsz: int, minutes: float, root: Path, **settings: Any) -> Run:
        tried.append(minutes)
        return Run(root)

    search = search_of(log, 10.1)
    search.trainer = SimpleNamespace(train=train)
    search.outcome = lambda run: {"score": 0.7, "images": 100}
    assert round_of(search, 1, trials, 0.12, above=3) == trials[:3]
    assert tried == [pytest.approx(10.1 * 0.12 / 4)] * 4


@pytest.mark.usefixtures("quick")
def test_a_round_that_is_decided_stays_so(tmp_path: Path) -> None:
    """Also if an earlier version, which weighed otherwise, has decided it."""
    log, entrant = Decisions(tmp_path / "log"), entrants((NAME,))[0]
    for name, score in (("a", 0.5), ("b", 0.6)):
        numbers = {"score": score, "images": 30}
        log.decide(f"round 2: {name}-96", lambda numbers=numbers: numbers)  # type: ignore[misc]
    log.decide("round 2", lambda: {"kept": ["b-96", "a-96"]})
    least = Cost(Candidate(NAME, 96, "fp32", "onnxruntime"), Spent(1.0, 1.0, 1.0, 1))
    a, b = (
        Trial(replace(entrant, model=name), 96, prior, 0.5, False, least)
        for name, prior in (("a", 80.0), ("b", 70.0))
    )
    search = search_of(log, 60.0)
    assert round_of(search, 2, [a, b], 0.18, above=1) == [b, a]


@pytest.mark.usefixtures("quick")
def test_a_network_that_is_tried_alone_learns_for_all_of_the_time(tmp_path: Path) -> None:
    """There are no rounds before, and no better network to learn from or to narrow."""
    asked: list[float] = []

    def train(model: str, imgsz: int, minutes: float, root: Path, **settings: Any) -> Run:
        asked.append(minutes)
        return Run(root)

    least = Cost(Candidate(NAME, 96, "fp32", "onnxruntime"), Spent(1.0, 1.0, 1.0, 1))
    for name, used, part in (("near", 0.95, 0.80), ("far", 0.5, 0.92)):
        log = Decisions(tmp_path / name)
        trial = Trial(entrants((NAME,))[0], 96, 70.0, used, False, least)
        search = search_of(log, 60.0)
        search.trainer = SimpleNamespace(train=train)
        search.outcome = lambda run: {"score": 0.8}
        kept = round_of(search, 2, round_of(search, 1, [trial], 0.12, above=3), 0.18, above=1)
        trained(search, kept)
        assert asked.pop() == pytest.approx(60.0 * part)


def test_a_teacher_that_there_is_no_time_to_ask_changes_nothing(tmp_path: Path) -> None:
    """The first long training is kept."""
    made = all_decisions()
    made["round 2: b-96"] = reached(0.9, "trials/2-b-96")
    folder = write_search(tmp_path / "search", {s: n for s, n in made.items() if s != "train"})
    log, entrant = Decisions(folder.decisions), entrants((NAME,))[0]
    least = Cost(Candidate(NAME, 96, "fp32", "onnxruntime"), Spent(1.0, 1.0, 1.0, 1))
    dear, fits = (
        Trial(replace(entrant, model=name), 96, 70.0, used, used > 1, least)
        for name, used in (("b", 1.2), ("a", 0.8))
    )
    asked: list[float] = []

    def go_on(run: Run, imgsz: int, minutes: float, root: Path, teacher: str) -> dict[str, Any]:
        assert teacher == str(folder.trials / "2-b-96")
        asked.append(minutes)
        raise TooLittleTime("one epoch takes too long")

    search: Any = SimpleNamespace(left=10.0, decide=log.decide, log=log, folder=folder, go_on=go_on)
    search.request = Request.read(folder.request)
    search.trainer = SimpleNamespace(train=lambda *arguments, **settings: Run(folder.final))
    search.outcome = lambda run: reached(0.8, "final")
    assert trained(search, [dear, fits]) == Run(folder.final)
    assert asked == [10.0 * DISTILLING]
    assert told("distil", log.made["distil"]) == "distil: one epoch takes too long"


def test_one_that_fits_and_was_lucky_is_no_teacher(tmp_path: Path) -> None:
    """It would be the best, had it promised more; an older version asked it, and stays so."""
    made = all_decisions()
    made["round 2: b-96"] = reached(0.9, "trials/2-b-96")
    folder = write_search(tmp_path / "search", {s: n for s, n in made.items() if s != "train"})
    log, entrant = Decisions(folder.decisions), entrants((NAME,))[0]
    least = Cost(Candidate(NAME, 96, "fp32", "onnxruntime"), Spent(1.0, 1.0, 1.0, 1))
    best, lucky = (
        Trial(replace(entrant, model=name), 96, 70.0, 0.8, False, least) for name in ("a", "b")
    )
    search: Any = SimpleNamespace(left=10.0, decide=log.decide, log=log, folder=folder, go_on=None)
    search.request = Request.read(folder.request)
    search.trainer = SimpleNamespace(train=lambda *arguments, **settings: Run(folder.final))
    search.outcome = lambda run: reached(0.8, "final")
    assert trained(search, [best, lucky]) == Run(folder.final)
    assert "distil" not in log.made
    log.decide("distil", lambda: {"teacher": "b-96", **reached(0.9, "distilled")})
    assert trained(search, [best, lucky]) == Run(folder.distilled)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Diverged("the loss is not finite", "stages.0"), r"diverged: the .* with other --models"),
        (TooLittleTime("one epoch takes too long"), r"failed: one epoch .* with more --time"),
    ],
)
def test_a_long_training_that_fails_says_what_another_search_needs(
    tmp_path: Path, error: EdgewiseError, words: str
) -> None:
    def train(*arguments: Any, **settings: Any) -> Run:
        raise error

    log = Decisions(tmp_path / "log")
    least = Cost(Candidate(NAME, 96, "fp32", "onnxruntime"), Spent(1.0, 1.0, 1.0, 1))
    trial = Trial(entrants((NAME,))[0], 96, 70.0, 0.8, False, least)
    search: Any = SimpleNamespace(left=10.0, decide=log.decide, log=log)
    search.folder, search.outcome = SearchFolder(tmp_path), None
    search.trainer = SimpleNamespace(train=train)
    with pytest.raises(EdgewiseError, match=rf"long training of {NAME}-96 .*{words}"):
        trained(search, [trial])
    assert not log.made  # it is tried again on resume
