"""Soft-NMS (arXiv 1704.04503): overlapping boxes lose score instead of being dropped."""

import torch
from torch import Tensor
from torchvision.ops import box_iou


def soft_nms(boxes: Tensor, scores: Tensor, labels: Tensor, *, overlap: float, least: float) -> tuple[Tensor, Tensor]:
    """Indices and new scores of the boxes left, best first; boxes of different labels do not touch each other.

    The linear kind (equation 1): from the best box on, every other of its label whose IoU with it is at least
    ``overlap`` is multiplied by 1 - IoU. A box is gone once its score is below ``least``.

    Args:
        boxes: ``[N, 4]`` xyxy.
        scores: ``[N]``.
        labels: ``[N]``.
        overlap: least IoU that costs score.
        least: smallest score that is kept.
    """
    # apart by label as in mmcv, in single precision, whose rounding shows in the scores of high labels
    shifted = boxes + (labels.to(boxes) * (boxes.max() + 1))[:, None] if len(boxes) else boxes
    ious = box_iou(shifted, shifted).cpu()
    decay = torch.where(ious >= overlap, 1 - ious, torch.ones_like(ious))
    left = scores.detach().cpu().clone()
    open_ = torch.ones_like(left, dtype=torch.bool)
    chosen, final = [], []
    while open_.any():
        best = int(torch.where(open_, left, -torch.inf).argmax())
        chosen.append(best)
        final.append(float(left[best]))
        open_[best] = False
        left = torch.where(open_, left * decay[best], left)
        open_ &= left >= least
    order = torch.tensor(final).argsort(descending=True, stable=True)
    index = torch.tensor(chosen, dtype=torch.long)[order].to(boxes.device)
    return index, torch.tensor(final)[order].to(scores)
