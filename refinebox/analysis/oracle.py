"""What would perfect boxes or perfect classes be worth? Predictions are swapped for the truth and evaluated again.

The upper bounds of RefineBox (figures 3 and 5): predictions are matched to objects as in training, then swapped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

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


@dataclass(frozen=True)
class Swap:
    """One question: what if this were perfect?

    Attributes:
        name: key in the JSON file.
        title: row of the table.
        swaps: applied in turn, each after matching anew.
    """

    name: str
    title: str
    swaps: tuple[Callable[[Predictions, Matches], Predictions], ...]


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


SWAPS = (
    Swap("none", "as is", ()),
    Swap("class", "perfect class", (perfect_classes,)),
    Swap("box", "perfect box", (perfect_boxes,)),
    Swap("both", "both", (perfect_boxes, perfect_classes)),
)
OWN_SCORE = Swap("class_own_score", "class, own score", (perfect_classes_own_score,))


@torch.no_grad()
def swapped_rows(
    detector: Detector,
    data: CocoData,
    link: Link,
    *,
    swaps: Sequence[Swap] = SWAPS,
    batch_size: int = 1,
    workers: int = 0,
) -> dict[str, Rows]:
    """COCO result rows after each swap, from one forward pass of the detector over ``data``.

    A :class:`RefinedDetector` starts from its refined boxes; what the detector finds without the refiner, as is and
    with perfect boxes, stands under ``before`` and ``before_box``.
    """
    device = next(detector.parameters()).device
    found: list[dict[str, Rows]] = []
    for batch in evaluation_batches(detector, data, link, batch_size=batch_size, workers=workers, description="oracle"):
        batch = batch.to(device)
        outputs = stages(detector, batch)
        found.append({})
        jobs = [(swap.name, swap, outputs.get("after", outputs["before"])) for swap in swaps]
        if "after" in outputs:
            jobs += [("before", SWAPS[0], outputs["before"]), ("before_box", SWAPS[2], outputs["before"])]
        for name, swap, output in jobs:
            predictions = Predictions(detector.scores(output.logits), output.boxes)
            for apply in swap.swaps:
                matches = match(predictions.scores, predictions.boxes, batch.targets, detector.profile.classification)
                predictions = apply(predictions, matches)
            detections = detector.postprocess(predictions.scores, predictions.boxes, batch.original_sizes)
            found[-1][name] = to_rows(detections, batch.image_ids, link)
    return combined(found)


def analyse(
    detector: Detector, data: CocoData, link: Link, *, batch_size: int = 1, workers: int = 0
) -> dict[str, Metrics]:
    """AP and its kin after each of the published swaps, in points, from one forward pass over ``data``."""
    rows = swapped_rows(detector, data, link, batch_size=batch_size, workers=workers)
    evaluate = Evaluator(data)
    return {swap.name: evaluate(rows[swap.name]).metrics for swap in SWAPS}
