"""From labelled images and a budget to the most accurate file that fits: rung by rung.

1. doctor    is training on this data sound?
2. survey    what every network costs on the device, before any is trained; and by how much the
             device is slower now than when that was measured
3. choose    the most promising ones that fit, and that can learn enough in the time; where it is
             short, at smaller images too
4. round 1   a short training of each on the data; round 2: a longer one of the best three
5. train     the best one, for as long as there is time; again from a better one's answers
6. files     exported, timed on the device; a smaller image, or training with int8's rounding,
             where that is needed
7. narrow    a better network that is a little too dear, narrowed by NetAdapt until it fits
8. again     the chosen network once more, with the images that it was chosen by
9. rows      where the milliseconds of the chosen file go, if there is time left to see that
10. test     the chosen file, timed afresh, on images that no decision has seen

Each rung's numbers are a line in the log of decisions. A search that was stopped goes on with the
first rung that is not in it, if its images are the same; one that is finished is only told again.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from edgewise.data.dataset import Dataset
from edgewise.data.doctor import examine
from edgewise.errors import EdgewiseError, UsageError
from edgewise.files import claimed, holds_more_than
from edgewise.search.again import learned_again
from edgewise.search.choosing import chosen, surveyed
from edgewise.search.decisions import Decisions, Numbers
from edgewise.search.device import open_device
from edgewise.search.finishing import files_of, narrowed_files, tested
from edgewise.search.pace import FIRST_ROUND, SECOND_ROUND, SURVIVORS
from edgewise.search.request import Request, SearchFolder
from edgewise.search.rows import timed_rows
from edgewise.search.state import State, Watch
from edgewise.search.trying import round_of, trained
from edgewise.search.ways import ways_to
from edgewise.shell import command_line
from edgewise.training.interrupt import Stopped


def run(request: Request, root: Path, watch: Watch | None = None) -> SearchFolder:
    """Searches in the folder `root`, or goes on with the search that is there.

    Args:
        request: what for; a search that is there must have been asked for the same.
        root: of the search.
        watch: who is told.

    Returns:
        The folder; the last decision, "test", names the chosen file and says whether it fits.

    Raises:
        UsageError: the request, the data or the folder is no good, the data or the device is not
            that which the search began with, or another process is at work in the folder.
        NothingFits: no network is anywhere near the budget. (That the best file misses it is no
            error, but said in "test".)
        Stopped: a signal came; everything is saved.
        EdgewiseError: training on the data would be unsound, the device went away, the disk is
            full ... What was decided before is kept.
    """
    folder, watch = SearchFolder(root), watch or Watch()
    _check(folder, request)
    made = Decisions(folder.decisions).made
    if "test" in made:  # its images and its device are not needed any more, and may be gone
        for step, numbers in made.items():
            watch.decided(step, numbers)
        return folder
    device = open_device(request.device, request.threads)
    search = State(request, folder, device, watch)
    try:
        with claimed(root):
            _check(folder, request)  # another process may have begun in it by now
            search.begin()
            climb(search)
    except Stopped as stop:
        raise Stopped(
            f"stopped; go on with: {command_line('run', '--resume', root)}", stop.exit_status - 128
        ) from stop
    return folder


def _check(folder: SearchFolder, request: Request) -> None:
    """Whether the request can be searched for in the folder; see `run`."""
    root = folder.root
    if SearchFolder.is_search(root):
        if Request.read(folder.request) != request:
            raise UsageError(
                f"{root} is a search for something else. Go on with it as it was asked for: "
                f"{command_line('run', '--resume', root)}. Or choose another --name."
            )
    elif holds_more_than(root, ()):
        raise UsageError(f"{root} holds something else already. Choose another --name.")


def _check_device(search: State) -> None:
    """Whether it is the one whose times are in the log.

    Not by the fingerprint, in which the kernel's version is: after an update it is the same device.
    """
    made, request = search.log.made, search.request
    if "device" not in made:
        return
    old, new = made["device"], asdict(search.facts)
    ways, _ = ways_to(request.formats, request.precisions, old["runtimes"], request.device)
    names = "cpu", "cores", *sorted({way.runtime for way in ways})
    was, now = old | old["runtimes"], new | new["runtimes"]
    pairs = [(name, was[name], now.get(name, "none")) for name in names]
    others = [f"{name}: {one} -> {other}" for name, one, other in pairs if one != other]
    if others:
        raise UsageError(
            f"{search.folder.root} was begun on another device than {request.device} is now "
            f"({'; '.join(others)}), whose times can't be held against these. Go on with it there, "
            "or with the same versions again; or start anew under another --name."
        )


def climb(search: State) -> None:
    """All rungs."""
    _check_device(search)
    facts = {"device": search.request.device, **asdict(search.facts)}
    facts["left_out"] = search.left_out
    search.decide("device", lambda: facts)
    _check_images(search, search.decide("doctor", lambda: _doctor(search)))
    trials = chosen(search, *surveyed(search))
    kept = round_of(search, 1, trials, FIRST_ROUND, above=SURVIVORS)
    kept = round_of(search, 2, kept, SECOND_ROUND, above=1)
    final = trained(search, kept)
    files = [*files_of(search, final), *narrowed_files(search, kept, final)]
    files += learned_again(search, kept, files)
    search.decide("rows", lambda: timed_rows(search, files))
    search.decide("test", lambda: tested(search, files))


def _doctor(search: State) -> Numbers:
    data = search.request.data
    seen = examine(Path(data), search.workers)
    if not seen.sound:
        errors = " ".join(f.text for f in seen.findings if f.severity == "error")
        raise EdgewiseError(
            f"training on {data} would not be sound: {errors} Look closer with: "
            f"{command_line('doctor', data)}"
        )
    return {
        "read_seconds": search.read_seconds,  # before this decision, by the first who read them
        "images": seen.usable,
        "classes": list(search.dataset.classes),
        "splits": {split: len(own) for split, own in search.dataset.splits.items()},
        "fingerprints": _fingerprints(search.dataset),
        "warnings": [f.text for f in seen.findings if f.severity == "warning"],
    }


def _check_images(search: State, seen: Numbers) -> None:
    """Whether the images are those that the search began with, each in the same part.

    Others would be tested on, which were perhaps learned from, or under classes that the trained
    network does not know.
    """
    now = _fingerprints(search.dataset)
    if seen.get("fingerprints", now) != now:  # an older log has none
        raise UsageError(
            f"the images of {search.request.data} changed since this search began: put them back, "
            "or start another search under another --name."
        )


def _fingerprints(dataset: Dataset) -> dict[str, str]:
    """Of the contents and classes of each part."""
    return {
        split: replace(dataset, splits={split: own}).fingerprint
        for split, own in dataset.splits.items()
    }
