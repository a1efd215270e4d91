"""The losses of one training step, computed the straightforward way that the published training takes.

Written from RefineBox (arXiv 2307.11828, section 3) and facts about the authors' code: queries are matched twice,
before the refinement and for the losses, each time at the cost of every query with every object of the batch; matched
boxes are packed into slots filled with zeros, all of which run through the network; the detector's output is copied
after every move; GIoU is computed between all pairs and only the diagonal kept. Weights are those of
:mod:`refinebox.refinement.refiner`, and so are the blocks that are the same in both.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert

from refinebox.boxes import inverse_sigmoid
from refinebox.data.batches import Batch, Target
from refinebox.detection.output import DetectorOutput
from refinebox.refinement.refiner import Refiner


@dataclass(frozen=True)
class Pairs:
    """Matched pairs: each pair's image, query, object of that image, and slot in the packed boxes, ``[M]`` int64."""

    image: Tensor
    query: Tensor
    object: Tensor
    slot: Tensor


def reference_losses(
    refiner: Refiner, output: DetectorOutput, batch: Batch, *, pyramid_at_every_move: bool = False
) -> dict[str, Tensor]:
    """What :func:`refinebox.training.learner.observed_losses` returns, for a sigmoid detector's ``output``.

    Args:
        refiner: whose weights get gradients.
        output: of the frozen detector for ``batch``.
        batch: only its sizes and objects are read.
        pyramid_at_every_move: compute the feature pyramid before each move, which the authors do once.
    """
    pairs = match_all(output, batch.targets)
    pyramid = refiner.channel_mapper(output.features)
    boxes, logits = deepcopy(output.boxes).detach(), deepcopy(output.logits).detach()
    slots = packed(boxes, pairs, batch.targets)  # [B, N, 4]
    slot_logits = packed(logits, pairs, batch.targets)  # [B, N, K]
    refined = []
    for move in range(refiner.steps):
        if move > 0 and pyramid_at_every_move:
            pyramid = refiner.channel_mapper(output.features)
        slots = moved(refiner, pyramid, slots, batch.sizes)
        refined.append(unpacked(boxes, slots, pairs))
        unpacked(logits, slot_logits, pairs)  # the scores go the same way, though nothing changes them
    return losses(refined, match_all(output, batch.targets), batch.targets)


@torch.no_grad()
def match_all(output: DetectorOutput, targets: Sequence[Target]) -> Pairs:
    """The Hungarian assignment of each image, from one matrix of all queries and all objects of the batch."""
    count, queries = output.boxes.shape[:2]
    scores, boxes = output.logits.flatten(0, 1).sigmoid(), output.boxes.flatten(0, 1)  # [B * Q, K], [B * Q, 4]
    objects = torch.cat([target.boxes for target in targets])  # [N, 4]
    columns = torch.cat([target.columns for target in targets])  # [N]
    positive = 0.25 * (1 - scores) ** 2 * -(scores + 1e-8).log()
    negative = 0.75 * scores**2 * -(1 - scores + 1e-8).log()
    cost = 2 * (positive[:, columns] - negative[:, columns])  # [B * Q, N]
    cost = cost + 5 * torch.cdist(boxes, objects, p=1) - 2 * pairwise_giou(boxes, objects)
    parts = torch.split(cost.view(count, queries, -1).cpu(), [len(target.boxes) for target in targets], dim=2)
    found = [linear_sum_assignment(part[image]) for image, part in enumerate(parts)]
    return Pairs(
        torch.cat([torch.full((len(query),), image) for image, (query, _) in enumerate(found)]),
        torch.cat([torch.from_numpy(query) for query, _ in found]),
        torch.cat([torch.from_numpy(object_) for _, object_ in found]),
        torch.cat([torch.arange(len(query)) for query, _ in found]),
    )


def packed(values: Tensor, pairs: Pairs, targets: Sequence[Target]) -> Tensor:
    """``[B, N, D]`` the matched rows of ``values`` ``[B, Q, D]``; N is the most objects of an image, the rest zeros."""
    most = max(len(target.boxes) for target in targets)
    slots = values.new_zeros(len(targets), most, values.shape[-1])
    slots[pairs.image, pairs.slot] = values[pairs.image, pairs.query]
    return slots


def unpacked(values: Tensor, slots: Tensor, pairs: Pairs) -> Tensor:
    """A copy of ``values`` ``[B, Q, D]`` with the matched rows taken from ``slots`` ``[B, N, D]``."""
    copy = deepcopy(values)
    copy[pairs.image, pairs.query] = slots[pairs.image, pairs.slot]
    return copy


def moved(refiner: Refiner, pyramid: Sequence[Tensor], slots: Tensor, sizes: Tensor) -> Tensor:
    """All slots ``[B, N, 4]`` after one move."""
    image = torch.arange(len(slots)).repeat_interleave(slots.shape[1])  # [B * N]
    pooled = refiner.pool(pyramid, slots.flatten(0, 1), image, sizes)  # [B * N, 64, 7, 7]
    change: Tensor = refiner.bboxes_refiner(pooled).view_as(slots)
    return (inverse_sigmoid(slots) + change).sigmoid().clamp(0, 1)


def losses(refined: Sequence[Tensor], pairs: Pairs, targets: Sequence[Target]) -> dict[str, Tensor]:
    """5 L1 and 2 (1 - GIoU) of the matched rows after each move, summed and divided by the number of objects."""
    wanted = torch.cat([target.boxes[pairs.object[pairs.image == image]] for image, target in enumerate(targets)])
    objects = max(1, sum(len(target.boxes) for target in targets))
    found = {}
    for move, boxes in enumerate(refined):
        matched = boxes[pairs.image, pairs.query]  # [M, 4]
        found[f"loss.refine.{move}.loss_bbox"] = 5 * (matched - wanted).abs().sum() / objects
        giou = pairwise_giou(matched, wanted).diag()  # [M]
        found[f"loss.refine.{move}.loss_giou"] = 2 * (1 - giou).sum() / objects
    return found


def pairwise_giou(boxes: Tensor, others: Tensor) -> Tensor:
    """``[M, N]`` GIoU of cxcywh boxes ``[M, 4]`` with ``[N, 4]``; 1e-6 in both denominators, as the authors have it."""
    one, other = (
        box_convert(boxes, "cxcywh", "xyxy")[:, None],
        box_convert(others, "cxcywh", "xyxy"),
    )  # [M, 1, 4], [N, 4]
    common = _area(torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:]))  # [M, N]
    union = _area(one[..., :2], one[..., 2:]) + _area(other[..., :2], other[..., 2:]) - common
    hull = _area(torch.minimum(one[..., :2], other[..., :2]), torch.maximum(one[..., 2:], other[..., 2:]))
    return common / (union + 1e-6) - (hull - union) / (hull + 1e-6)


def _area(low: Tensor, high: Tensor) -> Tensor:
    sides = (high - low).clamp(min=0)
    return sides[..., 0] * sides[..., 1]
