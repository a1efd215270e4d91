"""How good is a moved box? A small head after the refiner, whose answer raises or lowers the box's scores.

The detector's score was given to a box that is no longer there, and it does not know which boxes the refiner put
right. Detectors without suppression keep duplicates down by their scores alone; so the head answers for a box *and* a
category, and learns that a duplicate, however well it is placed, is worth nothing (unlike IoU-Net, section 3.1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import box_area, box_convert

from refinebox.boxes import inverse_sigmoid, paired_iou, whwh
from refinebox.refinement.pyramid import WIDTH

PAIR = 4  # numbers that are known of a box and a category
OTHERS = 1e-3  # by which the scores of boxes that were not refined are multiplied, to stay below the others
STRENGTH = 0.25  # between what was best on two data sets, docs/results.md
NEIGHBOUR = 0.5  # IoU from which boxes are counted as neighbours


@dataclass(frozen=True)
class Evidence:
    """What is known of N refined boxes of an image, and of each with each of the K categories.

    Attributes:
        boxes: ``[B, N, 70 + steps]``: what the head saw (64), size, place, movement and crowding.
        pairs: ``[B, N, K, 4]``: the score, that of the best other category, and how other boxes compete.
    """

    boxes: Tensor
    pairs: Tensor


class Quality(nn.Module):
    """A probability for each refined box and category that this is the one detection of an object, and a tight one.

    Args:
        steps: of the refiner.
        columns: categories of the detector.

    Attributes:
        strength: from 0 to 1, how far scores follow it.
    """

    strength: Tensor
    box_mean: Tensor
    box_deviation: Tensor
    pair_mean: Tensor
    pair_deviation: Tensor

    def __init__(self, steps: int, columns: int) -> None:
        super().__init__()
        boxes = measured(steps)
        self.of_box, self.of_pair = nn.Linear(boxes, WIDTH), nn.Linear(PAIR, WIDTH, bias=False)
        self.of_column = nn.Embedding(columns, WIDTH)
        self.answer = nn.Sequential(nn.ReLU(), nn.Dropout(0.1), nn.Linear(WIDTH, 1))
        for name, count in (("box", boxes), ("pair", PAIR)):
            self.register_buffer(f"{name}_mean", torch.zeros(count))
            self.register_buffer(f"{name}_deviation", torch.ones(count))
        self.register_buffer("strength", torch.tensor(STRENGTH))
        nn.init.zeros_(self.of_column.weight)

    def forward(self, boxes: Tensor, pairs: Tensor, columns: Tensor) -> Tensor:
        """Logits ``[...]`` for :class:`Evidence` ``[..., 70 + steps]`` and ``[..., 4]``, and columns ``[...]``."""
        hidden = self.of_box((boxes - self.box_mean) / self.box_deviation)
        hidden = hidden + self.of_pair((pairs - self.pair_mean) / self.pair_deviation) + self.of_column(columns)
        logits: Tensor = self.answer(hidden)[..., 0]
        return logits

    def rescored(self, scores: Tensor, evidence: Evidence) -> Tensor:
        """``[B, N, K]``: scores p become p^(1 - a) u^a, where u is the quality and a the strength."""
        columns = torch.arange(scores.shape[-1], device=scores.device)
        quality = self(evidence.boxes[:, :, None], evidence.pairs, columns).sigmoid()  # [B, N, K]
        rescored: Tensor = scores ** (1 - self.strength) * quality**self.strength
        return rescored


def measured(steps: int) -> int:
    """Numbers that are known of a box which was refined in so many steps."""
    return WIDTH + 6 + steps


def gather_evidence(scores: Tensor, stages: list[Tensor], seen: Tensor, sizes: Tensor) -> Evidence:
    """What is known of refined boxes.

    Args:
        scores: ``[B, N, K]`` the detector's.
        stages: the boxes before and after each step, ``[B, N, 4]`` cxcywh, fractions.
        seen: ``[B, N, 64]`` by the refiner's head.
        sizes: ``[B, 2]`` (height, width) of the images as the detector saw them, in pixels.
    """
    final = stages[-1]
    corners = box_convert(final * whwh(sizes)[:, None], "cxcywh", "xyxy")  # [B, N, 4]
    overlap = overlaps(corners)
    size = (final * whwh(sizes)[:, None])[..., 2:].clamp(min=1).log()
    moved = [paired_iou(stage, final) for stage in stages[:-1]] + [paired_iou(stages[0], stages[1])]
    crowding = (overlap > NEIGHBOUR).sum(-1).float()
    boxes = torch.cat([seen, size, final[..., :2], torch.stack([*moved, crowding], dim=-1)], dim=-1)

    logits = inverse_sigmoid(scores, 1e-6)  # [B, N, K]
    if scores.shape[-1] > 1:
        best = logits.topk(2, dim=-1).values  # [B, N, 2]
        other = torch.where(logits == best[..., :1], best[..., 1:], best[..., :1])
    else:
        other = torch.zeros_like(logits)
    return Evidence(boxes, torch.stack([logits, other, *competitors(overlap, scores)], dim=-1))


def competitors(overlap: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """For each box and category, ``[B, N, K]``: how much a better box of it covers, and how well any other does.

    Args:
        overlap: ``[B, N, N]`` IoU with each other box, 0 with itself.
        scores: ``[B, N, K]``.
    """
    if torch.compiler.is_exporting():  # an exported graph holds every round of a loop
        beside, score = overlap[..., None], scores[:, None]  # [B, N, N, 1], [B, 1, N, K]
        return (beside * (score > scores[:, :, None])).amax(2), (beside * score).amax(2)
    duplicate, rival = torch.zeros_like(scores), torch.zeros_like(scores)
    for place in range(scores.shape[1]):  # a neighbour at a time: [B, N, N, K] would be large
        beside, score = overlap[:, :, place, None], scores[:, place, None]  # [B, N, 1], [B, 1, K]
        duplicate = torch.maximum(duplicate, beside * (score > scores))
        rival = torch.maximum(rival, beside * score)
    return duplicate, rival


def overlaps(boxes: Tensor) -> Tensor:
    """``[B, N, N]`` IoU of every box ``[B, N, 4]`` (xyxy) with every other of its image, and 0 with itself.

    ``torchvision.ops.box_iou`` takes one image at a time, which would fix the size of an exported graph's batch.
    """
    area = box_area(boxes.flatten(0, 1)).view(boxes.shape[:2])  # [B, N]
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)  # [B, N, N]
    iou = shared / (area[:, :, None] + area[:, None] - shared)
    others: Tensor = iou.masked_fill(torch.eye(boxes.shape[1], dtype=torch.bool, device=boxes.device), 0.0)
    return others
