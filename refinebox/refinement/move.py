"""How a box is moved by four numbers."""

import torch
from torch import Tensor

from refinebox.boxes import inverse_sigmoid
from refinebox.refinement.architecture import Moves

FURTHEST = 1.5  # a relative move: so many sides, or a factor of 4.5


def moved(boxes: Tensor, moves: Tensor, how: Moves) -> Tensor:
    """Boxes ``[M, 4]`` (cxcywh, fractions) after moves ``[M, 4]``.

    ``logit`` moves are added to the logits of the coordinates (RefineBox, equation 3): what they mean depends on where
    in the image a box lies. ``relative`` ones shift the centre by shares of the sides and multiply the sides by powers
    of e (R-CNN, appendix C), so that the same features always ask for the same move.
    """
    if how == "logit":
        return (inverse_sigmoid(boxes) + moves).sigmoid().clamp(0, 1)
    moves = moves.clamp(-FURTHEST, FURTHEST)
    centres, sides = boxes[:, :2], boxes[:, 2:]
    return torch.cat([centres + moves[:, :2] * sides, sides * moves[:, 2:].exp()], dim=1)


def clipped(boxes: Tensor) -> Tensor:
    """Boxes ``[..., 4]`` (cxcywh, fractions of the unpadded image) cut at the borders of the image."""
    low, high = boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
    low, high = low.clamp(0, 1), high.clamp(0, 1)
    return torch.cat([(low + high) / 2, high - low], dim=-1)
