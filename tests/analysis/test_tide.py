"""TIDE's errors, by hand and against tidecv."""

import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_boxes import CROWDED, draw_data, draw_lvis, draw_rows

from refinebox.analysis import tide
from refinebox.analysis.tide import Kind
from refinebox.data import annotations
from refinebox.data.annotations import CocoData
from refinebox.evaluation import precision
from refinebox.evaluation.evaluator import Evaluator, coco_ap
from refinebox.evaluation.overlaps import Objects, Overlaps
from refinebox.evaluation.results import read_results
from refinebox.evaluation.rows import Rows, top

NAMES = {"class": "Cls", "box": "Loc", "both": "Both", "duplicate": "Dupe", "background": "Bkg", "missed": "Miss"}


def reference(truth: CocoData, rows: Rows, ignored: Iterable[tuple[int, int]] = ()) -> dict[str, Any]:
    """What tidecv says of the same detections, those of ``ignored`` images and categories aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own imports warn
        tidecv = pytest.importorskip("tidecv", reason="tidecv is not installed: pip install -e '.[test]'")
    objects, detections = tidecv.Data("objects"), tidecv.Data("detections")
    for image in truth.images:
        objects.add_image(image["id"], image["file_name"])
    for entry in truth.annotations:
        add = objects.add_ignore_region if entry["iscrowd"] else objects.add_ground_truth
        add(entry["image_id"], entry["category_id"], entry["bbox"])
    for image_id, category_id in ignored:
        objects.add_ignore_region(image_id, category_id)
    for row in rows.tolist():
        detections.add_detection(int(row[0]), int(row[6]), row[5], row[1:5])
    run = tidecv.TIDE().evaluate(objects, detections)
    counts, costs = run.count_errors(), run.fix_main_errors()
    errors = {kind.short_name: {"count": counts[kind], "dAP": costs[kind]} for kind in costs}
    return {"AP50": run.ap, "errors": {name: errors[short] for name, short in NAMES.items()}}


def drawn(seed: int) -> tuple[CocoData, Rows]:
    random = np.random.default_rng(seed)
    truth = draw_data(random, images=8)
    rows = draw_rows(random, truth)
    # scores that do not tie, and do not rank false alarms below everything else
    rows[:, 5] = random.permutation(len(rows)) / len(rows)
    return truth, rows


def analyse(truth: CocoData, rows: Rows) -> dict[str, Any]:
    return tide.analyse(Overlaps.between(rows, Objects.of(truth)))


@pytest.mark.parametrize("seed", range(6))
def test_errors_are_tidecvs(seed: int) -> None:
    truth, rows = drawn(seed)
    found, expected = analyse(truth, rows), reference(truth, rows)
    assert found["detections"] == 100
    assert found["AP50"] == pytest.approx(expected["AP50"], abs=1e-9)
    for name, error in expected["errors"].items():
        assert found["errors"][name]["count"] == error["count"], name
        assert found["errors"][name]["dAP"] == pytest.approx(error["dAP"], abs=1e-9), name


@pytest.mark.parametrize("seed", range(3))
def test_errors_of_lvis_are_tidecvs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which leaves out regions; here they are whole images of the categories that were not looked for in them."""
    truth, rows = draw_lvis(seed)
    rows = rows[top(rows, tide.DETECTIONS, each_category=False)]
    present = {(entry["image_id"], entry["category_id"]) for entry in truth.annotations}
    ignored = {
        (entry["id"], category)
        for entry in truth.images
        for category in truth.categories
        if category in entry["not_exhaustive_category_ids"]
        or not (category in entry["neg_category_ids"] or (entry["id"], category) in present)
    }
    overlaps = Overlaps.between(rows, Objects.of(truth, lvis=True))
    whole = Evaluator(truth, lvis=True)(rows).metrics["AP50"]
    assert tide.analyse(overlaps)["AP50"] == pytest.approx(whole, abs=1e-9)
    monkeypatch.setattr(precision, "RECALLS", np.arange(101) / 100)
    found, expected = tide.analyse(overlaps), reference(truth, rows, ignored)
    assert found["AP50"] == pytest.approx(expected["AP50"], abs=1e-9)
    for name, error in expected["errors"].items():
        assert found["errors"][name]["dAP"] == pytest.approx(error["dAP"], abs=1e-9), name
        assert found["errors"][name]["count"] <= error["count"], name
    assert found["errors"]["background"]["count"] < expected["errors"]["background"]["count"]


@pytest.mark.parametrize("where", ["neg_category_ids", "not_exhaustive_category_ids", None])
def test_lvis_counts_a_stray_detection_where_its_category_was_looked_for(where: str | None) -> None:
    data = draw_data(np.random.default_rng(0))
    fields: dict[str, Any] = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    images = [{**entry, **fields, **({where: [5]} if where else {})} for entry in data.images]
    kept = [{**entry, "category_id": 2, "iscrowd": 0} for entry in data.annotations]
    truth = replace(data, images=images, annotations=kept)
    stray = Overlaps.between(np.array([[1, 630, 630, 1, 1, 0.9, 5]]), Objects.of(truth, lvis=True))
    assert tide.analyse(stray)["detections"] == 300
    assert tide.analyse(stray)["errors"]["background"]["count"] == (where == "neg_category_ids")


@pytest.mark.parametrize("name", ["yolox_nano", "nanodet_m"])
def test_errors_of_real_detectors_are_tidecvs(name: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared / "data" / "coco-mini"
    truth = annotations.read(folder / "annotations" / "instances_val2017.json", folder / "val2017")
    rows = read_results(folder / "detections" / f"{name}_val2017.json", truth)
    # without what tells the two apart: ties, categories without objects, and the last bit of the recalls
    rows = rows[np.isin(rows[:, 6], [entry["category_id"] for entry in truth.annotations if not entry["iscrowd"]])]
    rows[np.lexsort((rows[:, 0], -rows[:, 5])), 5] = 1 - np.arange(len(rows)) / len(rows)
    monkeypatch.setattr(precision, "RECALLS", np.arange(101) / 100)
    found, expected = analyse(truth, rows), reference(truth, rows)
    assert found["AP50"] == pytest.approx(expected["AP50"], abs=1e-9)
    for kind, error in expected["errors"].items():
        assert found["errors"][kind] == pytest.approx(error, abs=1e-9), kind


def test_every_type_of_error_occurs_in_what_is_compared() -> None:
    totals = {name: [0, 0.0] for name in NAMES}
    for seed in range(6):
        for name, error in analyse(*drawn(seed))["errors"].items():
            totals[name] = [totals[name][0] + error["count"], totals[name][1] + error["dAP"]]
    assert all(count > 5 and cost > 0 for count, cost in totals.values()), totals


def test_categories_with_detections_alone_do_not_count_as_in_coco_and_unlike_tidecv() -> None:
    truth, rows = drawn(0)
    rows = rows[rows[:, 0] != CROWDED]  # TIDE looks at 100 detections of an image, COCO at 100 of each category
    fewer = replace(truth, annotations=[entry for entry in truth.annotations if entry["category_id"] != 90])
    found, other = analyse(fewer, rows)["AP50"], reference(fewer, rows)["AP50"]
    assert found == pytest.approx(coco_ap(fewer, rows)["AP50"], abs=1e-9)
    assert other == pytest.approx(found * 2 / 3)  # one of three categories has an AP of 0


def objects_at(*boxes: list[float], crowd: bool = False) -> CocoData:
    annotations = [
        {"id": n, "image_id": 1, "category_id": n, "bbox": box, "area": box[2] * box[3], "iscrowd": int(crowd)}
        for n, box in enumerate(boxes, start=1)
    ]
    image = {"id": 1, "file_name": "1.png", "width": 200, "height": 200}
    return replace(
        draw_data(np.random.default_rng(0)), images=[image], annotations=annotations, categories={1: "a", 2: "b"}
    )


@pytest.mark.parametrize(
    ("box", "category", "kind"),
    [
        ([0, 0, 10, 10], 1, Kind.DUPLICATE),
        ([0, 0, 10, 10], 2, Kind.CLASS),
        ([0, 0, 10, 4], 1, Kind.BOX),
        ([0, 0, 10, 4], 2, Kind.BOTH),
        ([90, 90, 10, 10], 1, Kind.BACKGROUND),
        ([50, 50, 10, 10], 2, Kind.RIGHT),
        ([50, 50, 10, 5], 2, Kind.RIGHT),  # at exactly 0.5
    ],
)
def test_a_detection_by_hand(box: list[float], category: int, kind: Kind) -> None:
    truth = objects_at([0, 0, 10, 10], [50, 50, 10, 10])
    rows = np.array([[1, 0, 0, 10, 10, 0.9, 1], [1, *box, 0.5, category]])
    errors = tide.classify(Overlaps.between(rows, Objects.of(truth)))
    assert errors.kind.tolist() == [Kind.RIGHT, kind]
    assert errors.missed.tolist() == [False, kind != Kind.RIGHT]


def test_detections_in_a_crowd_do_not_count() -> None:
    truth = objects_at([0, 0, 50, 50], crowd=True)
    errors = tide.classify(Overlaps.between(np.array([[1, 5, 5, 9, 9, 0.9, 1]]), Objects.of(truth)))
    assert errors.ignored.tolist() == [True]
    assert errors.missed.tolist() == [False]


def test_nothing_detected_is_all_missed() -> None:
    truth = draw_data(np.random.default_rng(0))
    found = analyse(truth, np.empty((0, 7)))
    assert found["AP50"] == 0
    assert found["errors"]["missed"]["count"] == sum(not entry["iscrowd"] for entry in truth.annotations)


def test_nothing_to_find_has_no_cost() -> None:
    found = analyse(replace(draw_data(np.random.default_rng(0)), annotations=[]), np.array([[1, 5, 5, 9, 9, 0.5, 2]]))
    assert found["AP50"] == 0
    assert {name: error["dAP"] for name, error in found["errors"].items()} == dict.fromkeys(NAMES, 0)
    assert found["errors"]["background"]["count"] == 1
