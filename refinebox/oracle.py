"""What would perfect boxes or perfect classes be worth? Predictions are swapped for the truth and evaluated again.

The upper bounds of RefineBox (figures 3 and 5): predictions are matched to objects as in training, then swapped.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from refinebox.data import CocoData
from refinebox.detector import Detector
from refinebox.evaluate import Link, Metrics, Rows, coco_ap, evaluation_batches, to_rows
from refinebox.matching import Matches, match

MATCHING_RULE = "Matching: Hungarian, one query an object, by the detector's class, L1 and GIoU costs; crowds left out."
SCORE_RULE = (
    "Scores: a perfect class also gives the matched query score 1 for its true class and 0 for all others, as in the "
    "published upper bound; a perfect box leaves scores alone."
)
NOTE = "Gains do not add up: a detection counts only when its class, its box and its rank are all good enough."


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


SWAPS = (
    Swap("none", "as is", ()),
    Swap("class", "perfect class", (perfect_classes,)),
    Swap("box", "perfect box", (perfect_boxes,)),
    Swap("both", "both", (perfect_boxes, perfect_classes)),
)


@torch.no_grad()
def analyse(
    detector: Detector, data: CocoData, link: Link, *, batch_size: int = 1, workers: int = 0
) -> dict[str, Metrics]:
    """AP and its kin after each swap, in points, from one forward pass of the detector over ``data``."""
    device = next(detector.parameters()).device
    found: dict[str, list[Rows]] = {swap.name: [] for swap in SWAPS}
    for batch in evaluation_batches(detector, data, link, batch_size=batch_size, workers=workers, description="oracle"):
        batch = batch.to(device)
        output = detector(batch.images, batch.sizes)
        for swap in SWAPS:
            predictions = Predictions(detector.scores(output.logits), output.boxes)
            for apply in swap.swaps:
                matches = match(predictions.scores, predictions.boxes, batch.targets, detector.profile.classification)
                predictions = apply(predictions, matches)
            detections = detector.postprocess(predictions.scores, predictions.boxes, batch.original_sizes)
            found[swap.name].append(to_rows(detections, batch.image_ids, link))
    return {name: coco_ap(data, np.concatenate(rows)) for name, rows in found.items()}
