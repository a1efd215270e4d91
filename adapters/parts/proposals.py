"""Boxes from the encoder's tokens, of which the decoder's queries are chosen (Deformable DETR, appendix A.4)."""

import torch
from refinebox.adapters.parts.deformable_attention import MultiLevelMemory
from refinebox.adapters.parts.levels import centres
from torch import Tensor

SIDE = 0.05  # of a proposal on the finest level, as a fraction of the image; twice that on each further level
BORDER = 0.01  # proposals whose coordinates come closer to 0 or 1 are not used


def anchors(memory: MultiLevelMemory) -> tuple[Tensor, Tensor]:
    """Logits ``[B, L, 4]`` (cxcywh, fractions of the unpadded image) of a box around each cell, and which are used.

    Those of padded cells and of cells at the border are infinite, as in the authors' code: whatever a head adds to
    them becomes the box (1, 1, 1, 1), which can be chosen all the same.
    """
    boxes = []
    for level, cell in enumerate(centres(memory)):
        centre = cell / memory.cells[:, None, level].float()  # [B, h * w, 2]
        boxes.append(torch.cat([centre, torch.full_like(centre, SIDE * 2**level)], -1))
    box = torch.cat(boxes, 1)  # [B, L, 4]
    inside = ((box > BORDER) & (box < 1 - BORDER)).all(-1) & ~memory.padding  # [B, L]
    logits = torch.log(box / (1 - box))
    return logits.masked_fill(~inside[..., None], torch.inf), inside


def best(scores: Tensor, count: int) -> Tensor:
    """``[B, count]`` indices of the best of ``[B, L]`` scores, best first; fewer where there are not so many."""
    return scores.topk(min(count, scores.shape[1]), dim=1).indices


def rows(values: Tensor, index: Tensor) -> Tensor:
    """``[B, N, C]`` the rows of ``[B, L, C]`` that ``[B, N]`` names."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
