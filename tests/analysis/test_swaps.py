"""What each swap does to detections of which the answer is known."""

from dataclasses import replace

import numpy as np
import pytest
from known_boxes import ROWS, TRUTH
from random_boxes import draw_data, draw_rows

from refinebox.analysis.swaps import Findings, Swapped, swaps
from refinebox.data.annotations import CocoData
from refinebox.evaluation.evaluator import coco_ap
from refinebox.evaluation.overlaps import Objects, Overlaps
from refinebox.evaluation.rows import Rows

NAMES = [
    *("none", "class", "box", "both"),
    *("class_own_score", "ranking", "box_from_iou", "no_duplicates", "no_background", "no_misses"),
]
OBJECTS = (1, [0, 0, 20, 20]), (2, [50, 50, 20, 20]), (1, [150, 0, 20, 20])  # category id, xywh


def swapped(name: str, min_iou: float = 0.5, rows: Rows = ROWS, truth: CocoData = TRUTH) -> Swapped:
    (swap,) = (swap for swap in swaps(min_iou) if swap.name == name)
    return swap.apply(Findings.of(rows, Objects.of(truth)))


def changed(name: str, min_iou: float = 0.5) -> dict[int, list[float]]:
    """The rows that a swap changes, without their image."""
    after = swapped(name, min_iou).rows
    return {index: after[index, 1:].tolist() for index in np.flatnonzero((after != ROWS).any(1)).tolist()}


def test_swaps_have_names_and_meanings() -> None:
    assert [swap.name for swap in swaps()] == NAMES
    assert len({swap.title for swap in swaps()}) == len(NAMES)
    assert all(len(swap.meaning) > 15 for swap in swaps())


def test_nothing_changes_as_is() -> None:
    assert changed("none") == {}


def test_perfect_boxes_are_those_of_the_objects() -> None:
    assert changed("box") == {0: [0, 0, 20, 20, 0.9, 1], 4: [50, 50, 20, 20, 0.5, 2]}


@pytest.mark.parametrize(("min_iou", "expected"), [(0.2, {0, 4}), (0.5, {0}), (0.8, {0}), (0.9, {1}), (0.95, {1})])
def test_only_boxes_near_enough_are_perfect(min_iou: float, expected: set[int]) -> None:
    assert changed("box_from_iou", min_iou).keys() == expected


def test_perfect_classes_are_sure_or_keep_their_score() -> None:
    assert changed("class") == {0: [0, 0, 20, 16, 1, 1], 3: [50, 50, 20, 20, 1, 2]}
    assert changed("class_own_score") == {3: [50, 50, 20, 20, 0.6, 2]}


def test_both_are_perfect_at_once() -> None:
    assert changed("both") == {0: [0, 0, 20, 20, 1, 1], 4: [50, 50, 20, 20, 1, 2]}


def test_a_perfect_ranking_follows_the_overlaps() -> None:
    """The best placed of several detections comes first, however sure the others were; nothing else changes."""
    after = swapped("ranking").rows
    np.testing.assert_array_equal(np.delete(after, 5, axis=1), np.delete(ROWS, 5, axis=1))
    overlaps = Overlaps.between(ROWS, Objects.of(TRUTH))
    best = {}
    for detection, object_, iou, same in zip(
        overlaps.detection, overlaps.object, overlaps.iou, overlaps.same, strict=True
    ):
        if same and iou > best.get(object_, (0, -1))[0]:
            best[object_] = iou, detection
    chosen = {detection: iou for iou, detection in best.values()}
    for index, row in enumerate(after):
        expected = 1e-3 + 0.999 * chosen[index] if index in chosen else 1e-3 * ROWS[index, 5]
        assert row[5] == pytest.approx(expected)


def test_scores_above_one_stay_the_highest() -> None:
    rows = ROWS.copy()
    rows[:, 5] *= 30
    assert swapped("class", rows=rows).rows[[0, 3], 5].tolist() == [27, 27]


def test_duplicates_go_unless_they_are_better_placed() -> None:
    np.testing.assert_array_equal(swapped("no_duplicates").rows, ROWS[[0, 1, 3, 4, 5]])


def test_detections_of_nothing_go() -> None:
    np.testing.assert_array_equal(swapped("no_background").rows, ROWS[:5])


def test_objects_that_nothing_comes_near_go() -> None:
    found = swapped("no_misses")
    np.testing.assert_array_equal(found.rows, ROWS)
    assert found.objects.tolist() == [True, True, False]
    assert all(swapped(name).objects.all() for name in NAMES[:-1])


def test_what_lies_in_a_crowd_stays() -> None:
    crowd = {**TRUTH.annotations[0], "id": 4, "bbox": [90, 90, 60, 60], "category_id": 2, "iscrowd": 1}
    with_crowd = replace(TRUTH, annotations=[*TRUTH.annotations, crowd])
    np.testing.assert_array_equal(swapped("no_background", truth=with_crowd).rows, ROWS)


@pytest.mark.parametrize("name", NAMES)
def test_no_detections_are_no_obstacle(name: str) -> None:
    assert swapped(name, rows=ROWS[:0]).rows.shape == (0, 7)
    assert swapped(name, truth=replace(TRUTH, annotations=[])).objects.shape == (0,)


@pytest.mark.parametrize("seed", range(4))
def test_swaps_do_not_make_random_detections_worse(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = draw_data(random, images=8)
    rows = draw_rows(random, truth)
    kept = rows.copy()
    ap = {}
    for name in NAMES:
        found = swapped(name, rows=rows, truth=truth)
        objects = [entry for entry, stays in zip(truth.annotations, found.objects, strict=True) if stays]
        ap[name] = coco_ap(replace(truth, annotations=objects), found.rows)["AP"] or 0.0
    np.testing.assert_array_equal(rows, kept)
    assert all(
        ap[name] > ap["none"] for name in ("box", "both", "ranking", "box_from_iou", "no_background", "no_misses")
    ), ap
    assert ap["no_duplicates"] >= ap["none"] - 1e-9
    assert ap["class"] > ap["class_own_score"]
    assert ap["both"] >= max(ap.values()) - 1e-9
    assert ap["box"] >= ap["box_from_iou"]
