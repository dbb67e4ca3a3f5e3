"""Search folders written by hand, as `edgewise run` would leave them at any rung."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from html_page import Page

from edgewise.reporting.search_page import write_search_report
from edgewise.search.budget import Budget, Spent
from edgewise.search.request import Request, SearchFolder
from edgewise.training.metrics import wilson

Numbers = dict[str, Any]
SIZES = (64, 96, 224)
NETWORKS = {  # name: (published top-1, ms at 224 px in fp32, MB, pretrained)
    "mobilenet_v3_small": (67.6, 5.0, 6.1, False),
    "mobilenet_v2_050": (65.9, 6.0, 5.0, True),
    "mobilenet_v2": (71.9, 18.0, 8.9, True),
    "efficientnet_lite0": (75.1, 22.0, 13.6, True),
    "mobilenet_v4_conv_small": (73.8, 12.0, 10.0, True),
    "efficientnet_lite1": (76.6, 34.0, 16.5, True),
    "convnext_v2_atto": (76.6, 60.0, 11.4, True),
    "efficientnet_lite4": (80.1, 140.0, 49.0, True),
}
WAYS = [(p, r) for p in ("fp32", "int8") for r in ("onnxruntime", "openvino")]
ROUND_1 = {
    "efficientnet_lite0-96": 0.590,
    "mobilenet_v4_conv_small-96": 0.640,
    "mobilenet_v2-96": 0.566,
    "mobilenet_v2_050-96": 0.410,
}
ROUND_2 = {
    "efficientnet_lite0-96": 0.780,
    "mobilenet_v4_conv_small-96": 0.747,
    "mobilenet_v2-96": 0.651,
}


def spent(ms: float, megabytes: float) -> Numbers:
    size = int(megabytes * 1e6)
    return {
        "median_ms": ms,
        "p90_ms": 1.2 * ms,
        "p99_ms": 2 * ms,
        "size_bytes": size,
        "memory_bytes": 3 * size,
    }


def cost(model: str, imgsz: int, precision: str, runtime: str) -> Numbers:
    _, ms, megabytes, _ = NETWORKS[model]
    ms *= (imgsz / 224) ** 2 * (1.1 if runtime == "openvino" else 1)
    if precision == "int8":
        ms, megabytes = ms / 2, megabytes / 4
    candidate = {"model": model, "imgsz": imgsz, "precision": precision, "runtime": runtime}
    failure = "crashed (SIGSEGV)" if (model, runtime) == ("convnext_v2_atto", "openvino") else ""
    return {
        "candidate": candidate,
        "spent": None if failure else spent(ms, megabytes),
        "low_ms": 0.97 * ms,
        "high_ms": 1.04 * ms,
        "failure": failure,
    }


def reached(accuracy: float, run: str, images: int = 83) -> Numbers:
    right = round(accuracy * images)
    low, high = wilson(right, images)
    return {
        "run": run,
        "epochs": 4,
        "score": right / images,
        "accuracy": right / images,
        "low": low,
        "high": high,
        "images": images,
    }


def made_file(numbers: Numbers, accuracy: float, folder: str, budget: Budget) -> Numbers:
    """An exported file that costs what was measured before."""
    seen = reached(accuracy, "")
    own = Spent(**numbers["spent"])
    return {
        "folder": folder,
        "precision": numbers["candidate"]["precision"],
        "runtime": numbers["candidate"]["runtime"],
        "accuracy_model": 0.86,
        "failure": "",
        **{name: seen[name] for name in ("accuracy", "low", "high", "images")},
        "agreement": 0.98,
        "float_layers": [],
        "runs": 200,
        **{name: numbers[name] for name in ("spent", "low_ms", "high_ms")},
        "used": budget.parts(own),
        "fits": budget.holds(own),
    }


def trial(name: str, pretrained: bool, budget: Budget) -> Numbers:
    model, _, imgsz = name.rpartition("-")
    least = cost(model, int(imgsz), "int8", "onnxruntime")
    used = max(budget.parts(Spent(**least["spent"])).values())
    return {
        "name": name,
        "model": model,
        "imgsz": int(imgsz),
        "pretrained": pretrained,
        "prior": 50.0,
        "used": used,
        "above": used > 1,
        "least": least["candidate"],
    }


def all_decisions(text: str = "latency=2ms", classes: tuple[str, ...] = ("cat", "dog")) -> Numbers:
    """Every step of a finished search, by its name."""
    budget = Budget.parse(text)
    folder = "final/export/onnx-"
    made: Numbers = {
        "device": {
            "device": "local",
            "fingerprint": "e15a",
            "cpu": "A <b>CPU</b>",
            "cores": 2,
            "platform": "Linux-6.1",
            "runtimes": {"onnxruntime": "1.31.1", "openvino": "2026"},
        },
        "doctor": {
            "images": 600,
            "classes": list(classes),
            "warnings": ["3 images <i>look</i> alike"],
            "splits": {"train": 422, "val": 83, "test": 95},
        },
        "survey": {
            "entrants": [
                {"model": model, "top1": top1, "imgsz": 224, "macs": int(ms * 2e7), "pretrained": p}
                for model, (top1, ms, _, p) in NETWORKS.items()
            ],
            "costs": [cost(m, s, p, r) for m in NETWORKS for s in SIZES for p, r in WAYS],
        },
        "drift": {"factor": 1.0},
        "pace": {"model": "efficientnet_lite4", "epoch_seconds": [4.5, 12.5], "steps": 14},
        "choose": {
            "trials": [
                *(trial(name, True, budget) for name in ROUND_1),
                trial("mobilenet_v3_small-96", False, budget),
            ],
            "files": 41.0,
        },
    }
    for number, scores in enumerate((ROUND_1, ROUND_2), 1):
        for name, accuracy in scores.items():
            made[f"round {number}: {name}"] = reached(accuracy, f"trials/{number}-{name}")
        made[f"round {number}"] = {"kept": list(ROUND_2)}
    best = "mobilenet_v4_conv_small-96"
    made["train"] = {"trial": best, **reached(0.855, "final")}
    accuracies = (0.855, 0.855, 0.843, 0.831)
    made["files"] = {
        "files": [
            made_file(cost("mobilenet_v4_conv_small", 96, p, r), accuracy, folder + p, budget)
            for (p, r), accuracy in zip(WAYS, accuracies, strict=True)
        ]
    }
    made["rows"] = {
        "rows": [
            {"place": "stem", "words": "Conv of 3 channels at 96 px", "ms": 0.3, "macs": 2_000_000},
            {"place": "head", "words": "Head of 96 channels at 3 px", "ms": 0.1, "macs": 6_000_000},
        ],
        "whole_ms": 0.5,
        "additivity": -0.2,
        "run": "final",
        "runtime": "onnxruntime",
        "precision": "int8",
    }
    shipped = made["files"]["files"][2]
    seen = reached(0.884, "", 95)
    made["test"] = {
        **{name: shipped[name] for name in ("folder", "precision", "runtime", "runs")},
        "selected_by": {n: shipped[n] for n in ("accuracy", "low", "high", "images")},
        **{name: shipped[name] for name in ("spent", "low_ms", "high_ms", "used", "fits")},
        **{name: seen[name] for name in ("accuracy", "low", "high", "images")},
    }
    return made


def write_search(root: Path, made: Numbers, **asked: Any) -> SearchFolder:
    """The folder of a search that made these decisions, each in 30 s."""
    folder = SearchFolder(root)
    root.mkdir(parents=True)
    Request(**{"data": "photos", "budget": "latency=2ms", **asked}).write(folder.request)
    stamp = {"at": "2026-11-22T14:00:15+00:00", "seconds": 30.0}
    lines = [json.dumps({"step": step, **stamp, **numbers}) for step, numbers in made.items()]
    folder.decisions.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def page_of(root: Path, made: dict[str, Any], **asked: Any) -> Page:
    folder = write_search(root / "search", made, **asked)
    return Page(write_search_report(folder).read_text(encoding="utf-8"))


def rows(page: Page) -> dict[str, list[str]]:
    """The cells after each candidate's name."""
    lines = page.tables["Candidates"]
    return {line[0].removesuffix("from scratch"): line[1:] for line in lines if len(line) > 1}
