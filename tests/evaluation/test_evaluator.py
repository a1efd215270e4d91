"""AP against pycocotools, and the way from detections to result rows."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import faster_coco_eval
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from random_boxes import CATEGORIES, CROWDED, EMPTY, draw_data, draw_rows, judged, reference

from refinebox.data import annotations, shapes
from refinebox.data.batches import CocoData
from refinebox.detection.detector import Detections, Detector
from refinebox.evaluation import evaluator as evaluate
from refinebox.evaluation.evaluator import METRICS, Link
from refinebox.refinement.refiner import RefinedDetector, Refiner


@pytest.mark.parametrize("seed", range(4))
def test_ap_equals_pycocotools_but_for_rounding(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = draw_data(random)
    rows = draw_rows(random, truth)
    expected = reference(truth, rows)
    wanted = {name: 100 * expected[place] for name, place in METRICS.items()}
    assert evaluate.coco_ap(truth, rows) == pytest.approx(wanted, rel=0, abs=1e-12)


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
    assert evaluate.coco_ap(truth, grouped) == evaluate.coco_ap(truth, rows)


def test_evaluation_changes_neither_data_nor_rows() -> None:
    random = np.random.default_rng(2)
    truth = draw_data(random)
    rows = draw_rows(random, truth)
    kept_truth, kept_rows = repr(truth), rows.copy()
    evaluate.coco_ap(truth, rows)
    assert repr(truth) == kept_truth
    np.testing.assert_array_equal(rows, kept_rows)


def test_perfect_rows_are_worth_100_points() -> None:
    truth = draw_data(np.random.default_rng(0))
    rows = np.array([[e["image_id"], *e["bbox"], 1.0, e["category_id"]] for e in truth.annotations if not e["iscrowd"]])
    assert evaluate.coco_ap(truth, rows)["AP"] == pytest.approx(100)


def test_no_detections_are_an_ap_of_zero() -> None:
    truth = draw_data(np.random.default_rng(0))
    assert evaluate.coco_ap(truth, np.empty((0, 7))) == dict.fromkeys(METRICS, 0.0)


def one_size(side: float) -> CocoData:
    truth = draw_data(np.random.default_rng(0), images=1)
    box = {"bbox": [10.0, 10.0, side, side], "area": side * side}
    return replace(truth, annotations=[{**truth.annotations[0], **box, "iscrowd": 0}])


@pytest.mark.parametrize(("side", "name"), [(20, "APs"), (60, "APm"), (200, "APl")])
@pytest.mark.parametrize("found", [True, False])
def test_sizes_that_do_not_occur_have_no_ap(found: bool, side: float, name: str) -> None:
    truth = one_size(side)
    row = [1, *truth.annotations[0]["bbox"], 0.5, truth.annotations[0]["category_id"]]
    metrics = evaluate.coco_ap(truth, np.array([row]) if found else np.empty((0, 7)))
    assert {size for size in ("APs", "APm", "APl") if metrics[size] is not None} == {name}
    assert metrics[name] == metrics["AP"] == pytest.approx(100 if found else 0)


def test_data_without_objects_have_no_ap() -> None:
    truth = replace(draw_data(np.random.default_rng(0)), annotations=[])
    assert evaluate.coco_ap(truth, np.array([[1, 5, 5, 9, 9, 0.5, 2]])) == dict.fromkeys(METRICS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", range(1, 6))
def test_rows_that_are_not_finite_are_an_error(column: int, value: float) -> None:
    rows = np.array([[1.0, 5, 5, 9, 9, 0.5, 2], [4, 5, 5, 9, 9, 0.5, 2]])
    rows[1, column] = value
    with pytest.raises(
        ValueError, match=r"^a detection in image 4 is not finite; check the detector's weights, or train "
    ):
        evaluate.coco_ap(draw_data(np.random.default_rng(0)), rows)


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
        evaluate.coco_ap(draw_data(np.random.default_rng(0)), rows)


def with_categories(validation: CocoData, categories: dict[int, str]) -> CocoData:
    return replace(validation, categories=categories, annotations=[])


def test_a_link_by_id_maps_ids_to_columns(detector: Detector, validation: CocoData) -> None:
    link = Link.between(detector, with_categories(validation, {4: "anything", 2: "else"}), "id")
    assert link == Link(data_ids={4: 4, 2: 2}, columns={4: 3, 2: 1}, width=6)


def test_a_link_by_name_maps_names_to_columns(detector: Detector, validation: CocoData) -> None:
    link = Link.between(detector, with_categories(validation, {40: "Star", 7: "ellipse"}), "name")
    assert link == Link(data_ids={4: 40, 1: 7}, columns={40: 3, 7: 0}, width=6)


def test_a_link_checks_ids_and_names_unless_told_otherwise(detector: Detector, validation: CocoData) -> None:
    names = dict(enumerate(shapes.CATEGORIES, start=1))
    assert Link.between(detector, with_categories(validation, names)).columns == {i: i - 1 for i in names}
    with pytest.raises(ValueError, match=r"the detector does not know 1 star: .*; pass --categories name"):
        Link.between(detector, with_categories(validation, {1: "star", 2: "rectangle"}))


def test_a_link_by_order_takes_the_columns_in_turn(detector: Detector, validation: CocoData) -> None:
    ids = [90, 5, 7, 30, 1, 8]
    link = Link.between(detector, with_categories(validation, {i: f"thing {i}" for i in ids}), "order")
    assert link.columns == {1: 0, 5: 1, 7: 2, 8: 3, 30: 4, 90: 5}
    assert link.data_ids == {1: 1, 2: 5, 3: 7, 4: 8, 5: 30, 6: 90}


def test_the_columns_are_called_what_the_data_calls_them(detector: Detector, validation: CocoData) -> None:
    data = with_categories(validation, {i: f"thing {i}" for i in (90, 5, 7, 30, 1, 8)})
    named = [{"id": i, "name": f"thing {i}"} for i in (1, 5, 7, 8, 30, 90)]
    assert Link.between(detector, data, "order").categories(data) == named
    by_name = with_categories(validation, dict(zip((60, 50, 40, 30, 20, 10), shapes.CATEGORIES, strict=True)))
    ids = [category["id"] for category in Link.between(detector, by_name, "name").categories(by_name)]
    assert ids == [60, 50, 40, 30, 20, 10]


@pytest.mark.parametrize("ids", [(1, 2, 3), (2, 3, 4), (6,)])
def test_columns_without_data_leave_the_names_open(
    ids: tuple[int, ...], detector: Detector, validation: CocoData
) -> None:
    data = with_categories(validation, {i: f"thing {i}" for i in ids})
    assert Link.between(detector, data, "id").categories(data) == []


def test_rows_are_written_with_the_ids_of_the_data() -> None:
    link = Link(data_ids={4: 40, 1: 7}, columns={40: 3, 7: 0}, width=6)
    first = Detections(
        torch.tensor([[1.0, 2.0, 11.0, 22.0], [0.0, 0.0, 5.0, 5.0], [-3.0, 4.0, 1.0, 5.0]]),
        torch.tensor([0.75, 0.5, 0.25]),
        torch.tensor([4, 2, 1]),
    )
    second = Detections(torch.tensor([[6.0, 6.0, 8.0, 7.0]]), torch.tensor([0.125]), torch.tensor([1]))
    rows = evaluate.to_rows([first, second], [17, 3], link)
    assert rows.dtype == np.float64
    assert rows.tolist() == [
        [17, 1, 2, 10, 20, 0.75, 40],
        [17, -3, 4, 4, 1, 0.25, 7],
        [3, 6, 6, 2, 1, 0.125, 7],
    ]


def test_nothing_found_gives_no_rows() -> None:
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    link = Link(data_ids={1: 1}, columns={1: 0}, width=1)
    assert evaluate.to_rows([nothing], [1], link).shape == (0, 7)
    assert evaluate.to_rows([], [], link).shape == (0, 7)


def test_large_image_ids_are_not_rounded() -> None:
    found = Detections(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([0.5]), torch.tensor([1]))
    rows = evaluate.to_rows([found], [900_100_581_929], Link(data_ids={1: 1}, columns={1: 0}, width=1))
    assert evaluate.to_results(rows)[0]["image_id"] == 900_100_581_929


def test_results_are_in_cocos_format() -> None:
    results = evaluate.to_results(np.array([[17, 1.00049, 2, 10, 20.12351, 0.12345678, 40]]))
    assert results == [{"image_id": 17, "category_id": 40, "bbox": [1.0, 2.0, 10.0, 20.124], "score": 0.123457}]
    assert [type(results[0][key]) for key in ("image_id", "category_id")] == [int, int]


def test_pycocotools_reads_the_results(validation: CocoData) -> None:
    annotations = validation.annotations[:5]
    rows = np.array([[entry["image_id"], *entry["bbox"], 0.5, entry["category_id"]] for entry in annotations])
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = validation.coco()
        ground.createIndex()
        found = ground.loadRes(evaluate.to_results(rows))
    assert [entry["bbox"] for entry in found.dataset["annotations"]] == [entry["bbox"] for entry in annotations]


def refined(detector: Detector) -> RefinedDetector:
    torch.manual_seed(1)
    return RefinedDetector(detector, Refiner(detector.channels, detector.strides))


def test_before_refinement_is_what_the_plain_detector_finds(detector: Detector, validation: CocoData) -> None:
    link = Link.between(detector, validation)
    plain = evaluate.detect(detector, validation, link, batch_size=2)
    both = evaluate.detect(refined(detector), validation, link, batch_size=2)
    assert plain.keys() == {"before"}
    assert both.keys() == {"before", "after"}
    np.testing.assert_array_equal(both["before"], plain["before"])
    assert (both["after"][:, 1:5] != both["before"][:, 1:5]).any(1).all()
    np.testing.assert_array_equal(both["after"][:, [0, 5, 6]], both["before"][:, [0, 5, 6]])


def test_the_batch_size_does_not_change_which_images_are_evaluated(detector: Detector, validation: CocoData) -> None:
    alone = replace(validation, annotations=[e for e in validation.annotations if e["image_id"] != 2])
    link = Link.between(detector, alone)
    pairs = 12 * len(shapes.CATEGORIES)  # fewer than are kept
    expected = np.repeat([entry["id"] for entry in validation.images], pairs)
    for batch_size in (1, 3, 4):
        rows = evaluate.detect(detector, alone, link, batch_size=batch_size)["before"]
        np.testing.assert_array_equal(rows[:, 0], expected)


def test_boxes_are_in_pixels_of_the_image_file(make_detector: Callable[..., Detector], validation: CocoData) -> None:
    detector = make_detector()
    rows = evaluate.detect(detector, validation, Link.between(detector, validation))["before"]
    for entry in validation.images:
        found = detector.predict([validation.folder / entry["file_name"]])[0]
        mine = rows[rows[:, 0] == entry["id"]]
        np.testing.assert_array_equal(mine[:, 5], found.scores.double())
        np.testing.assert_array_equal(mine[:, 1:3], found.boxes[:, :2].double())
        np.testing.assert_allclose(mine[:, 3:5], (found.boxes[:, 2:] - found.boxes[:, :2]).double(), atol=1e-4)


def test_evaluation_gives_the_ap_of_the_rows(detector: Detector, validation: CocoData) -> None:
    link = Link.between(detector, validation)
    rows = evaluate.detect(refined(detector), validation, link)
    metrics = evaluate.evaluate(refined(detector), validation, link)
    assert metrics == {stage: evaluate.coco_ap(validation, found) for stage, found in rows.items()}
    assert evaluate.evaluate(detector, validation, link) == {"before": metrics["before"]}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_an_unreadable_image_has_no_detections_where_that_is_wished(
    batch_size: int, detector: Detector, validation: CocoData, spoiled_folder: Path
) -> None:
    spoiled = replace(validation, folder=spoiled_folder / "val")
    link = Link.between(detector, spoiled)
    unreadable: list[str] = []
    rows = evaluate.detect(refined(detector), spoiled, link, batch_size=batch_size, unreadable=unreadable)
    assert [reason.partition(" is ")[0] for reason in unreadable] == [str(spoiled_folder / "val/000001.jpg")]
    whole = evaluate.detect(refined(detector), validation, link)
    for stage in ("before", "after"):
        others = whole[stage][whole[stage][:, 0] != 2]
        np.testing.assert_array_equal(rows[stage][:, [0, 6]], others[:, [0, 6]])
        np.testing.assert_allclose(rows[stage], others, atol=1e-3)
    metrics = evaluate.evaluate(refined(detector), spoiled, link, batch_size=batch_size, unreadable=unreadable)
    assert metrics == {stage: evaluate.coco_ap(spoiled, found) for stage, found in rows.items()}
    assert len(unreadable) == 2
    with pytest.raises(ValueError, match=r"000001\.jpg is not a readable image"):
        evaluate.detect(detector, spoiled, link, batch_size=batch_size)


def test_no_readable_image_at_all_is_an_error(detector: Detector, validation: CocoData, tmp_path: Path) -> None:
    missing = replace(validation, folder=tmp_path)
    expected = r"^none of 4 images could be read: .*000000\.jpg is not there$"
    with pytest.raises(ValueError, match=expected):
        evaluate.detect(detector, missing, Link.between(detector, missing), batch_size=3, unreadable=[])


def test_weights_that_are_not_finite_are_told(detector: Detector, shapes_folder: Path) -> None:
    validation = annotations.read(*annotations.find(shapes_folder, "val"))
    with torch.no_grad():
        next(p for name, p in detector.named_parameters() if "bbox_embed" in name).fill_(float("nan"))
    with pytest.raises(ValueError, match="a detection in image 1 is not finite; check the detector's weights"):
        evaluate.evaluate(detector, validation, Link.between(detector, validation))


@pytest.mark.parametrize("seed", range(4))
def test_every_recall_is_pycocotools_bit_for_bit_and_every_precision_to_its_epsilon(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = draw_data(random)
    rows = draw_rows(random, truth)
    expected = judged(truth, rows)
    truth_coco = faster_coco_eval.COCO(truth.coco())
    found = faster_coco_eval.COCOeval_faster(truth_coco, truth_coco.loadRes(rows), "bbox")
    found.evaluate()
    found.accumulate()
    np.testing.assert_array_equal(found.eval["recall"], expected.eval["recall"])
    np.testing.assert_array_equal(found.eval["scores"], expected.eval["scores"])
    np.testing.assert_allclose(found.eval["precision"], expected.eval["precision"], rtol=0, atol=2.3e-16)


def test_each_category_and_threshold_is_pycocotools() -> None:
    random = np.random.default_rng(5)
    truth = draw_data(random)
    rows = draw_rows(random, truth)
    found, expected = evaluate.Evaluator(truth)(rows), judged(truth, rows).eval
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
    shared = evaluate.Evaluator(truth)
    assert [shared(rows) for rows in (first, second, third, second, first)] == [
        evaluate.Evaluator(truth)(rows) for rows in (first, second, third, second, first)
    ]
    second[:] = 0  # the rows that were given stay the caller's
    assert shared(first) == evaluate.Evaluator(truth)(first)
