"""What the model card says beyond the report: limits that follow from facts, and its licence."""

from __future__ import annotations

import html
import json
import re

from edgewise.reporting.numbers import percent, plural
from edgewise.reporting.record import Record
from edgewise.reporting.views import SPLIT_NAMES, Accuracy, class_counts, confused_pairs
from edgewise.training.start import weights_licence

FEW_IMAGES = 20  # of a class; below, neither its training nor its recall says much


def markdown(text: object) -> str:
    """A person's text with nothing in it that Markdown or HTML would act on."""
    return re.sub(r"([\\`*_{}\[\]#|~!])", r"\\\1", html.escape(str(text), quote=False))


def yaml(text: object) -> str:
    """A text as a YAML scalar; every JSON string is one."""
    return json.dumps(str(text), ensure_ascii=False)


def licence(record: Record) -> str | None:
    """The licence of the weights that training started from, as an SPDX identifier."""
    return weights_licence(record.run, record.recipe)


def split_totals(record: Record) -> dict[str, int]:
    """The number of images in each split, without val's where these are train's."""
    counts = record.counts()
    names = (split for split in SPLIT_NAMES if split != "val" or not record.learned_val)
    return {split: sum(counts.get(split, {}).values()) for split in names}


def limits(record: Record, score: Accuracy | None) -> list[str]:
    """What to beware of, in Markdown, one sentence each; only what the run's files show."""
    found = []
    if record.data:
        rows = sorted(class_counts(record), key=lambda row: row.images["train"])
        few = [row for row in rows if row.images["train"] < FEW_IMAGES]
        if few:
            listed = ", ".join(f"{markdown(r.label)} ({r.images['train']})" for r in few[:5])
            found.append(
                f"{plural(len(few), 'class')} had fewer than {FEW_IMAGES} training "
                f"images; the fewest: {listed}."
            )
    if record.evaluation and score:
        tested = [row for row in record.evaluation["per_class"] if row["support"]]
        worst = min(tested, key=lambda row: row["recall"])
        if worst["recall"] < 1:
            found.append(
                f"It finds {markdown(worst['label'])} least reliably: "
                f"{percent(worst['recall'])} of {plural(worst['support'], 'image')}."
            )
        for pair in confused_pairs(record.evaluation, 1):
            found.append(
                f"Most often it takes {markdown(pair.label)} for "
                f"{markdown(pair.predicted)}: {plural(pair.count, 'time')}."
            )
        if skipped := record.evaluation["skipped"]:
            found.append(
                f"{plural(len(skipped), 'file')} of the {record.evaluation['split']} split could "
                "not be read and don't count in the accuracy."
            )
    if record.quarantine:
        found.append(f"{plural(len(record.quarantine), 'file')} of the data could not be used.")
    return found
