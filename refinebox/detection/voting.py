"""Box voting: what suppression leaves standing takes its place among all that said the same (MR-CNN, section 5)."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

LEAST_OVERLAP = 0.75  # of boxes that mean the same edges, not only the same object


def voted(boxes: Tensor, scores: Tensor, labels: Tensor, kept: Tensor, least_overlap: float = LEAST_OVERLAP) -> Tensor:
    """``[K, 4]`` the kept boxes, each moved to the mean of all candidates of its label that overlap it.

    A candidate weighs its score times its IoU with the kept box. It needs no training; it does need the candidates that
    suppression takes out, so it is of no use where a results file holds the detections that are left.

    Args:
        boxes: ``[N, 4]`` of all candidates of an image before suppression, xyxy in any unit.
        scores: ``[N]`` of each.
        labels: ``[N]`` of each.
        kept: ``[K]`` int64, which of them suppression keeps, as ``torchvision.ops.batched_nms`` returns them.
        least_overlap: IoU from which a candidate votes.

    Returns:
        ``[K, 4]`` xyxy; a box that nothing votes for, not even itself as its score is 0, stays where it is.
    """
    overlaps = box_iou(boxes[kept], boxes)  # [K, N]
    votes = (overlaps >= least_overlap) & (labels[kept, None] == labels)
    weights = torch.where(votes, overlaps * scores, 0.0)  # [K, N]
    total = weights.sum(1, keepdim=True)
    return torch.where(total > 0, weights @ boxes / total.clamp(min=torch.finfo(boxes.dtype).tiny), boxes[kept])
