"""Why a detector cannot be exported, where that is known without trying."""

import torch

from refinebox.detection.detector import Detector
from refinebox.detection.output import Detections
from refinebox.refinement.exported import ExportedDetector
from refinebox.refinement.refined_detector import RefinedDetector

IN_PARTS = "; --part features and --part refiner export what moves its boxes"


def obstacle(detector: Detector, part: str = "whole") -> str | None:
    """Why a detector, or a part of it, cannot be exported, in words; None where nothing is known against it."""
    base = detector.detector if isinstance(detector, RefinedDetector) else detector
    if isinstance(base, ExportedDetector):
        return "it comes from an exported file; name the checkpoint that this was made from"
    if part != "whole":
        return None
    kind = type(base)
    upgraded = IN_PARTS if isinstance(detector, RefinedDetector) else ""
    if base.takes_boxes:
        return f"it takes its boxes from a results file{upgraded}"
    if base.takes_text:
        return f"it is told in words what to look for, and a graph has no words{upgraded}"
    if base.obstacle:
        return base.obstacle + upgraded
    if base.profile.final.rule == "suppression":
        return f"it ends in suppression, which keeps another number of boxes in every image{upgraded}"
    if kind.select is not Detector.select:
        return f"it chooses its detections in code of its own{upgraded}"
    if kind.preprocess is not Detector.preprocess:
        return f"it prepares images in code of its own{upgraded}"
    if trims(base) is None:
        return f"it finishes its detections in code of its own{upgraded}"
    return None


def trims(detector: Detector) -> bool | None:
    """Whether a detector's own code cuts detections at the borders of the image; None where it does something else."""
    if type(detector).finish is Detector.finish:
        return False  # what follows from the layout, whoever reads the file does too
    boxes = torch.tensor([[-5.0, -6.0, 12.0, 13.0], [2.0, 3.0, 90.0, 80.0], [1.0, 2.0, 11.0, 12.0]])
    given = Detections(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor(detector.category_ids)[[0, 0, 0]])
    found = detector.finish(given, (30, 40)).boxes
    inside = boxes.clamp(min=0).minimum(torch.tensor([40.0, 30.0, 40.0, 30.0]))
    if found.shape == boxes.shape and torch.equal(found, boxes):
        return False
    return True if found.shape == boxes.shape and torch.equal(found, inside) else None
