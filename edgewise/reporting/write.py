"""The report and the model card of a run: read the run folder, fill two templates, write."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgewise import __version__
from edgewise.deploy.artifact import PREDICT
from edgewise.deploy.predictor import main_artifact
from edgewise.files import write_text
from edgewise.reporting import card, charts, views
from edgewise.reporting.cost import cost
from edgewise.reporting.looks import looks
from edgewise.reporting.record import Json, Record, read_record
from edgewise.reporting.templates import render
from edgewise.run_folder import Run
from edgewise.shell import command_line
from edgewise.training.history import kept_epoch

THROUGHPUT = "Training images a second"
HTML, CARD = "template.html.j2", "MODEL_CARD.md.j2"


def report(run: Run) -> Path:
    """Writes `report.html`, one file that opens offline, and `MODEL_CARD.md` into the run folder.

    It reads only what the other verbs wrote, and says of each missing part which verb makes it.
    The cost is measured here, once for each exported file, and kept in `cost.json`; the class
    activation maps are drawn here, of the pictures that can still be read.

    Returns:
        The path of the HTML file.

    Raises:
        UsageError: jinja2 is not installed; or a file of the run is not what its writer wrote.
        EdgewiseError: the files can't be written.
    """
    record = read_record(run)
    measured = cost(run) if record.spec else None
    facts = _facts(record, measured)
    write_text(run.report, render(HTML, facts | _page(record)))
    write_text(run.model_card, render(CARD, facts | _card(record, facts["score"])))
    return run.report


def _facts(record: Record, measured: Json | None) -> Json:
    """What both templates use."""
    evaluation, held_to = record.evaluation, views.held_to(record)
    train_command = record.environment.get("command", command_line("train", record.recipe.data))
    return {
        "name": record.run.root.resolve().name,
        "version": __version__,
        "record": record,
        "recipe": record.recipe,
        "score": views.accuracy(evaluation) if evaluation else None,
        "seen": "unseen test" if evaluation and evaluation["split"] == "test" else "validation",
        "learned_val": record.learned_val and sum(row["split"] == "val" for row in record.images),
        "cost": measured,
        "held_to": held_to,
        "arithmetic": views.arithmetic(record, held_to),
        "train_command": train_command,
        "commands": [
            train_command,
            record.command("eval"),
            *record.exports(),
            *(record.command(verb) for verb in ("verify", "report")),
        ],
    }


def _page(record: Record) -> Json:
    """What only the HTML page uses: the lists, the charts and the pictures."""
    page: dict[str, Any] = {
        "settings": asdict(record.recipe),
        "fold": views.fold,
        "counts": views.class_counts(record),
        "examples": views.examples(record),
        "mistakes": views.mistakes(record),
        **_training(record),
    }
    if record.evaluation:
        classes = record.evaluation["classes"]
        page |= {
            "classes": views.per_class(record.evaluation),
            "pairs": views.confused_pairs(record.evaluation),
            "pictured_pairs": views.pictured_pairs(record),
            "looks": looks(record),
            "matrix": views.matrix(record.evaluation)
            if len(classes) <= views.LARGEST_MATRIX
            else None,
            "longest_label": max(map(len, classes)),
            "reliability": charts.reliability(record.evaluation["calibration"]),
            "confidences": charts.confidences(record.evaluation["calibration"]),
        }
    return page


def _training(record: Record) -> Json:
    epochs = record.epochs
    if not epochs:
        return {}

    def both(what: str) -> list[tuple[str, str, str]]:
        return [(f"train_{what}", "training", "muted"), (f"val_{what}", "validation", "")]

    return {
        "head_only": any(epoch.phase == "head" for epoch in epochs),
        "train_seconds": sum(epoch.seconds for epoch in epochs),
        "kept": kept_epoch(epochs),
        "curves": [
            charts.curve(epochs, "Accuracy", both("accuracy"), "%"),
            charts.curve(epochs, "Loss", both("loss"), ""),
            charts.curve(epochs, "Learning rate", [("lr", "Learning rate", "")], ""),
            charts.curve(epochs, THROUGHPUT, [("images_per_second", THROUGHPUT, "")], ""),
        ],
    }


def _card(record: Record, score: views.Accuracy | None) -> Json:
    """What only the model card uses."""
    script = main_artifact(record.run) / PREDICT
    return {
        "weights_licence": card.licence(record),
        "data_name": Path(record.recipe.data).name,
        "split_totals": card.split_totals(record),
        "limits": card.limits(record, score),
        "script": shlex.quote(str(script)) if script.is_file() else "",
    }
