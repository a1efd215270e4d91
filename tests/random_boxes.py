"""Random objects and detections of every oddity, and pycocotools as the judge of them."""

import contextlib
import copy
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from refinebox.data.annotations import CocoData
from refinebox.evaluation.rows import Rows, to_results

SIDE = 640
CATEGORIES = {2: "cup", 5: "bowl", 90: "knife"}
FREQUENCIES = {2: "r", 5: "c", 90: "f"}  # of LVIS
EMPTY, CROWDED = 3, 4  # ids of the image without objects and of the one with the most detections


def draw_boxes(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """``[count, 4]`` xywh in pixels, of all three of COCO's sizes."""
    sides = np.exp(random.uniform(np.log(6), np.log(300), (count, 2)))
    corners = random.uniform(0, 1, (count, 2)) * (SIDE - sides)
    return np.concatenate([corners, sides], axis=1)


def draw_data(random: np.random.Generator, images: int = 6) -> CocoData:
    annotations: list[dict[str, Any]] = []
    for image_id in set(range(1, images + 1)) - {EMPTY}:
        for box in draw_boxes(random, 12):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(random.choice(list(CATEGORIES))),
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3] * random.uniform(0.6, 1)),
                    "iscrowd": int(random.random() < 0.2),
                }
            )
    entries = [
        {"id": image_id, "file_name": f"{image_id}.png", "height": SIDE, "width": SIDE}
        for image_id in range(1, images + 1)
    ]
    return CocoData(entries, annotations, CATEGORIES, Path(), {})


def draw_rows(random: np.random.Generator, truth: CocoData) -> Rows:
    """Shifted objects, some with a wrong category, and false alarms; scores tie, and one image has very many."""
    rows: list[list[float]] = []
    for entry in truth.annotations:
        for _ in range(random.integers(0, 3)):
            box = np.array(entry["bbox"])
            box += random.normal(0, 0.08, 4) * np.tile(box[2:], 2)
            category_id = entry["category_id"] if random.random() < 0.9 else random.choice(list(CATEGORIES))
            rows.append([entry["image_id"], *box, random.integers(2, 11) / 10, category_id])
    for image in truth.images:
        for box in draw_boxes(random, 450 if image["id"] == CROWDED else 5):
            rows.append([image["id"], *box, random.integers(1, 4) / 10, random.choice(list(CATEGORIES))])
    return random.permutation(np.array(rows))


def draw_lvis(seed: int) -> tuple[CocoData, Rows]:
    """Federated annotations: a category is looked for in some images only, and not always to the last object."""
    random = np.random.default_rng(seed)
    drawn = draw_data(random, images=10)
    rows = draw_rows(random, drawn)
    rows[:, 5] = random.permutation(len(rows)) / len(rows)  # which of equal scores are the best 300 is not defined
    present = {(entry["image_id"], entry["category_id"]) for entry in drawn.annotations}
    images = []
    for entry in drawn.images:
        absent = [c for c in CATEGORIES if (entry["id"], c) not in present and random.random() < 0.7]
        partial = [c for c in CATEGORIES if (entry["id"], c) in present and random.random() < 0.3]
        images.append({**entry, "neg_category_ids": absent, "not_exhaustive_category_ids": partial})
    annotations = [{**entry, "iscrowd": 0} for entry in drawn.annotations]
    return replace(drawn, images=images, annotations=annotations, frequencies=FREQUENCIES), rows


def reference(truth: CocoData, rows: Rows) -> list[float]:
    """pycocotools' twelve numbers."""
    return [float(value) for value in judged(truth, rows).stats]


def judged(truth: CocoData, rows: Rows) -> COCOeval:
    """pycocotools' evaluation, finished."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = copy.deepcopy(truth.coco())
        ground.createIndex()
        evaluation = COCOeval(ground, ground.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def worse(data: CocoData, seed: int = 0, shift: float = 0.1) -> list[dict[str, Any]]:
    """Results in which most objects are found, loosely."""
    random = np.random.default_rng(seed)
    rows = np.array([[a["image_id"], *a["bbox"], 0.5, a["category_id"]] for a in data.annotations], dtype=float)
    rows[:, 1:5] += random.normal(0, shift, (len(rows), 4)) * rows[:, [3, 4, 3, 4]]
    rows[:, 5] = random.uniform(0.1, 1, len(rows))
    return to_results(rows[1:])
