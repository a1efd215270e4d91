"""Which part of a recipe is worth what: trains one refiner for every variant and seed, and evaluates it once.

Variants of the recipe are settings; what other systems have and this package has not comes from ``trial_parts.py``.

    python scripts/ablate.py --detector bccd.safetensors --data bccd --results ablation.jsonl --variants 0.1.0 default \
        --seeds 0 1 2

Every finished run is a line of the results file; several processes may share it, and none begins what another has
begun. The frozen detector sees every image once, which is then kept in memory. The averaged weights of the last epoch
are what is evaluated: validation images choose nothing. ``--table`` prints what the file holds.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import trial_parts as parts
from remembered import Memory, Seen, predicted

from refinebox.analysis.oracle import swapped_rows
from refinebox.data import annotations, layout
from refinebox.data.annotations import CocoData
from refinebox.detection.detector import Detector
from refinebox.detection.zoo import load_detector
from refinebox.evaluation.bootstrap import difference
from refinebox.evaluation.detect import combined
from refinebox.evaluation.evaluator import Evaluator
from refinebox.evaluation.link import Link
from refinebox.evaluation.rows import Rows, to_rows
from refinebox.refinement.architecture import PUBLISHED, SPATIAL
from refinebox.refinement.cost import parameters
from refinebox.refinement.move import clipped
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner
from refinebox.training import settings as recipes
from refinebox.training.learner import Learner
from refinebox.training.lessons import Lessons
from refinebox.training.settings import Settings

BASE = Settings(augmentation="flip", variants=2)
FIRST = replace(BASE, architecture=PUBLISHED, least_overlap=0.0, steps=3)


@dataclass(frozen=True)
class Variant:
    """Settings, and a part that is not in the package."""

    settings: Settings = BASE
    part: parts.Part = parts.plain


def other(part: parts.Part = parts.plain, **changed: Any) -> Variant:
    """The default with other settings, other parts of its architecture, or a part that is not in the package."""
    own = {name: value for name, value in changed.items() if hasattr(SPATIAL, name)}
    rest = {name: value for name, value in changed.items() if name not in own}
    return Variant(replace(BASE, architecture=replace(SPATIAL, **own), **rest), part)


VARIANTS: dict[str, Variant] = {
    "published": Variant(replace(recipes.PUBLISHED, augmentation="flip", variants=2)),
    "0.1.0": Variant(FIRST),
    "0.1.0, placed": Variant(replace(FIRST, architecture=replace(PUBLISHED, placed=True))),
    "0.1.0, 1.25x": Variant(replace(FIRST, architecture=replace(PUBLISHED, enlargement=1.25))),
    "0.1.0, relative": Variant(replace(FIRST, architecture=replace(PUBLISHED, moves="relative"))),
    "0.1.0, fused": Variant(replace(FIRST, architecture=replace(PUBLISHED, pyramid="fused"))),
    "default": Variant(),
    "FPN": other(pyramid="fpn"),
    "no 3x3 convolutions": other(part=parts.laterals_alone),
    "separable": other(part=parts.separable),
    "not normed": other(part=parts.not_normed),
    "groups normed": other(part=parts.normed_groups),
    "BiFPN x 1": other(part=parts.bifpn(1)),
    "BiFPN x 2": other(part=parts.bifpn(2)),
    "BiFPN x 3": other(part=parts.bifpn(3)),
    "adjacent levels": other(part=parts.adjacent_levels),
    "stem": other(stem=True),
    "1x": other(enlargement=1.0),
    "1.5x": other(enlargement=1.5),
    "2x": other(enlargement=2.0),
    "7 cells": other(cells=7),
    "mean alone": other(placed=False),
    "1 block": other(blocks=1),
    "3 blocks": other(blocks=3),
    "size S": other(part=parts.sized(32)),
    "size L": other(blocks=3, part=parts.sized(96)),
    "size XL": other(blocks=4, part=parts.sized(128)),
    "1 step": other(steps=1),
    "2 steps": other(steps=2),
    "4 steps": other(steps=4),
    "mean of the last two steps": other(part=parts.settled),
    "logit moves": other(moves="logit"),
    "moves of edges": other(part=parts.by_edges(parts.BoxHead)),
    "moves of edges, distributions": other(part=parts.by_edges(parts.Distributed)),
    "random start": other(part=parts.random_start),
    "no jitter": other(jitter=0),
    "1 jittered": other(jitter=1),
    "4 jittered": other(jitter=4),
    "jitter of 0.1": other(part=parts.jittered_by(0.1)),
    "jitter of 0.25": other(part=parts.jittered_by(0.25)),
    "even jitter": other(part=parts.even_jitter),
    "all matches": other(least_overlap=0.0),
    "positives from 0.5": other(part=parts.every_prediction("0.5")),
    "positives by ATSS": other(part=parts.every_prediction("atss")),
    "distance x 3": other(part=parts.weighted(3, 2)),
    "distance alone": other(part=parts.weighted(1, 0)),
    "GIoU alone": other(part=parts.weighted(0, 2)),
    "weight decay 0.1": other(weight_decay=0.1),
    "dropout of 0.3": other(part=parts.dropped(0.3)),
    "batches of 2": other(batch_size=2, learning_rate=1e-3),
}


def trained(detector: Detector, lessons: Lessons, memory: Memory, settings: Settings) -> Learner:
    """A refiner after all its epochs, as :mod:`refinebox.training.train` makes it."""
    learner = Learner.start(detector, settings)
    steps = len(lessons.steps())
    for epoch in range(settings.epochs):
        for place, batches in enumerate(memory.batches(lessons, epoch)):
            learner.set_rate(settings.rate(epoch * steps + place, settings.epochs * steps))
            learner.step(lambda batch: batch.observation, batches, settings, epoch)
    return learner


@torch.no_grad()
def rows_of(detector: Detector, refiner: Refiner, seen: Seen, link: Link) -> dict[str, Rows]:
    """``before``, ``clipped`` (the detector's own boxes cut at the borders), and ``after``."""
    model = RefinedDetector(detector, refiner)
    found = []
    for batch, before in seen:
        outputs = {
            "before": before,
            "clipped": replace(before, boxes=clipped(before.boxes)),
            "after": model.refined(before, batch.sizes),
        }
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


class Bench:
    """A frozen detector and data, and what it sees of them: each image once, however many refiners follow."""

    def __init__(self, detector: Detector, folder: Path) -> None:
        self.detector = detector
        self.training, self.validation = (annotations.read(*layout.find(folder, split)) for split in ("train", "val"))
        self.link = Link.between(detector, self.validation)
        self.seen = predicted(detector, self.validation, self.link)
        self.evaluate = Evaluator(self.validation)
        self.memories: dict[str, Memory] = {}

    def memory(self, lessons: Lessons, part: str) -> Memory:
        """What the detector saw of the training images, as ``part`` matches it."""
        key = f"{part} {lessons.settings.architecture.stem}"
        if key not in self.memories:
            self.memories[key] = Memory(lessons, pixels=lessons.pixels)
        return self.memories[key]

    def run(self, name: str, settings: Settings, *, oracle: bool = False) -> dict[str, Any]:
        """One training and what it gave; with ``oracle`` also what perfect predictions would, before and after."""
        stem = settings.architecture.suited(self.detector.strides).stem
        settings = replace(settings, architecture=replace(settings.architecture, stem=stem))
        lessons = Lessons(self.detector, self.training, settings)
        memory = self.memory(lessons, name if "positives" in name else "")
        start, cpu = time.monotonic(), time.process_time()
        learner = trained(self.detector, lessons, memory, settings)
        seconds, cpu_seconds = time.monotonic() - start, time.process_time() - cpu
        refiner = learner.averaged if settings.average else learner.refiner
        rows = rows_of(self.detector, refiner, self.seen, self.link)
        interval = difference(self.validation, rows["clipped"], rows["after"], resamples=300)
        return {
            **{stage: short(self.evaluate, rows[stage]) for stage in ("before", "clipped", "after")},
            "oracle": {
                stage: {
                    swap: short(self.evaluate, found)
                    for swap, found in swapped(model, self.validation, self.link).items()
                }
                for stage, model in (("before", self.detector), ("after", RefinedDetector(self.detector, refiner)))
                if oracle
            },
            "interval": [interval.low, interval.high],
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "parameters": parameters(learner.refiner),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--oracle", action="store_true", help="Also what perfect predictions would be worth.")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        print(table([json.loads(line) for line in options.results.read_text().splitlines()]))
        return
    bench = Bench(load_detector(options.detector).to(options.device), options.data)
    for seed in options.seeds:
        for name in options.variants:
            variant = VARIANTS[name]
            key = {
                "detector": Path(options.detector).stem,
                "data": options.data.name,
                "variant": name,
                "seed": seed,
                "epochs": options.epochs,
            }
            if not claimed(options.results, key):
                continue
            settings = replace(variant.settings, epochs=options.epochs, seed=seed)
            with variant.part(bench.detector):
                found = bench.run(name, settings, oracle=options.oracle)
            line = {**key, **found, "device": options.device, "settings": asdict(settings)}
            with options.results.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{key} AP {found['clipped']['AP']:.2f} → {found['after']['AP']:.2f}", flush=True)


def claimed(results: Path, key: dict[str, Any]) -> bool:
    """Whether this process is the first to ask for a run, of all that write to ``results``; says so if not."""
    taken = results.with_suffix(".claims") / "-".join(str(value).replace(" ", "_") for value in key.values())
    taken.parent.mkdir(parents=True, exist_ok=True)
    try:
        taken.touch(exist_ok=False)
    except FileExistsError:
        print(f"{taken.name} has been begun already; if it never ended, remove {taken}", flush=True)
        return False
    return True


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
