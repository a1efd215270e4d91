"""Features inside boxes: RoIAlign from the pyramid level of a box's size."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from refinebox.refinement.gathered import gathered
from refinebox.refinement.tiles import TiledLevel

ROI_SIDE = 7
SAMPLES = 14  # of a side of a box; a cell is the mean of those in it


def pool(
    pyramid: Sequence[Tensor | TiledLevel],
    strides: Sequence[int],
    pixels: Tensor,
    image: Tensor,
    enlargement: float = 1.0,
    cells: int = ROI_SIDE,
) -> Tensor:
    """``[M, C, cells, cells]`` features inside boxes, each from its own level; NaN for a box that is not finite.

    Args:
        pyramid: ``[B, C, H_l, W_l]`` for each stride, fine to coarse; levels in tiles compute what is read.
        strides: of the levels, in pixels.
        pixels: ``[M, 4]`` xyxy, pixels, not clipped.
        image: ``[M]`` int64, which image of the batch each box is in.
        enlargement: what the sides are multiplied by before pooling; the level is that of the box itself.
        cells: of a side, 7 or 14.
    """
    rois = torch.cat([image[:, None].to(pixels), enlarged(pixels, enlargement)], dim=1)  # [M, 5]
    level_of = levels(pixels, strides)
    # a box that is not finite has no cells to read; its features are not finite either, and whoever looks at the moved
    # box says so
    unbounded = ~rois.isfinite().all(1)  # [M]
    rois = rois.masked_fill(unbounded[:, None], 0)
    samples = SAMPLES // cells
    if torch.compiler.is_exporting() or pixels.device.type != "cpu":
        maps = [level for level in pyramid if isinstance(level, Tensor)]
        pooled = gathered(maps, strides, rois, level_of, cells, samples)
        return pooled.masked_fill(unbounded[:, None, None, None], torch.nan)
    # level by level, so that a table of all need not be made anew at every step, and tiles can be
    parts, places = [], []
    for level, (feature, stride) in enumerate(zip(pyramid, strides, strict=True)):
        # a level without boxes takes part too, so that its weights get a gradient of zero rather than none
        rows = (level_of == level).nonzero()[:, 0]
        own = rois[rows]
        feature = feature if isinstance(feature, Tensor) else feature.around(own)
        parts.append(gathered([feature], [stride], own, torch.zeros_like(rows), cells, samples))
        places.append(rows)
    pooled = torch.cat(parts)[torch.cat(places).argsort()].contiguous()  # as the head's normalisation is fastest
    return pooled.masked_fill_(unbounded[:, None, None, None], torch.nan) if unbounded.any() else pooled


def enlarged(pixels: Tensor, enlargement: float) -> Tensor:
    """Boxes ``[M, 4]`` (xyxy) with their sides multiplied about their centres."""
    if enlargement == 1:
        return pixels
    reach = (enlargement - 1) / 2 * (pixels[:, 2:] - pixels[:, :2])  # [M, 2]
    return torch.cat([pixels[:, :2] - reach, pixels[:, 2:] + reach], dim=1)


def levels(pixels: Tensor, strides: Sequence[int]) -> Tensor:
    """``[M]`` place in ``strides`` of each box's level (xyxy, pixels): 224 pixels of side belong to stride 16.

    That is FPN's equation 1 where every stride doubles the one before; in general it is the coarsest level that is not
    coarser than the box asks for.
    """
    sides = ((pixels[:, 2] - pixels[:, 0]) * (pixels[:, 3] - pixels[:, 1])).sqrt()
    # the epsilon stands inside the logarithm here, unlike in torchvision
    wanted = 4 + torch.log2(sides / 224 + 1e-8)  # [M], of which power of two the stride should be
    return sum(((wanted >= math.log2(stride)).long() for stride in strides[1:]), torch.zeros_like(wanted).long())
