"""What perfect boxes and perfect classes are worth, on predictions of which the answer is known."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from refinebox.analysis import oracle
from refinebox.analysis.oracle import Predictions
from refinebox.boxes import paired_iou
from refinebox.data.annotations import CocoData
from refinebox.data.input_format import InputFormat
from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import Profile
from refinebox.evaluation import detect
from refinebox.evaluation.evaluator import METRICS, coco_ap
from refinebox.evaluation.link import Link
from refinebox.refinement.matching import Matches
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner

SIDE = 200
OBJECTS = {1: (0.2, 0.2, 0.2, 0.2), 2: (0.7, 0.3, 0.3, 0.4), 3: (0.4, 0.75, 0.5, 0.3)}  # category id, cxcywh
OFF = (0.03, -0.02, 0.02, 0.04)  # enough to miss the higher thresholds of overlap


class Known(Detector):
    """Says the same about every image."""

    def __init__(self, boxes: Sequence[Sequence[float]], scores: Sequence[Sequence[float]]) -> None:
        super().__init__(
            Profile("known", "none", category_ids=(1, 2, 3), input=InputFormat(short_side=SIDE, long_side=SIDE))
        )
        self.boxes = nn.Parameter(torch.tensor(boxes), requires_grad=False)
        self.logits = nn.Parameter(torch.tensor(scores).logit(), requires_grad=False)

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        return DetectorOutput((), self.boxes.expand(len(images), -1, -1), self.logits.expand(len(images), -1, -1))


def known_data(folder: Path) -> CocoData:
    Image.new("RGB", (SIDE, SIDE)).save(folder / "1.png")
    annotations = []
    for category_id, box in OBJECTS.items():
        cx, cy, width, height = (SIDE * value for value in box)
        annotations.append(
            {
                "id": category_id,
                "image_id": 1,
                "category_id": category_id,
                "bbox": [cx - width / 2, cy - height / 2, width, height],
                "area": width * height,
                "iscrowd": 0,
            }
        )
    image = {"id": 1, "file_name": "1.png", "height": SIDE, "width": SIDE}
    return CocoData([image], annotations, dict.fromkeys((1, 2, 3), ""), folder, {})


def points(folder: Path, *, boxes_right: bool, classes_right: bool) -> dict[str, float]:
    """AP after each swap for three confident queries, one on or near each object, and two that look at nothing."""
    boxes = [[value + shift * (not boxes_right) for value, shift in zip(b, OFF, strict=True)] for b in OBJECTS.values()]
    scores = torch.full((5, 3), 0.01)
    for query in range(3):
        scores[query, query if classes_right else (query + 1) % 3] = 0.9
    detector = Known([*boxes, [0.1, 0.9, 0.05, 0.05], [0.9, 0.9, 0.1, 0.1]], scores.tolist())
    validation = known_data(folder)
    metrics = oracle.analyse(detector, validation, Link.between(detector, validation, "id"))
    return {name: found["AP"] or 0.0 for name, found in metrics.items()}


def test_perfect_predictions_gain_nothing(tmp_path: Path) -> None:
    found = points(tmp_path, boxes_right=True, classes_right=True)
    assert found == pytest.approx(dict.fromkeys(("none", "class", "box", "both"), 100))


def test_perfect_boxes_are_all_that_boxes_that_are_slightly_off_need(tmp_path: Path) -> None:
    found = points(tmp_path, boxes_right=False, classes_right=True)
    assert found["box"] == found["both"] == pytest.approx(100)
    assert 0 < found["none"] == found["class"] < 90


def test_perfect_classes_are_all_that_wrong_classes_need(tmp_path: Path) -> None:
    found = points(tmp_path, boxes_right=True, classes_right=False)
    assert found["class"] == found["both"] == pytest.approx(100)
    assert found["none"] == found["box"] < 60


def test_wrong_boxes_of_wrong_classes_need_both(tmp_path: Path) -> None:
    found = points(tmp_path, boxes_right=False, classes_right=False)
    assert found["both"] == pytest.approx(100)
    assert max(found["none"], found["class"], found["box"]) < 90


def test_a_perfect_ranking_puts_the_best_boxes_first(tmp_path: Path) -> None:
    """A sure box of nothing in every class comes last, and a box that is a little off after those that fit."""
    first, *others = OBJECTS.values()
    off = [value + shift for value, shift in zip(first, OFF, strict=True)]
    scores = torch.full((4, 3), 0.01)
    scores[0], scores[1, 0], scores[2, 1], scores[3, 2] = 0.9, 0.8, 0.4, 0.3
    validation = known_data(tmp_path)
    detector = Known([[0.9, 0.9, 0.1, 0.1], off, *others], scores.tolist())
    link = Link.between(detector, validation, "id")
    rows = oracle.swapped_rows(detector, validation, link, swaps=("none", "box", "ranking"))
    ap = {name: coco_ap(validation, found)["AP"] or 0.0 for name, found in rows.items()}
    assert ap["none"] < ap["ranking"] < 100
    assert rows["ranking"][2, 6] == 1  # after those of the other two, which fit
    iou = paired_iou(torch.tensor(off), torch.tensor(first)).item()
    assert rows["ranking"][:4, 5] == pytest.approx([1, 1, 1e-3 + 0.999 * iou, 9e-4], rel=1e-4)


def test_swaps_of_an_untrained_detector_keep_their_order(detector: Detector, validation: CocoData) -> None:
    link = Link.between(detector, validation)
    metrics = oracle.analyse(detector, validation, link, batch_size=2)
    assert list(metrics) == ["none", "class", "box", "both"]
    assert all(found.keys() == METRICS.keys() for found in metrics.values())
    assert metrics["none"] == detect.evaluate(detector, validation, link, batch_size=2)["before"]
    ap = {name: found["AP"] or 0.0 for name, found in metrics.items()}
    assert ap["both"] >= max(ap["class"], ap["none"])
    assert ap["both"] == pytest.approx(100)  # twelve queries are enough for the objects of any image
    assert ap["box"] > ap["none"]


def test_swaps_of_a_refined_detector_start_from_its_refined_boxes(detector: Detector, validation: CocoData) -> None:
    torch.manual_seed(0)
    model = RefinedDetector(detector, Refiner(detector.channels, detector.strides))
    link = Link.between(model, validation)
    metrics = oracle.analyse(model, validation, link)
    assert metrics["none"] == detect.evaluate(model, validation, link)["after"]
    assert metrics["both"]["AP"] == pytest.approx(100)


def test_one_pass_over_a_refined_detector_also_gives_what_it_was_before(
    detector: Detector, validation: CocoData
) -> None:
    torch.manual_seed(0)
    model = RefinedDetector(detector, Refiner(detector.channels, detector.strides))
    link = Link.between(model, validation)
    rows = oracle.swapped_rows(model, validation, link, swaps=tuple(oracle.CHANGES))
    expected = detect.detect(model, validation, link)
    np.testing.assert_array_equal(rows["before"], expected["before"])
    np.testing.assert_array_equal(rows["none"], expected["after"])
    plain = oracle.swapped_rows(detector, validation, link)
    np.testing.assert_array_equal(rows["before_box"], plain["box"])
    assert list(plain) == ["none", "class", "box", "both"]
    assert list(rows) == ["none", "class", "box", "both", "class_own_score", "ranking", "before", "before_box"]


def test_crowds_are_not_matched(detector: Detector, validation: CocoData) -> None:
    link = Link.between(detector, validation)
    crowds = replace(validation, annotations=[{**entry, "iscrowd": 1} for entry in validation.annotations])
    metrics = oracle.analyse(detector, crowds, link)
    assert metrics == dict.fromkeys(("none", "class", "box", "both"), dict.fromkeys(METRICS))


def test_the_batch_size_does_not_change_the_number_of_images(detector: Detector, validation: CocoData) -> None:
    link = Link.between(detector, validation)
    both = [oracle.analyse(detector, validation, link, batch_size=size)["both"]["AP"] for size in (1, 3)]
    assert both == pytest.approx([100, 100])


def test_scores_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    detector = Known([[0.5, 0.5, 0.1, 0.1]], [[float("nan")] * 3])
    validation = known_data(tmp_path)
    with pytest.raises(FloatingPointError, match="the detector's scores or boxes are not finite; check its weights"):
        oracle.analyse(detector, validation, Link.between(detector, validation, "id"))


@pytest.fixture
def predictions() -> Predictions:
    torch.manual_seed(0)
    return Predictions(torch.rand(2, 4, 3), torch.rand(2, 4, 4))


@pytest.fixture
def matches() -> Matches:
    image, query = torch.tensor([0, 0, 1]), torch.tensor([3, 0, 2])
    boxes = torch.arange(12.0).view(3, 4) / 12
    return Matches(image, query, torch.tensor([0, 1, 0]), boxes, torch.tensor([2, 0, 1]))


def unmatched(matches: Matches) -> Tensor:
    free = torch.ones(2, 4, dtype=torch.bool)
    free[matches.image, matches.query] = False
    return free


def test_perfect_boxes_lie_on_the_objects(predictions: Predictions, matches: Matches) -> None:
    swapped = oracle.perfect_boxes(predictions, matches)
    assert torch.equal(swapped.boxes[matches.image, matches.query], matches.boxes)
    free = unmatched(matches)
    assert torch.equal(swapped.boxes[free], predictions.boxes[free])
    assert torch.equal(swapped.scores, predictions.scores)


def test_perfect_classes_are_sure(predictions: Predictions, matches: Matches) -> None:
    swapped = oracle.perfect_classes(predictions, matches)
    expected = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert torch.equal(swapped.scores[matches.image, matches.query], expected)
    free = unmatched(matches)
    assert torch.equal(swapped.scores[free], predictions.scores[free])
    assert torch.equal(swapped.boxes, predictions.boxes)


def test_perfect_classes_may_keep_the_score(predictions: Predictions, matches: Matches) -> None:
    swapped = oracle.perfect_classes_own_score(predictions, matches)
    highest = predictions.scores[matches.image, matches.query].amax(1)
    expected = torch.zeros(3, 3)
    expected[range(3), matches.columns] = highest
    assert torch.equal(swapped.scores[matches.image, matches.query], expected)
    free = unmatched(matches)
    assert torch.equal(swapped.scores[free], predictions.scores[free])
    assert torch.equal(swapped.boxes, predictions.boxes)


@pytest.mark.parametrize(
    "swap", [oracle.perfect_boxes, oracle.perfect_classes, oracle.perfect_classes_own_score], ids=lambda s: s.__name__
)
def test_swaps_leave_the_predictions_as_they_were(swap: Callable[..., Predictions]) -> None:
    torch.manual_seed(0)
    scores, boxes = torch.rand(1, 2, 3), torch.rand(1, 2, 4)
    kept = scores.clone(), boxes.clone()
    one = torch.tensor([0])
    swapped = swap(Predictions(scores, boxes), Matches(one, one, one, torch.zeros(1, 4), one))
    assert torch.equal(scores, kept[0])
    assert torch.equal(boxes, kept[1])
    assert not (torch.equal(swapped.scores, scores) and torch.equal(swapped.boxes, boxes))


def test_an_image_without_objects_is_left_alone(detector: Detector, validation: CocoData) -> None:
    link = Link.between(detector, validation)
    fewer = replace(validation, annotations=[e for e in validation.annotations if e["image_id"] != 2])
    metrics = oracle.analyse(detector, fewer, link)
    np.testing.assert_allclose([metrics["both"]["AP50"] or 0.0], [100])
