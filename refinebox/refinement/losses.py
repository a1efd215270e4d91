"""What moved boxes cost: L1 and GIoU over matched pairs (RefineBox, section 3.3), or the same in the object's units."""

from collections.abc import Sequence

from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou_loss

from refinebox.refinement.architecture import Moves
from refinebox.refinement.matching import BOX_WEIGHT, GIOU_EPSILON, GIOU_WEIGHT

SMALLEST = 1e-6  # a side, as a fraction of the image, of which a logarithm is taken


def box_losses(boxes: Tensor, wanted: Tensor, count: float, moves: Moves = "logit") -> dict[str, Tensor]:
    """Weighted ``loss_bbox`` and ``loss_giou`` (2 (1 - GIoU)), summed over pairs and divided by ``count``.

    ``loss_bbox`` is 5 times L1, or for ``relative`` moves the distance of the centres in sides of the object plus that
    of the logarithms of the sides: a pixel is worth more where the object is small.

    Args:
        boxes: ``[M, 4]`` cxcywh, fractions of the unpadded image.
        wanted: ``[M, 4]`` the matched objects, in the same frame.
        count: objects in the batch, at least 1.
        moves: how the boxes are moved.
    """
    giou = generalized_box_iou_loss(
        box_convert(boxes, "cxcywh", "xyxy"), box_convert(wanted, "cxcywh", "xyxy"), reduction="sum", eps=GIOU_EPSILON
    )
    distance = BOX_WEIGHT * (boxes - wanted).abs().sum() if moves == "logit" else relative_distance(boxes, wanted)
    return {"loss_bbox": distance / count, "loss_giou": GIOU_WEIGHT * giou / count}


def relative_distance(boxes: Tensor, wanted: Tensor) -> Tensor:
    """The sum of |dcx| / w + |dcy| / h + |ln w ratio| + |ln h ratio| over pairs ``[M, 4]``; w, h are the object's."""
    sides, wanted_sides = boxes[:, 2:].clamp(min=SMALLEST), wanted[:, 2:].clamp(min=SMALLEST)
    centres = (boxes[:, :2] - wanted[:, :2]) / wanted_sides
    return centres.abs().sum() + (sides / wanted_sides).log().abs().sum()


def loss_names(steps: int) -> list[str]:
    """The keys of :func:`refinement_losses`, in order."""
    return [f"loss.refine.{step}.{name}" for step in range(steps) for name in ("loss_bbox", "loss_giou")]


def refinement_losses(
    steps: Sequence[Tensor], wanted: Tensor, count: float, moves: Moves = "logit"
) -> dict[str, Tensor]:
    """The losses of every step, keyed ``loss.refine.{step}.loss_{bbox,giou}``; training minimises their sum."""
    return {
        f"loss.refine.{step}.{name}": loss
        for step, boxes in enumerate(steps)
        for name, loss in box_losses(boxes, wanted, count, moves).items()
    }
