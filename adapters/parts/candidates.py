"""A few hundred distinct candidates out of the thousands of boxes of a dense detector."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou, nms

from refinebox.detection.choice import Choice, choose

ROWS = 300  # candidates of an image, where the detector does not return more detections
VOTERS = 1000  # where suppressed boxes vote, and so are wanted too
SLACK = 1e-4  # of an overlap, far more than rounding is worth and far less than anybody would notice
OBSTACLE = "it suppresses overlapping boxes, which keeps another number of them in every image"  # to exporting
DISTINCT = 0.7  # overlap above which two boxes are candidates for the same object, whatever their categories


def suppression(limit: int, above: float, iou: float) -> Choice:
    """The final choice of a detector that keeps ``limit`` detections with scores above ``above``.

    Boxes lie in other units in the end than in the library, and rounding must not decide whether an overlap of exactly
    ``iou``, which grids of anchors bring about, is too much: the threshold is a little higher, and :func:`distinct`
    leaves out what only the library's threshold drops.
    """
    return Choice("suppression", limit, above, iou + SLACK / 2, candidates=100_000)


def distinct(boxes: Tensor, scores: Tensor, choice: Choice) -> tuple[Tensor, Tensor]:
    """The rows to hand over: those of the detector's own detections, then others that overlap none of them much.

    Chosen among these rows alone, the detections stay the same as long as no box moves: whatever is left out or put
    behind is worse than what suppresses it. The others are there for boxes that move apart. Where suppressed boxes
    vote on those that are kept, the others are the best ones whatever they overlap.

    Args:
        boxes: ``[M, 4]`` xyxy, in pixels.
        scores: ``[M, K]``; 0 for pairs that the detector does not consider.
        choice: of :func:`suppression`, or one that does not suppress.

    Returns:
        ``[N]`` rows and their ``[N, K]`` scores.
    """
    theirs = choose(replace(choice, iou=choice.iou - SLACK / 2, voting=0.0), scores, boxes)
    own = _unique(theirs.query)
    best = scores.amax(-1)
    free = best > 0
    free[own] = False
    others = free.nonzero()[:, 0]
    if choice.voting:
        others = others[best[others].argsort(descending=True)]
    else:
        both = torch.cat([own, others])
        kept = nms(boxes[both], torch.cat([best[own] + 2, best[others]]), DISTINCT)  # detections suppress the others
        others = both[kept[kept >= len(own)]]
    chosen = torch.cat([own, others[: max(0, room(choice) - len(own))]])
    if choice.rule != "suppression":
        return chosen, scores[chosen]
    detected = torch.zeros_like(scores, dtype=torch.bool)
    detected[theirs.query, theirs.column] = True
    detected = detected[chosen]  # [N, K]
    close = (box_iou(boxes[chosen], boxes[chosen]) - choice.iou).abs() < SLACK  # [N, N]
    undecided = (close.float() @ detected.float() > 0) & ~detected
    return chosen, scores[chosen].masked_fill(undecided, 0)


def room(choice: Choice) -> int:
    """How many rows are handed over at most."""
    return max(VOTERS if choice.voting else ROWS, choice.limit)


def considered(scores: Tensor, above: float, limit: int, *, by_category: bool = False) -> tuple[Tensor, Tensor]:
    """The rows that take part in a suppression, and their scores.

    Args:
        scores: ``[N, K]``.
        above: only pairs with a score above this take part,
        limit: and of these the best so many, of all categories together,
        by_category: or of each.

    Returns:
        ``[M]`` rows with such a pair, and their ``[M, K]`` scores: 0 for pairs that only the limit leaves out, so that
        a choice among the pairs above finds the same.
    """
    there = scores > above
    if by_category:
        best = scores.topk(min(limit, len(scores)), dim=0).indices
        kept = torch.zeros_like(there).scatter_(0, best, True) & there
    else:
        pairs = there.flatten().nonzero()[:, 0]
        best = scores.flatten()[pairs].topk(min(limit, len(pairs))).indices
        kept = torch.zeros_like(there).flatten().index_fill_(0, pairs[best], True).view_as(there)
    rows = kept.any(-1).nonzero()[:, 0]
    return rows, scores[rows].masked_fill((there & ~kept)[rows], 0)


def _unique(rows: Tensor) -> Tensor:
    """Each row once, in the order of its first appearance."""
    seen: dict[int, None] = dict.fromkeys(rows.tolist())
    return torch.tensor(list(seen), dtype=torch.int64, device=rows.device)


def batched(images: Sequence[tuple[Tensor, Tensor]], choice: Choice) -> tuple[Tensor, Tensor]:
    """``[B, Q, 4]`` boxes and ``[B, Q, K]`` probabilities of images with cxcywh ``[N, 4]`` and ``[N, K]``.

    There are as many rows as :func:`distinct` gives at most; those that an image does not use are boxes in its middle
    with scores of 0.
    """
    rows = room(choice)
    boxes, scores = zip(*(_filled(*image, rows) for image in images), strict=True)
    return torch.stack(boxes), torch.stack(scores)


def _filled(boxes: Tensor, scores: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    missing = rows - len(boxes)
    return F.pad(boxes, (0, 0, 0, missing), value=0.5), F.pad(scores, (0, 0, 0, missing))
