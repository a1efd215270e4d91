"""Hungarian assignment of predictions to objects, with the detector's own costs (DETR, section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_convert, generalized_box_iou_loss

from refinebox.data.batches import Target
from refinebox.detection.profile import Classification

BOX_WEIGHT, GIOU_WEIGHT = 5.0, 2.0
GIOU_EPSILON = 1e-6  # in both denominators, as in the authors' code


@dataclass(frozen=True)
class Matches:
    """Pairs of a query and an object over a whole batch, ordered by image.

    Attributes:
        image, query, object: ``[M]`` int64 indices of each pair.
        boxes: ``[M, 4]`` the objects' boxes, cxcywh, fractions of the unpadded image.
        columns: ``[M]`` int64 the objects' score columns.
    """

    image: Tensor
    query: Tensor
    object: Tensor
    boxes: Tensor
    columns: Tensor


def match(scores: Tensor, boxes: Tensor, targets: Sequence[Target], classification: Classification) -> Matches:
    """The assignment with the least sum of class, L1 and GIoU costs: one query an object, while there are enough.

    Args:
        scores: ``[B, Q, K]`` probabilities.
        boxes: ``[B, Q, 4]`` cxcywh, fractions of the unpadded image.
        targets: the objects of each image, in the same frame.
        classification: softmax detectors weigh the probability with 1, others a focal class cost with 2.

    Raises:
        FloatingPointError: a score or box is not finite.
    """
    object_boxes = pad_sequence([target.boxes for target in targets], batch_first=True)  # [B, N, 4]
    columns = pad_sequence([target.columns for target in targets], batch_first=True)  # [B, N]
    chosen = scores.gather(2, columns[:, None].expand(-1, scores.shape[1], -1))  # [B, Q, N]
    class_cost = -chosen if classification == "softmax" else 2 * focal_cost(chosen)
    cost = (
        class_cost + BOX_WEIGHT * torch.cdist(boxes, object_boxes, p=1) + GIOU_WEIGHT * giou_cost(boxes, object_boxes)
    )
    if not cost.isfinite().all():
        raise FloatingPointError(
            "the detector's scores or boxes are not finite; check its weights and the input images"
        )
    known = (scores.amax(-1) > 0).cpu().numpy()  # [B, Q]; the others fill up a batch and are no predictions
    triples = []
    for index, (image_cost, target) in enumerate(zip(cost.cpu().numpy(), targets, strict=True)):
        used = np.flatnonzero(known[index])
        queries, objects = linear_sum_assignment(image_cost[used, : len(target.boxes)])
        queries = used[queries]
        triples.append(np.stack([np.full_like(queries, index), queries, objects]))
    image, query, object_ = torch.from_numpy(np.concatenate(triples, axis=1)).to(boxes.device)
    return Matches(image, query, object_, object_boxes[image, object_], columns[image, object_])


def focal_cost(scores: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss of calling a query positive less that of calling it negative, elementwise on probabilities."""
    positive = alpha * (1 - scores) ** gamma * -(scores + 1e-8).log()
    negative = (1 - alpha) * scores**gamma * -(1 - scores + 1e-8).log()
    return positive - negative


def giou_cost(boxes: Tensor, object_boxes: Tensor) -> Tensor:
    """``[B, Q, N]`` negated GIoU of ``[B, Q, 4]`` with ``[B, N, 4]``, both cxcywh."""
    predicted = box_convert(boxes, "cxcywh", "xyxy")[:, :, None]  # [B, Q, 1, 4]
    wanted = box_convert(object_boxes, "cxcywh", "xyxy")[:, None]  # [B, 1, N, 4]
    shape = boxes.shape[0], boxes.shape[1], object_boxes.shape[1], 4
    loss: Tensor = generalized_box_iou_loss(predicted.expand(shape), wanted.expand(shape), eps=GIOU_EPSILON)
    return loss - 1
