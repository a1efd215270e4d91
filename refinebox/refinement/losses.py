"""L1 and GIoU over matched pairs (RefineBox, section 3.3)."""

from collections.abc import Sequence

from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou_loss

from refinebox.refinement.matching import BOX_WEIGHT, GIOU_EPSILON, GIOU_WEIGHT


def box_losses(boxes: Tensor, wanted: Tensor, count: float) -> dict[str, Tensor]:
    """Weighted ``loss_bbox`` (5 L1) and ``loss_giou`` (2 (1 - GIoU)), summed over pairs and divided by ``count``.

    Args:
        boxes: ``[M, 4]`` cxcywh, fractions of the unpadded image.
        wanted: ``[M, 4]`` the matched objects, in the same frame.
        count: objects in the batch, at least 1.
    """
    giou = generalized_box_iou_loss(
        box_convert(boxes, "cxcywh", "xyxy"), box_convert(wanted, "cxcywh", "xyxy"), reduction="sum", eps=GIOU_EPSILON
    )
    return {
        "loss_bbox": BOX_WEIGHT * (boxes - wanted).abs().sum() / count,
        "loss_giou": GIOU_WEIGHT * giou / count,
    }


def loss_names(steps: int) -> list[str]:
    """The keys of :func:`refinement_losses`, in order."""
    return [f"loss.refine.{step}.{name}" for step in range(steps) for name in ("loss_bbox", "loss_giou")]


def refinement_losses(steps: Sequence[Tensor], wanted: Tensor, count: float) -> dict[str, Tensor]:
    """The losses of every step, keyed ``loss.refine.{step}.loss_{bbox,giou}``; training minimises their sum."""
    return {
        f"loss.refine.{step}.{name}": loss
        for step, boxes in enumerate(steps)
        for name, loss in box_losses(boxes, wanted, count).items()
    }
