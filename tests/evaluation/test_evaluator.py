"""AP against pycocotools, and the way from detections to result rows."""

from dataclasses import replace

import numpy as np
import pytest
from random_boxes import CATEGORIES, CROWDED, EMPTY, draw_data, draw_rows, judged, reference

from refinebox.data.annotations import CocoData
from refinebox.evaluation.evaluator import METRICS, Evaluator, coco_ap


@pytest.mark.parametrize("seed", range(4))
def test_ap_equals_pycocotools_but_for_rounding(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = draw_data(random)
    rows = draw_rows(random, truth)
    expected = reference(truth, rows)
    wanted = {name: 100 * expected[place] for name, place in METRICS.items()}
    assert coco_ap(truth, rows) == pytest.approx(wanted, rel=0, abs=1e-12)


def test_the_generated_data_are_as_odd_as_they_should_be() -> None:
    random = np.random.default_rng(0)
    truth = draw_data(random)
    rows = draw_rows(random, truth)
    crowded = rows[rows[:, 0] == CROWDED]
    assert any(entry["iscrowd"] for entry in truth.annotations)
    assert EMPTY not in {entry["image_id"] for entry in truth.annotations}
    assert EMPTY in rows[:, 0]
    assert max(np.unique(crowded[:, 6], return_counts=True)[1]) > 100
    assert len(np.unique(rows[:, 5])) == 10
    assert 20 < 100 * reference(truth, rows)[0] < 80
    assert min(reference(truth, rows)) > 0


def test_the_order_of_the_rows_of_one_image_does_not_move_those_of_another() -> None:
    random = np.random.default_rng(1)
    truth = draw_data(random)
    rows = draw_rows(random, truth)
    grouped = rows[np.argsort(rows[:, 0], kind="stable")]
    assert coco_ap(truth, grouped) == coco_ap(truth, rows)


def test_evaluation_changes_neither_data_nor_rows() -> None:
    random = np.random.default_rng(2)
    truth = draw_data(random)
    rows = draw_rows(random, truth)
    kept_truth, kept_rows = repr(truth), rows.copy()
    coco_ap(truth, rows)
    assert repr(truth) == kept_truth
    np.testing.assert_array_equal(rows, kept_rows)


def test_perfect_rows_are_worth_100_points() -> None:
    truth = draw_data(np.random.default_rng(0))
    rows = np.array([[e["image_id"], *e["bbox"], 1.0, e["category_id"]] for e in truth.annotations if not e["iscrowd"]])
    assert coco_ap(truth, rows)["AP"] == pytest.approx(100)


def test_no_detections_are_an_ap_of_zero() -> None:
    truth = draw_data(np.random.default_rng(0))
    assert coco_ap(truth, np.empty((0, 7))) == dict.fromkeys(METRICS, 0.0)


def one_size(side: float) -> CocoData:
    truth = draw_data(np.random.default_rng(0), images=1)
    box = {"bbox": [10.0, 10.0, side, side], "area": side * side}
    return replace(truth, annotations=[{**truth.annotations[0], **box, "iscrowd": 0}])


@pytest.mark.parametrize(("side", "name"), [(20, "APs"), (60, "APm"), (200, "APl")])
@pytest.mark.parametrize("found", [True, False])
def test_sizes_that_do_not_occur_have_no_ap(found: bool, side: float, name: str) -> None:
    truth = one_size(side)
    row = [1, *truth.annotations[0]["bbox"], 0.5, truth.annotations[0]["category_id"]]
    metrics = coco_ap(truth, np.array([row]) if found else np.empty((0, 7)))
    assert {size for size in ("APs", "APm", "APl") if metrics[size] is not None} == {name}
    assert metrics[name] == metrics["AP"] == pytest.approx(100 if found else 0)


def test_data_without_objects_have_no_ap() -> None:
    truth = replace(draw_data(np.random.default_rng(0)), annotations=[])
    assert coco_ap(truth, np.array([[1, 5, 5, 9, 9, 0.5, 2]])) == dict.fromkeys(METRICS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", range(1, 6))
def test_rows_that_are_not_finite_are_an_error(column: int, value: float) -> None:
    rows = np.array([[1.0, 5, 5, 9, 9, 0.5, 2], [4, 5, 5, 9, 9, 0.5, 2]])
    rows[1, column] = value
    with pytest.raises(
        ValueError, match=r"^a detection in image 4 is not finite; check the detector's weights, or train "
    ):
        coco_ap(draw_data(np.random.default_rng(0)), rows)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (0, r"^detections name image ids that the data does not have: 70, 71, 72, 73, 74$"),
        (6, r"^detections name category ids that the data does not have: 70, 71, 72, 73, 74$"),
    ],
)
def test_unknown_ids_are_an_error(column: int, expected: str) -> None:
    rows = np.tile(np.array([1.0, 5, 5, 9, 9, 0.5, 2]), (7, 1))
    rows[1:, column] = range(70, 76)
    with pytest.raises(ValueError, match=expected):
        coco_ap(draw_data(np.random.default_rng(0)), rows)


def test_each_category_and_threshold_is_pycocotools() -> None:
    random = np.random.default_rng(5)
    truth = draw_data(random)
    rows = draw_rows(random, truth)
    found, expected = Evaluator(truth)(rows), judged(truth, rows).eval
    for place, category_id in enumerate(CATEGORIES):
        precision, recall = 100 * expected["precision"][:, :, place, :, 2], 100 * expected["recall"][:, place, 0, 2]
        wanted = {
            "AP": precision[..., 0].mean(),
            "AP50": precision[0, :, 0].mean(),
            "AP75": precision[5, :, 0].mean(),
            **{name: precision[..., size].mean() for size, name in enumerate(("APs", "APm", "APl"), start=1)},
            "AR": recall.mean(),
        }
        assert found.per_category[category_id] == pytest.approx(wanted, rel=0, abs=1e-11)
    thresholds = 100 * expected["precision"][:, :, :, 0, 2].mean((1, 2))
    assert list(found.per_threshold) == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert list(found.per_threshold.values()) == pytest.approx(thresholds.tolist(), rel=0, abs=1e-11)


def test_one_evaluator_gives_what_new_ones_give() -> None:
    random = np.random.default_rng(6)
    truth = draw_data(random)
    first = draw_rows(random, truth)
    second, third = first.copy(), first[::2]
    second[::3, 1] += 5
    second[1::7, 6] = 5
    shared = Evaluator(truth)
    assert [shared(rows) for rows in (first, second, third, second, first)] == [
        Evaluator(truth)(rows) for rows in (first, second, third, second, first)
    ]
    second[:] = 0  # the rows that were given stay the caller's
    assert shared(first) == Evaluator(truth)(first)
