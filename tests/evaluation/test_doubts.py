"""What is said of a live detector before its figures are believed."""

from dataclasses import replace

import numpy as np
import pytest

from refinebox.data.annotations import CocoData
from refinebox.detection.choice import Choice
from refinebox.detection.detector import Detector
from refinebox.evaluation.doubts import beforehand, doubts, no_measure
from refinebox.evaluation.link import Link
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner


def test_nothing_is_said_of_what_can_be_right(detector: Detector, validation: CocoData) -> None:
    assert beforehand(detector, validation, Link.between(detector, validation)) == []


@pytest.mark.parametrize("by", ["id", "order"])
def test_categories_of_other_names_are_told(by: str, detector: Detector, validation: CocoData) -> None:
    other = replace(validation, categories={number: f"thing {number}" for number in validation.categories})
    [sentence] = beforehand(detector, other, Link.between(detector, other, by))  # type: ignore[arg-type]
    assert sentence == (
        "none of the 6 categories is called as the detector calls it (thing 1 is ellipse, thing 2 is rectangle, "
        "thing 3 is triangle, …); name or train a detector of these classes"
    )


def test_more_objects_than_queries_are_told(detector: Detector, validation: CocoData) -> None:
    first = validation.annotations[0]
    crowd = [{**first, "id": 1000 + place} for place in range(20)]
    data = replace(validation, annotations=[*crowd, *validation.annotations])
    [sentence] = beforehand(detector, data, Link.between(detector, data))
    assert sentence.startswith("1 images have more objects than the 12 queries of the detector, which cannot find ")
    detector.profile = replace(detector.profile, choice=Choice("suppression"))
    assert beforehand(detector, data, Link.between(detector, data)) == []


@pytest.mark.parametrize(
    ("split", "what"),
    [("val", "these images chose the epoch"), ("train", "the refiner learned from these images"), (None, None)],
)
def test_images_that_chose_or_taught_measure_no_gain(
    split: str | None, what: str | None, detector: Detector, training: CocoData, validation: CocoData
) -> None:
    model = RefinedDetector(detector, Refiner(detector.channels, detector.strides))
    assert no_measure(model, validation) is None  # a refiner that does not say where it comes from
    origin = {"file": "other.json", "sha256": "0" * 64, "images": 4, "boxes": 23}
    model.history = {"data": {"train": origin, "val": origin, **({split: validation.origin()} if split else {})}}
    assert no_measure(model, validation) == (what and f"{what}, so this measures no gain")
    assert no_measure(model, training) is None
    assert no_measure(detector, validation) is None
    choice = {"images": 90, "boxes": {"mean": 2.0, "low": 1.0, "high": 3.0}, "before": 50.0, "after": 52.0}
    model.history = {**model.history, "choice": choice}
    said = "90 training images that were held out say 50.0 → 52.0 (+2.0, 95 %: +1.0 to +3.0)"
    told = f"{what}, so this measures no gain; {said}"
    assert no_measure(model, validation) == (told if what else None)
    model.history = {**model.history, "choice": {**choice, "known": 73.6}}  # validation images decided
    assert no_measure(model, validation) == (what and f"{what}, so this measures no gain")


def test_detections_that_coco_does_not_count_are_told(detector: Detector, validation: CocoData) -> None:
    rows = np.array([[1, 0, 0, 9, 9, place / 200, 1] for place in range(101)])
    found = doubts(detector, validation, Link.between(detector, validation), rows)
    assert found[0] == "1 detections are beyond the best 100 of a category in an image; COCO counts no more of them"
