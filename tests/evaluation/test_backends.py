"""hotcoco, faster-coco-eval and pycocotools on data of every oddity: the same numbers."""

import contextlib
import copy
import io
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from random_boxes import SIDE

from refinebox.data.annotations import CocoData
from refinebox.evaluation import backends
from refinebox.evaluation.backends import FasterCocoEval, Hotcoco
from refinebox.evaluation.evaluator import Evaluator
from refinebox.evaluation.rows import Rows

IMAGES = (0, 3, 4, 900, 581_929, 2**31 + 5, 2**53)
CATEGORIES = {0: "none", 1: "one", 7: "seven", 90: "ninety", 10**7: "many"}
CROWDED = 900  # id of the image with more detections of a category than count
AREAS = (1024, 1023.9999999, 9216, 9216.0000001, 0, 1e10)  # at COCO's limits of sizes, and none of the box's
BOUND = 2.3e-16  # what pycocotools adds to the denominator of a precision


def draw_boxes(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """``[count, 4]`` xywh, some outside of the image, in whole pixels, which tie, or in fractions."""
    sides = np.exp(random.uniform(np.log(2), np.log(400), (count, 2)))
    boxes = np.concatenate([random.uniform(-0.2, 1.2, (count, 2)) * (SIDE - sides), sides], axis=1)
    return boxes.round() if random.random() < 0.5 else boxes


def draw_data(random: np.random.Generator) -> CocoData:
    """Objects in some images, with crowds, objects that are there twice, and ids in no order."""
    objects: list[dict[str, Any]] = []
    for image_id in random.permutation(IMAGES)[1:].tolist():
        for box in draw_boxes(random, int(random.integers(1, 25))).tolist():
            area = random.choice(AREAS) if random.random() < 0.2 else box[2] * box[3] * random.uniform(0.3, 1)
            category = int(random.choice(list(CATEGORIES)[1:]))
            crowd = int(random.random() < 0.2)
            entry = {"image_id": image_id, "category_id": category, "bbox": box, "area": float(area), "iscrowd": crowd}
            objects += [entry, dict(entry)] if random.random() < 0.1 else [entry]
    numbers = random.permutation(10 * len(objects))[: len(objects)] + 1
    numbered = [{**entry, "id": int(number)} for entry, number in zip(objects, numbers, strict=True)]
    entries = [{"id": image_id, "file_name": f"{image_id}.png", "height": SIDE, "width": SIDE} for image_id in IMAGES]
    return CocoData(entries, numbered, CATEGORIES, Path(), {})


def draw_rows(random: np.random.Generator, data: CocoData) -> Rows:
    """Shifted and unshifted objects, without area too, wrong categories, false alarms, and scores that tie."""
    rows: list[list[float]] = []
    for entry in data.annotations:
        for _ in range(random.integers(0, 4)):
            box = np.array(entry["bbox"])
            box += random.normal(0, random.choice([0, 0.05, 0.1]), 4) * np.tile(box[2:], 2)
            box[2:] = np.abs(box[2:]) * (random.random(2) > 0.03)
            category = entry["category_id"] if random.random() < 0.9 else random.choice(list(CATEGORIES))
            rows.append([entry["image_id"], *box, random.integers(-1, 12) / 10, category])
    for image_id in IMAGES:
        for box in draw_boxes(random, 700 if image_id == CROWDED else int(random.integers(0, 20))):
            rows.append([image_id, *box, random.integers(0, 4) / 10, random.choice(list(CATEGORIES))])
    return random.permutation(np.array(rows))


def reference(data: CocoData, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """pycocotools' precision and recall at 100 detections."""
    found = [
        {"id": place + 1, "image_id": int(row[0]), "bbox": row[1:5], "score": row[5], "category_id": int(row[6])}
        | {"area": row[3] * row[4], "iscrowd": 0}
        for place, row in enumerate(rows.tolist())
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth, detections = COCO(), COCO()
        truth.dataset = copy.deepcopy(data.coco())
        detections.dataset = {**truth.dataset, "annotations": found}
        truth.createIndex()
        detections.createIndex()
        evaluation = COCOeval(truth, detections, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., 2], evaluation.eval["recall"][..., 2]


def assert_equal(data: CocoData, rows: Rows) -> None:
    """hotcoco equals pycocotools bit for bit, faster-coco-eval to pycocotools' own epsilon."""
    precision, recall = reference(data, rows)
    for backend, bound in ((Hotcoco, 0), (FasterCocoEval, BOUND)):
        found = backend(data, lvis=False)(rows)
        np.testing.assert_array_equal(found[1], recall, err_msg=str(backend))
        np.testing.assert_allclose(found[0], precision, rtol=0, atol=bound, err_msg=str(backend))


@pytest.mark.parametrize("seed", range(12))
def test_all_three_are_equal_on_hostile_data(seed: int) -> None:
    random = np.random.default_rng(seed)
    data = draw_data(random)
    assert_equal(data, draw_rows(random, data))


def test_the_data_are_hostile() -> None:
    random = np.random.default_rng(0)
    data = draw_data(random)
    rows = draw_rows(random, data)
    assert {entry["iscrowd"] for entry in data.annotations} == {0, 1}
    assert len({entry["image_id"] for entry in data.annotations}) < len(IMAGES)
    assert max(np.unique(rows[rows[:, 0] == CROWDED][:, 6], return_counts=True)[1]) > 100
    assert len(np.unique(rows[:, 5])) < 15
    assert (rows[:, 3:5] == 0).any()
    assert (rows[:, 1] < 0).any()
    assert {entry["area"] for entry in data.annotations} & set(AREAS)
    boxes = [(entry["image_id"], *entry["bbox"]) for entry in data.annotations]
    assert len(set(boxes)) < len(boxes)
    precision, _ = reference(data, rows)
    assert 0.1 < precision[precision > -1].mean() < 0.9


def test_all_three_are_equal_where_something_lacks() -> None:
    random = np.random.default_rng(1)
    data = draw_data(random)
    rows, nothing = draw_rows(random, data), np.empty((0, 7))
    crowds = [{**entry, "iscrowd": 1} for entry in data.annotations]
    assert_equal(data, nothing)
    assert_equal(replace(data, annotations=[]), rows)
    assert_equal(replace(data, annotations=[]), nothing)
    assert_equal(replace(data, annotations=crowds), rows)
    assert_equal(replace(data, categories={7: "seven"}, annotations=[]), rows[rows[:, 6] == 7])


@pytest.mark.parametrize("backend", [Hotcoco, FasterCocoEval])
def test_rows_stay_the_callers(backend: type[backends.Backend]) -> None:
    random = np.random.default_rng(2)
    data = draw_data(random)
    rows = draw_rows(random, data)
    kept = rows.copy()
    evaluate = Evaluator(data, backend=backend)
    first = evaluate(rows)
    np.testing.assert_array_equal(rows, kept)
    rows[:] = 0  # nor does an evaluator keep a view of them
    assert evaluate(kept[::2]) == Evaluator(data, backend=backend)(kept[::2])
    assert evaluate(kept) == first


def test_the_fastest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    data = draw_data(np.random.default_rng(3))
    assert backends.best() is Hotcoco
    assert Evaluator(data).backend.name.startswith("hotcoco 1.")
    old = ModuleType("hotcoco")
    old.COCO = type("COCO", (), {})  # type: ignore[attr-defined]
    for module in (None, old):  # not installed, and before it took arrays
        monkeypatch.setitem(sys.modules, "hotcoco", module)
        assert backends.best() is FasterCocoEval
        assert Evaluator(data).backend.name.startswith("faster-coco-eval 1.")
