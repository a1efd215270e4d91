"""Box formats and frames.

Two formats cross the package, always named: ``cxcywh`` as fractions of the unpadded image (what DETR-like detectors
predict and the refiner moves) and ``xyxy`` in pixels (what RoIAlign, IoU and people read). IoU and GIoU themselves come
from ``torchvision.ops``.
"""

import torch
from torch import Tensor
from torchvision.ops import box_convert


def to_pixels(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes in pixels.

    Args:
        boxes: ``[..., N, 4]`` cxcywh, fractions of the image.
        sizes: ``[..., 2]`` (height, width) in pixels, one row for each image of ``boxes``.

    Returns:
        ``[..., N, 4]`` xyxy, pixels of the image that ``sizes`` describes; not clipped.
    """
    # multiplied before the corners are taken, as the authors do: the order shows in the last bit
    pixels: Tensor = box_convert(boxes * whwh(sizes).unsqueeze(-2), "cxcywh", "xyxy")
    return pixels


def to_fractions(boxes: Tensor, sizes: Tensor) -> Tensor:
    """The inverse of :func:`to_pixels`: xyxy in pixels to cxcywh as fractions of the image, ``[..., N, 4]``."""
    fractions: Tensor = box_convert(boxes / whwh(sizes).unsqueeze(-2), "xyxy", "cxcywh")
    return fractions


def whwh(sizes: Tensor) -> Tensor:
    """``[..., 4]`` (width, height, width, height) in pixels for ``[..., 2]`` (height, width)."""
    height, width = sizes.unbind(-1)
    return torch.stack([width, height, width, height], dim=-1).float()


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """``[...]`` IoU of each of ``boxes`` ``[..., 4]`` with its counterpart in ``others``, both cxcywh.

    ``torchvision.ops.box_iou`` compares all with all. The IoU is the same in pixels and as fractions of the image.
    """
    low, high = (
        pick(boxes[..., :2] + sign * boxes[..., 2:] / 2, others[..., :2] + sign * others[..., 2:] / 2)
        for sign, pick in ((-1, torch.maximum), (1, torch.minimum))
    )
    shared = (high - low).clamp(min=0).prod(-1)
    together = boxes[..., 2:].prod(-1) + others[..., 2:].prod(-1) - shared
    return shared / together.clamp(min=1e-12)


def inverse_sigmoid(values: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Logits of ``values``, finite at 0 and 1.

    ``epsilon`` is 1e-3 in RefineBox, DAB-DETR and DN-DETR and 1e-5 in Conditional DETR; weights trained with one do not
    reproduce with the other. A value within ``epsilon`` of 0 or 1 counts as ``epsilon`` away from it.
    """
    values = values.clamp(0, 1)
    return torch.log(values.clamp(min=epsilon) / (1 - values).clamp(min=epsilon))
