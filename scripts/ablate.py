"""Which part of a recipe is worth what: trains one refiner for every variant and seed, and evaluates it once.

Variants of the recipe are settings; what other systems have and this package has not comes from ``trial_parts.py``.

    python scripts/ablate.py --detector bccd.safetensors --data bccd --cache cache --results ablation.jsonl \
        --variants today spatial --seeds 0 1 2

Every finished run is a line of the results file; what stands there already is not run again. All runs read one cache,
so the frozen detector sees every image once. The averaged weights of the last epoch are what is evaluated: validation
images choose nothing. ``--table`` prints what the file holds.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import trial_parts as parts

from refinebox.analysis.oracle import swapped_rows
from refinebox.data import annotations, layout
from refinebox.data.annotations import CocoData
from refinebox.detection.detector import Detector
from refinebox.detection.zoo import load_detector
from refinebox.evaluation.bootstrap import difference
from refinebox.evaluation.detect import combined, evaluation_batches
from refinebox.evaluation.evaluator import Evaluator
from refinebox.evaluation.link import Link
from refinebox.evaluation.rows import Rows, to_rows
from refinebox.refinement.architecture import PUBLISHED, SPATIAL
from refinebox.refinement.cost import parameters
from refinebox.refinement.move import clipped
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner
from refinebox.training import settings as recipes
from refinebox.training.cache import Cache
from refinebox.training.learner import Learner
from refinebox.training.lessons import Lessons
from refinebox.training.settings import Settings

WIDEST = 2.0  # enlargement of any variant, for which the cache must hold cells
BASE = Settings(augmentation="flip", variants=2)
TODAY = replace(BASE, architecture=PUBLISHED, least_overlap=0.0, steps=3)
VARIANTS: dict[str, Settings] = {
    "published": replace(recipes.PUBLISHED, augmentation="flip", variants=2),
    "today": TODAY,
    "today, placed": replace(TODAY, architecture=replace(PUBLISHED, placed=True)),
    "today, 1.5x": replace(TODAY, architecture=replace(PUBLISHED, enlargement=1.5)),
    "today, relative": replace(TODAY, architecture=replace(PUBLISHED, moves="relative")),
    "spatial": BASE,
    "spatial, batches of 2": replace(BASE, batch_size=2, learning_rate=1e-3),
    "spatial, logit moves": replace(BASE, architecture=replace(SPATIAL, moves="logit")),
    "spatial, mean alone": replace(BASE, architecture=replace(SPATIAL, placed=False)),
    "spatial, 1x": replace(BASE, architecture=replace(SPATIAL, enlargement=1.0)),
    "spatial, 1.25x": replace(BASE, architecture=replace(SPATIAL, enlargement=1.25)),
    "spatial, 2x": replace(BASE, architecture=replace(SPATIAL, enlargement=2.0)),
    "spatial, all matches": replace(BASE, least_overlap=0.0),
    "spatial, random start": BASE,
    "spatial, laterals": replace(BASE, architecture=replace(SPATIAL, smoothed=False)),
    "spatial, no jitter": replace(BASE, jitter=0),
    "spatial, 4 jittered": replace(BASE, jitter=4),
    "spatial, 1 step": replace(BASE, steps=1),
    "spatial, 3 steps": replace(BASE, steps=3),
    "spatial, 7 cells": replace(BASE, architecture=replace(SPATIAL, cells=7)),
    "spatial, weight decay 0.1": replace(BASE, weight_decay=0.1),
    "spatial, stem": replace(BASE, architecture=replace(SPATIAL, stem=True)),
}
PARTS: dict[str, parts.Part] = {
    "even jitter": parts.even_jitter,
    "positives from 0.5": parts.every_prediction("0.5"),
    "positives by ATSS": parts.every_prediction("atss"),
    "adjacent levels": parts.adjacent_levels,
    "BiFPN x 1": parts.bifpn(1),
    "BiFPN x 2": parts.bifpn(2),
    "BiFPN x 3": parts.bifpn(3),
    "output convolutions in 4 groups": parts.grouped(4),
    "size S": parts.sized(32, 2),
    "size L": parts.sized(96, 4),
    "size XL": parts.sized(128, 5),
    "dropout of 0.3": parts.dropped(0.3),
    "distance x 3": parts.weighted(3, 2),
    "distance alone": parts.weighted(1, 0),
    "GIoU alone": parts.weighted(0, 2),
}
VARIANTS |= {f"spatial, {name}": BASE for name in PARTS}
WHOLE_MAPS = ("BiFPN",)  # whose normalisation needs the cells that a cache leaves out


def trained(detector: Detector, lessons: Lessons, variant: str, settings: Settings) -> Learner:
    """A refiner after all its epochs, as :mod:`refinebox.training.train` makes it."""
    learner = Learner.start(detector, settings)
    if variant == "spatial, random start":
        learner.refiner.bboxes_refiner.bboxes_deltas.reset_parameters()
        learner.averaged.load_state_dict(learner.refiner.state_dict())
    steps = len(lessons.steps())
    for epoch in range(settings.epochs):
        for place, batches in enumerate(lessons.batches(epoch)):
            learner.set_rate(settings.rate(epoch * steps + place, settings.epochs * steps))
            learner.step(lessons.observe, batches, settings, epoch)
    return learner


@torch.no_grad()
def rows_of(detector: Detector, refiner: Refiner, data: CocoData, link: Link) -> dict[str, Rows]:
    """``before``, ``clipped`` (the detector's own boxes cut at the borders), and ``after``."""
    model = RefinedDetector(detector, refiner)
    found = []
    for batch in evaluation_batches(detector, data, link, batch_size=4, workers=0, description="evaluate"):
        batch = batch.to(torch.device("cpu"))
        before = detector(batch.images, batch.sizes)
        free = replace(before, boxes=clipped(before.boxes))
        outputs = {"before": before, "clipped": free, "after": model.refined(before, batch.sizes)}
        scores = detector.scores(before.logits)
        found.append(
            {
                name: to_rows(detector.postprocess(scores, output.boxes, batch.original_sizes), batch.image_ids, link)
                for name, output in outputs.items()
            }
        )
    return combined(found)


def swapped(model: Detector, data: CocoData, link: Link) -> dict[str, Rows]:
    """Rows with perfect classes, boxes, both, and scores that rank boxes by their quality."""
    rows = swapped_rows(model, data, link, swaps=("class", "box", "both", "ranking"), batch_size=4)
    return {name: rows[name] for name in ("class", "box", "both", "ranking")}


def short(evaluate: Evaluator, rows: Rows) -> dict[str, float]:
    """AP, AP50, AP75 and AP90 in points."""
    thresholds = evaluate(rows).per_threshold
    values = {name: thresholds[threshold] or 0.0 for name, threshold in (("AP50", 0.5), ("AP75", 0.75), ("AP90", 0.9))}
    return {"AP": mean(value or 0.0 for value in thresholds.values())} | values


def run(
    detector: Detector,
    training: CocoData,
    validation: CocoData,
    cache: Path,
    variant: str,
    settings: Settings,
    *,
    oracle: bool = False,
) -> dict[str, Any]:
    """One training and what it gave; with ``oracle`` also what perfect predictions would, before and after."""
    stem = variant.startswith("spatial") and SPATIAL.suited(detector.strides).stem  # as all of its variants then
    settings = replace(settings, architecture=replace(settings.architecture, stem=stem or settings.architecture.stem))
    lessons = Lessons(detector, training, settings)
    if not any(part in variant for part in WHOLE_MAPS):
        lessons.cache = Cache(cache, math.inf, detector, lessons.dataset, WIDEST, pixels=lessons.pixels)
    start = time.process_time()
    learner = trained(detector, lessons, variant, settings)
    seconds = time.process_time() - start
    refiner = learner.averaged if settings.average else learner.refiner
    link = Link.between(detector, validation)
    rows = rows_of(detector, refiner, validation, link)
    evaluate = Evaluator(validation)
    interval = difference(validation, rows["clipped"], rows["after"], resamples=300)
    return {
        "before": short(evaluate, rows["before"]),
        "clipped": short(evaluate, rows["clipped"]),
        "after": short(evaluate, rows["after"]),
        "oracle": {
            stage: {name: short(evaluate, found) for name, found in swapped(model, validation, link).items()}
            for stage, model in (("before", detector), ("after", RefinedDetector(detector, refiner)))
            if oracle
        },
        "interval": [interval.low, interval.high],
        "cpu_seconds": seconds,
        "parameters": parameters(learner.refiner),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--oracle", action="store_true", help="Also what perfect predictions would be worth.")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    if options.table:
        print(table(lines))
        return
    detector = load_detector(options.detector)
    training, validation = (annotations.read(*layout.find(options.data, split)) for split in ("train", "val"))
    for seed in options.seeds:
        for variant in options.variants:
            key = {
                "detector": Path(options.detector).stem,
                "data": options.data.name,
                "variant": variant,
                "seed": seed,
                "epochs": options.epochs,
            }
            if any(key.items() <= line.items() for line in lines):
                continue
            settings = replace(VARIANTS[variant], epochs=options.epochs, seed=seed)
            part = PARTS.get(variant.removeprefix("spatial, "), parts.plain)
            with part(detector):
                found = run(detector, training, validation, options.cache, variant, settings, oracle=options.oracle)
            line = {**key, **found, "settings": asdict(settings)}
            with options.results.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{key} AP {found['clipped']['AP']:.2f} → {found['after']['AP']:.2f}", flush=True)


def table(lines: Sequence[dict[str, Any]]) -> str:
    """A row for every data set, number of epochs and variant: means over the seeds."""
    rows = [
        "| detector, data, epochs | variant | seeds | AP | AP50 | AP75 | AP90 | gain | least interval | CPU s |",
        "|" + "---|" * 10,
    ]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["detector"], line["data"], line["epochs"]), []).append(line)
    for (detector, on, epochs), group in groups.items():
        data = f"{detector}, {on}"
        for stage in ("before", "clipped"):
            rows.append(f"| {data}, {epochs} | {stage} | | {figures([line[stage] for line in group[:1]])} | | | |")
        for variant in dict.fromkeys(line["variant"] for line in group):
            runs = [line for line in group if line["variant"] == variant]
            gains = [line["after"]["AP"] - line["clipped"]["AP"] for line in runs]
            low, high = min(line["interval"][0] for line in runs), max(line["interval"][1] for line in runs)
            seconds = mean(line["cpu_seconds"] for line in runs)
            shown = ", ".join(f"{gain:+.1f}" for gain in gains)
            after = figures([line["after"] for line in runs])
            rows.append(
                f"| {data}, {epochs} | {variant} | {len(runs)} | {after} | {shown} | {low:+.1f} to {high:+.1f} | "
                f"{seconds:.0f} |"
            )
    return "\n".join(rows)


def figures(found: Sequence[dict[str, float]]) -> str:
    """The means of AP and its kin, as cells of a table."""
    means: Callable[[str], float] = lambda name: mean(each[name] for each in found)  # noqa: E731
    return " | ".join(f"{means(name):.1f}" for name in ("AP", "AP50", "AP75", "AP90"))


if __name__ == "__main__":
    main()
