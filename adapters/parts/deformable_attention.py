"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159, section 4.1) in plain torch.

Every query looks at a few points of every feature map instead of at all cells. A point reads the four cells around it;
all that a head reads for a query is one weighted sum of rows of a table, which ``embedding_bag`` takes in one pass
without keeping the rows.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shapes = tuple[tuple[int, int], ...]  # (h, w) of each level, fine to coarse


class MultiLevelMemory(NamedTuple):
    """Feature maps of several levels as one sequence of L tokens, fine to coarse, each level row by row.

    Attributes:
        tokens: ``[B, L, C]``.
        padding: ``[B, L]`` bool, True where a token lies in the padding.
        cells: ``[B, levels, 2]`` (columns, rows) of each level that lie in the image.
        shapes: (h, w) of each level.
    """

    tokens: Tensor
    padding: Tensor
    cells: Tensor
    shapes: Shapes

    @property
    def extent(self) -> Tensor:
        """``[levels, 2]`` (w, h) of each level."""
        return torch.tensor(self.shapes, device=self.tokens.device).flip(1).float()

    @property
    def valid_ratios(self) -> Tensor:
        """``[B, levels, 2]`` (x, y) the part of each level that lies in the image."""
        return self.cells / self.extent


class DeformableAttention(nn.Module):
    """One attention (equation 3)."""

    def __init__(self, width: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)

    def forward(self, query: Tensor, reference: Tensor, memory: MultiLevelMemory) -> Tensor:
        """``[B, N, C]``.

        Args:
            query: ``[B, N, C]`` content and position.
            reference: ``[B, N, levels, 2]`` points (x, y) or ``[B, N, levels, 4]`` boxes (cxcywh), fractions of each
                padded level. Offsets from a point are in cells; those from a box in ``points``-ths of half its sides
                (appendix A.4).
            memory: what is looked at.
        """
        value = self.value_proj(memory.tokens).masked_fill(memory.padding[..., None], 0.0)
        offsets = self.sampling_offsets(query).float()
        offsets = offsets.unflatten(-1, (self.heads, self.levels, self.points, 2))  # [B, N, heads, levels, points, 2]
        weights = self.attention_weights(query).float().unflatten(-1, (self.heads, -1)).softmax(-1)
        extent = memory.extent[:, None]  # [levels, 1, 2]
        places = reference[:, :, None, :, None, :2]  # [B, N, 1, levels, 1, 2]
        if reference.shape[-1] == 2:
            places = places + offsets / extent
        else:
            places = places + offsets / self.points * reference[:, :, None, :, None, 2:] * 0.5
        weights = weights.view(offsets.shape[:-1])
        attended: Tensor = self.output_proj(sample(value.float(), memory.shapes, places * extent - 0.5, weights))
        return attended


def sample(value: Tensor, shapes: Shapes, places: Tensor, weights: Tensor) -> Tensor:
    """``[B, N, C]`` weighted sums of bilinearly interpolated cells; what lies outside a level counts as 0.

    Args:
        value: ``[B, L, C]`` cells of all levels.
        shapes: (h, w) of each level.
        places: ``[B, N, heads, levels, points, 2]`` (x, y) in cells, 0 at the centre of the first.
        weights: ``[B, N, heads, levels, points]``.
    """
    batch, queries, heads = places.shape[:3]
    low = places.floor()
    part = places - low  # how far between two cells
    # 32-bit indices: half the memory, and nearly twice as fast on CPUs
    columns, rows = low.to(torch.int32).unbind(-1)
    last = torch.tensor(shapes, device=value.device, dtype=torch.int32)[:, :, None] - 1  # [levels, 2, 1]
    first = F.pad((last + 1).prod(1).cumsum(0), (0, 0, 1, -1)).to(torch.int32)  # [levels, 1] where each level starts
    image = torch.arange(batch, device=value.device, dtype=torch.int32).view(-1, 1, 1, 1, 1) * value.shape[1]
    head = torch.arange(heads, device=value.device, dtype=torch.int32).view(-1, 1, 1)
    indices, factors = [], []
    for down in (0, 1):
        row, row_factor = _neighbour(rows, part[..., 1], down, last[:, 0])
        for right in (0, 1):
            column, column_factor = _neighbour(columns, part[..., 0], right, last[:, 1])
            cell = image + first + row * (last[:, 1] + 1) + column
            indices.append(cell * heads + head)
            factors.append(weights * row_factor * column_factor)
    bags = torch.stack(indices, -1).flatten(0, 2).flatten(1)  # [B * N * heads, 4 * levels * points]
    amounts = torch.stack(factors, -1).flatten(0, 2).flatten(1)
    table = value.reshape(-1, value.shape[-1] // heads)  # [B * L * heads, C / heads]
    if torch.compiler.is_exporting():  # exported graphs have no bags, only rows
        return (table[bags.long()] * amounts[..., None]).sum(1).view(batch, queries, -1)
    sums = F.embedding_bag(bags, table, mode="sum", per_sample_weights=amounts)
    return sums.view(batch, queries, -1)


def _neighbour(low: Tensor, part: Tensor, step: int, last: Tensor) -> tuple[Tensor, Tensor]:
    """The cell at or after ``low`` along one axis and its share, which is 0 outside the level."""
    index = low + step
    inside = (index >= 0) & (index <= last)
    return index.clamp(min=0).minimum(last), (part if step else 1 - part) * inside
