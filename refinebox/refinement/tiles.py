"""A level of the pyramid that is computed only where boxes read it: real ones read a fifth of the finest map."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 8  # of a tile, in cells
REACH = 2  # cells that bilinear sampling reaches beyond a box, and one to be safe
MOST = 0.5  # share of the tiles from which on all are computed at once, which is cheaper than their seams


class TiledLevel:
    """A finest level ``[B, 64, H, W]`` that grows tile by tile; cells that no box has read are zero.

    Args:
        lateral, output: make the level's own cells and, of their sum with ``above``, its output; the one looks at a
            cell alone, the other at a rim of one as well, which its ``padding`` of zero takes for granted.
        feature: ``[B, C, H, W]`` the detector's map.
        above: ``[B, 64, H', W']`` what of the next coarser level the cells are added to.
        stride: pixels of a cell.
    """

    def __init__(self, lateral: nn.Module, output: nn.Module, feature: Tensor, above: Tensor, stride: int) -> None:
        self.lateral, self.output, self.feature, self.above, self.stride = lateral, output, feature, above, stride
        count, _, *self.sides = feature.shape
        self.map = first(feature.new_zeros(count, *self.sides, above.shape[1]))
        self.shape = self.map.shape
        self.done = torch.zeros(count, *(-(-side // SIDE) for side in self.sides), dtype=torch.bool)

    def around(self, rois: Tensor) -> Tensor:
        """``[B, 64, H, W]`` with all that RoIAlign reads of ``rois`` ``[M, 5]`` (image, xyxy in pixels)."""
        missing = self._under(rois) & ~self.done
        if torch.is_grad_enabled():
            missing[0, 0, 0] |= not self.done.any()  # so that weights get a gradient of zero rather than none
        if missing.float().mean() > MOST:
            missing = torch.ones_like(missing)
            above = F.interpolate(self.above, size=self.sides, mode="nearest")
            whole = self.output(self.lateral(self.feature) + above)
            self.map = whole.contiguous(memory_format=torch.channels_last)
        elif missing.any():
            self._fill(missing)
        self.done |= missing
        return self.map

    def _under(self, rois: Tensor) -> Tensor:
        """``[B, rows, columns]`` bool, the tiles that ``rois`` read; those beyond a border read the cells along it."""
        cells = rois[:, 1:] / self.stride + REACH * rois.new_tensor([-1, -1, 1, 1])
        x0, y0, x1, y1 = (cells / SIDE).floor().unbind(1)  # [M] each
        under = []
        for first, last, count in zip((y0, x0), (y1, x1), self.done.shape[1:], strict=True):
            tiles = torch.arange(count)
            under.append((first.clamp(max=count - 1)[:, None] <= tiles) & (tiles <= last.clamp(min=0)[:, None]))
        rows, columns = under  # [M, rows], [M, columns]
        read = torch.zeros(self.done.shape)
        read.index_add_(0, rois[:, 0].long(), (rows[:, :, None] & columns[:, None]).float())
        return read > 0

    def _fill(self, missing: Tensor) -> None:
        """Computes these tiles, each from its cells and a rim of one."""
        image, *corner = missing.nonzero().unbind(1)  # [T] each
        image = image[:, None, None]
        span = torch.arange(-1, SIDE + 1)
        rows, columns = (SIDE * start[:, None] + span for start in corner)  # [T, 10] each
        places = rows[:, :, None], columns[:, None]
        inside = torch.ones(1, dtype=torch.bool)
        for place, side in zip(places, self.sides, strict=True):
            inside = inside & (place >= 0) & (place < side)  # [T, 10, 10]
        row, column = (place.clamp(0, side - 1) for place, side in zip(places, self.sides, strict=True))
        up, left = (
            nearest(small, side)[place]
            for small, side, place in zip(self.above.shape[2:], self.sides, (row, column), strict=True)
        )
        cut = last(self.feature)[image, row, column]  # [T, 10, 10, C]
        merged = self.lateral(first(cut)) + first(last(self.above)[image, up, left])
        tiles = self.output(merged * inside[:, None], padding=0)  # beyond the map are zeros  [T, 64, 8, 8]
        own = inside[:, 1:-1, 1:-1]
        at = (place.expand_as(inside)[:, 1:-1, 1:-1][own] for place in (image, row, column))
        # in place but for gradients, whose earlier steps have read the map as it was
        put = torch.Tensor.index_put if torch.is_grad_enabled() else torch.Tensor.index_put_
        self.map = first(put(last(self.map), tuple(at), last(tiles)[own]))


def nearest(small: int, large: int) -> Tensor:
    """``[large]`` the indices out of ``small`` that ``F.interpolate`` takes."""
    indices = torch.arange(small, dtype=torch.float32)[None, None]
    return F.interpolate(indices, size=large, mode="nearest")[0, 0].long()


def last(maps: Tensor) -> Tensor:
    """``[B, C, H, W]`` as ``[B, H, W, C]``."""
    return maps.permute(0, 2, 3, 1)


def first(maps: Tensor) -> Tensor:
    """``[B, H, W, C]`` as ``[B, C, H, W]``."""
    return maps.permute(0, 3, 1, 2)
