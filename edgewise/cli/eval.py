"""`edgewise eval`: how good a run's model is on images that it has not seen."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgewise.training.evaluate import Evaluation
    from edgewise.training.metrics import ClassScore

LONGEST_TABLE = 20
MOST_SKIPPED = 5


@click.command(
    epilog="""
    \b
    Examples:
      edgewise eval runs/first
      edgewise eval runs/first --split val --json
    """
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--split", help="train, val or test.  [default: test, or val if there is no test]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(run: Path, split: str | None, device: str, as_json: bool) -> None:
    """Measure the best model of RUN on its test images.

    Writes eval/SPLIT.json (accuracy, confusion matrix, scores of each class, calibration) and
    eval/SPLIT.csv (the answer for each image) into the run.
    """
    from edgewise.run_folder import Run
    from edgewise.training.evaluate import evaluate

    opened = Run.open(run)
    evaluation = evaluate(opened, split, device)
    for line in _warnings(evaluation):
        click.echo(line, err=True)
    if as_json:
        click.echo(json.dumps(asdict(evaluation), indent=2, ensure_ascii=False))
    else:
        click.echo(_table(evaluation))
        click.echo(f"written to {opened.evaluation / evaluation.split}.json and .csv")


def _warnings(evaluation: Evaluation) -> list[str]:
    skipped = evaluation.skipped
    lines = [f"  {item.path}: {item.reason}" for item in skipped[:MOST_SKIPPED]]
    if len(skipped) > MOST_SKIPPED:
        lines.append(f"  and {len(skipped) - MOST_SKIPPED} more")
    if lines:
        lines.insert(0, f"warning: {len(skipped)} files of {evaluation.split} are not in this:")
    return lines


def _table(evaluation: Evaluation) -> str:
    top5 = "" if evaluation.top5 is None else f", top-5 {evaluation.top5:.4f}"
    lines = [
        f"{evaluation.split}: {evaluation.images:,} images, top-1 {evaluation.top1:.4f}{top5}, "
        f"calibration error {evaluation.ece:.4f}",
        "",
    ]
    scores: list[ClassScore] = list(evaluation.per_class)
    if len(scores) > LONGEST_TABLE:
        scores = sorted(scores, key=lambda score: score.f1)[:LONGEST_TABLE]
        lines.append(f"the {LONGEST_TABLE} worst of {len(evaluation.per_class)} classes, by F1:")
    width = max(len("CLASS"), *(len(score.label) for score in scores))
    lines.append(f"{'CLASS':{width}}  PRECISION  RECALL     F1  IMAGES")
    lines += [
        f"{score.label:{width}}  {score.precision:9.3f}  {score.recall:6.3f}  {score.f1:5.3f}  "
        f"{score.support:6,}"
        for score in scores
    ]
    return "\n".join(lines)
