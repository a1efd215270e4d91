"""RoIAlign (Mask R-CNN, section 3) as weighted sums over a table of cells.

The levels are laid end to end as one table, of which a box reads its own part. torchvision's operator goes through the
channels of every sample one by one; a sum over rows of a table takes a fifth of its time on a CPU, and a third with
gradients. No shape depends on the boxes, which an exported graph needs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def gathered(
    pyramid: Sequence[Tensor], strides: Sequence[int], rois: Tensor, level_of: Tensor, side: int, samples: int = 2
) -> Tensor:
    """``[M, C, side, side]`` what aligned RoIAlign gives for each box on its own level, but for rounding.

    It has gradients of the maps, not of the boxes.

    Args:
        pyramid: ``[B, C, H_l, W_l]`` for each stride, fine to coarse; read as they lie where channels come last.
        strides: of the levels, in pixels.
        rois: ``[M, 5]`` image of the batch, then xyxy in pixels; finite.
        level_of: ``[M]`` int64, each box's place in ``strides``.
        side: bins of a side.
        samples: of a bin and side.
    """
    levels = [level.flatten(2).transpose(1, 2) for level in pyramid]  # [B, L_l, C] each
    cells = torch.cat(levels, dim=1) if len(levels) > 1 else levels[0]  # [B, L, C]
    extent = torch.tensor([tuple(level.shape[-2:]) for level in pyramid], device=rois.device)  # [levels, 2] (h, w)
    first = F.pad(extent.prod(1).cumsum(0), (1, -1))  # [levels] where each level begins
    start = rois[:, 0].long() * cells.shape[1] + first[level_of]  # [M]
    corners = rois[:, 1:] / torch.tensor(strides, dtype=rois.dtype, device=rois.device)[level_of, None] - 0.5
    columns, across = taps(corners[:, 0], corners[:, 2], extent[level_of, 1], side, samples)  # [M, side, T]
    rows, down = taps(corners[:, 1], corners[:, 3], extent[level_of, 0], side, samples)
    begins = start[:, None, None] + rows * extent[level_of, 1, None, None]  # [M, side, T]
    index = (begins[:, :, None, :, None] + columns[:, None, :, None, :]).flatten(3)  # [M, side, side, T * T]
    share = (down[:, :, None, :, None] * across[:, None, :, None, :]).flatten(3)
    return weighted_sums(cells.flatten(0, 1), index, share).permute(0, 3, 1, 2)


def weighted_sums(cells: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """``[M, side, side, C]`` of rows ``[M, side, side, T]`` of ``cells`` ``[N, C]``, each times its share."""
    if torch.compiler.is_exporting() or cells.device.type not in ("cpu", "cuda"):
        sums: Tensor = share[..., None, :] @ cells[index]  # [M, side, side, 1, C]
        return sums[..., 0, :]
    bags, shares = index.flatten(0, 2), share.detach().flatten(0, 2).to(cells)  # [M * side * side, T]
    return F.embedding_bag(bags, cells, per_sample_weights=shares, mode="sum").view(*index.shape[:3], cells.shape[1])


def taps(low: Tensor, high: Tensor, cells: Tensor, side: int, samples: int) -> tuple[Tensor, Tensor]:
    """Along one axis, the ``[M, side, T]`` cells that a bin reads, int64, two a sample, and the share of each.

    As in RoIAlign, a sample up to one cell outside the map reads the outermost, and one farther out reads nothing.

    Args:
        low, high: ``[M]`` where each box begins and ends, 0 at the centre of the first cell.
        cells: ``[M]`` int64, of the map.
        side: bins.
        samples: of a bin.
    """
    last = (cells[:, None] - 1).to(low)
    places = (torch.arange(samples * side, device=low.device, dtype=low.dtype) + 0.5) / (samples * side)
    at = low[:, None] + (high - low)[:, None] * places  # [M, samples * side]
    inside = (at >= -1) & (at <= last + 1)
    at = at.clamp(min=0).minimum(last)
    before = at.floor()
    part = at - before  # how far between two cells
    index = torch.stack([before, (before + 1).minimum(last)], dim=-1).long()  # [M, samples * side, 2]
    share = torch.stack([1 - part, part], dim=-1) * inside[..., None] / samples
    return index.view(-1, side, 2 * samples), share.view(-1, side, 2 * samples)
