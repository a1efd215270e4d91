"""What would perfect boxes or perfect classes be worth? Predictions are swapped for the truth and evaluated again.

The upper bounds of RefineBox (figures 3 and 5): predictions are matched to objects as in training, then swapped. The
questions are those of :mod:`refinebox.analysis.swaps`; a live detector answers some of them better than its detections
do, because it knows the scores of every category.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from refinebox.boxes import paired_iou
from refinebox.data.annotations import CocoData
from refinebox.detection.detector import Detector
from refinebox.evaluation.detect import combined, evaluation_batches, stages
from refinebox.evaluation.evaluator import Evaluator, Metrics
from refinebox.evaluation.link import Link
from refinebox.evaluation.rows import Rows, to_rows
from refinebox.refinement.matching import Matches, match

MATCHING_RULE = "Matching: Hungarian, one query an object, by the detector's class, L1 and GIoU costs; crowds left out."
SCORE_RULE = (
    "Scores: a perfect class also gives the matched query score 1 for its true class and 0 for all others, as in the "
    "published upper bound, unless the row says own score; a perfect box leaves scores alone."
)


@dataclass(frozen=True)
class Predictions:
    """``scores`` ``[B, Q, K]`` and ``boxes`` ``[B, Q, 4]`` (cxcywh, fractions of the unpadded image)."""

    scores: Tensor
    boxes: Tensor


def perfect_boxes(predictions: Predictions, matches: Matches) -> Predictions:
    """Every matched box becomes its object's."""
    boxes = predictions.boxes.clone()
    boxes[matches.image, matches.query] = matches.boxes
    return Predictions(predictions.scores, boxes)


def perfect_classes(predictions: Predictions, matches: Matches) -> Predictions:
    """Every matched query is sure of its object's class."""
    scores = predictions.scores.clone()
    scores[matches.image, matches.query] = F.one_hot(matches.columns, scores.shape[-1]).to(scores)
    return Predictions(scores, predictions.boxes)


def perfect_classes_own_score(predictions: Predictions, matches: Matches) -> Predictions:
    """Every matched query has its object's class alone, with the highest score it had for any."""
    scores = predictions.scores.clone()
    highest = scores[matches.image, matches.query].amax(-1, keepdim=True)
    scores[matches.image, matches.query] = F.one_hot(matches.columns, scores.shape[-1]).to(scores) * highest
    return Predictions(scores, predictions.boxes)


def perfect_ranking(predictions: Predictions, matches: Matches) -> Predictions:
    """Every matched query is as sure of its object's class as its box is good, and all else comes after.

    What a judge of boxes could reach at most: boxes stay, and no score passes that of a better box.
    """
    scores = LAST * predictions.scores
    overlaps = paired_iou(predictions.boxes[matches.image, matches.query], matches.boxes)
    scores[matches.image, matches.query, matches.columns] = LAST + (1 - LAST) * overlaps
    return Predictions(scores, predictions.boxes)


LAST = 1e-3  # below the scores of all that is matched
Change = Callable[[Predictions, Matches], Predictions]
# by the swap's name: what is changed in turn, each after matching anew
CHANGES: dict[str, tuple[Change, ...]] = {
    "none": (),
    "class": (perfect_classes,),
    "box": (perfect_boxes,),
    "both": (perfect_boxes, perfect_classes),
    "class_own_score": (perfect_classes_own_score,),
    "ranking": (perfect_ranking,),
}
PUBLISHED = ("none", "class", "box", "both")


@torch.no_grad()
def swapped_rows(
    detector: Detector,
    data: CocoData,
    link: Link,
    *,
    swaps: Sequence[str] = PUBLISHED,
    batch_size: int = 1,
    workers: int = 0,
) -> dict[str, Rows]:
    """COCO result rows after each of the named swaps, from one forward pass of the detector over ``data``.

    A :class:`RefinedDetector` starts from its refined boxes; what the detector finds without the refiner, as is and
    with perfect boxes, stands under ``before`` and ``before_box``.
    """
    device = next(detector.parameters()).device
    found: list[dict[str, Rows]] = []
    for batch in evaluation_batches(detector, data, link, batch_size=batch_size, workers=workers, description="oracle"):
        batch = batch.to(device)
        outputs = stages(detector, batch)
        found.append({})
        jobs = [(swap, swap, outputs.get("after", outputs["before"])) for swap in swaps]
        if "after" in outputs:
            jobs += [("before", "none", outputs["before"]), ("before_box", "box", outputs["before"])]
        for name, swap, output in jobs:
            predictions = Predictions(detector.scores_of(output), output.boxes)
            for change in CHANGES[swap]:
                matches = match(predictions.scores, predictions.boxes, batch.targets, detector.profile.classification)
                predictions = change(predictions, matches)
            detections = detector.postprocess(predictions.scores, predictions.boxes, batch.original_sizes)
            found[-1][name] = to_rows(detections, batch.image_ids, link)
    return combined(found)


def analyse(
    detector: Detector, data: CocoData, link: Link, *, batch_size: int = 1, workers: int = 0
) -> dict[str, Metrics]:
    """AP and its kin after each of the published swaps, in points, from one forward pass over ``data``."""
    rows = swapped_rows(detector, data, link, batch_size=batch_size, workers=workers)
    evaluate = Evaluator(data)
    return {name: evaluate(rows[name]).metrics for name in PUBLISHED}
