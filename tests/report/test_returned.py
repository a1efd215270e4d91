"""What is returned of an image in the end, beside what it was before."""

from dataclasses import replace

import torch
from PIL import Image

from refinebox.detection.detector import Detector
from refinebox.detection.output import Detections
from refinebox.report.returned import fractions, returned_of

IMAGE = Image.new("RGB", (50, 40))
BEFORE = Detections(
    torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 9], [20, 20, 30, 30], [60, 5, 70, 9]]),
    torch.tensor([0.9, 0.8, 0.3, 0.7]),
    torch.tensor([1, 2, 1, 1]),
    torch.tensor([4, 4, 2, 7]),
)
# one query with two categories, whose boxes part where others of their category vote
AFTER = replace(BEFORE, boxes=torch.tensor([[1.0, 0, 9, 9], [0, 3, 9, 9], [20, 20, 30, 32], [55, 5, 70, 9]]))


def test_a_detection_keeps_its_old_box(detector: Detector) -> None:
    found = returned_of(detector, {"before": BEFORE, "after": AFTER}, IMAGE, 0.5)
    assert torch.equal(found["after"].boxes, AFTER.boxes[[0, 1, 3]])
    assert torch.equal(found["before"].boxes, BEFORE.boxes[[0, 1, 3]])
    assert found["before"].labels.tolist() == [1, 2, 1]
    assert found["before"].scores.tolist() == found["after"].scores.tolist() == AFTER.scores[[0, 1, 3]].tolist()


def test_what_is_dropped_in_the_end_is_dropped_of_both(detector: Detector) -> None:
    """Detrex drops what lies outside the image."""
    detector.profile = replace(detector.profile, layout="detrex")
    found = returned_of(detector, {"before": BEFORE, "after": AFTER}, IMAGE)
    assert torch.equal(found["after"].boxes, AFTER.boxes[:3])
    assert torch.equal(found["before"].boxes, BEFORE.boxes[:3])
    assert torch.equal(returned_of(detector, {"before": BEFORE}, IMAGE)["before"].boxes, BEFORE.boxes[:3])


def test_fractions_are_corner_and_sides() -> None:
    assert fractions(BEFORE.boxes[2:], IMAGE) == [[0.4, 0.5, 0.2, 0.25], [1.2, 0.125, 0.2, 0.1]]
    assert fractions(BEFORE.boxes[:0], IMAGE) == []
