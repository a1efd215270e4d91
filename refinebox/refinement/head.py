"""From the features inside a box to what is known of it, and to a move: residual blocks, a summary, an MLP."""

import torch
from torch import Tensor, nn

from refinebox.refinement.pooling import ROI_SIDE
from refinebox.refinement.pyramid import WIDTH

GROUPS = 32  # of the group normalisation
REDUCED = 16  # channels of the map that keeps its places


class BoxHead(nn.Module):
    """``[M, 64, cells, cells]`` features inside boxes to moves ``[M, 4]`` of cx, cy, w, h.

    Args:
        placed: summarise by :class:`Places` beside the mean, which alone hardly tells where in the box anything is.
        still: start from moves of zero.
        cells: of a side, 7 or 14.
        blocks: residual ones.
    """

    def __init__(self, *, placed: bool = False, still: bool = False, cells: int = ROI_SIDE, blocks: int = 3) -> None:
        super().__init__()
        self.halved = Halved() if cells > ROI_SIDE else None
        self.res_block = nn.Sequential(*(Bottleneck() for _ in range(blocks)))
        self.reg_module = nn.Sequential(
            nn.Linear(WIDTH, WIDTH, bias=False),
            nn.LayerNorm(WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, WIDTH, bias=False),
            nn.LayerNorm(WIDTH),
            nn.ReLU(),
        )
        self.bboxes_deltas = nn.Linear(WIDTH, 4)
        self.places = Places() if placed else None
        if still:
            nn.init.zeros_(self.bboxes_deltas.weight)
            nn.init.zeros_(self.bboxes_deltas.bias)

    def summary(self, pooled: Tensor) -> Tensor:
        """``[M, 64]`` what the features ``[M, 64, cells, cells]`` say about each box."""
        blocks = self.res_block(pooled if self.halved is None else self.halved(pooled))
        mean: Tensor = blocks.mean((2, 3))
        return mean if self.places is None else mean + self.places(blocks)

    def moves(self, summary: Tensor) -> Tensor:
        """``[M, 4]`` from ``[M, 64]``."""
        moves: Tensor = self.bboxes_deltas(self.reg_module(summary))
        return moves

    def forward(self, pooled: Tensor) -> Tensor:
        return self.moves(self.summary(pooled))


class Halved(nn.Conv2d):
    """``[M, 64, 14, 14]`` to ``[M, 64, 7, 7]``: near the mean of four cells at first, then whatever shows edges."""

    def __init__(self) -> None:
        super().__init__(WIDTH, WIDTH, 2, stride=2, bias=False)
        with torch.no_grad():
            self.weight.mul_(0.3).add_(torch.eye(WIDTH)[:, :, None, None] / 4)


class Places(nn.Module):
    """``[M, 64, 7, 7]`` to ``[M, 64]`` with a weight for every place: fewer channels, centred, flattened, projected.

    Without centring, what all places and boxes have in common adds up over 784 weights that Adam moves alike; the
    normalisation behind it then leaves nothing of what tells boxes apart, and the head learns a constant move.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(WIDTH, REDUCED, 1, bias=False)
        self.project = nn.Linear(REDUCED * ROI_SIDE**2, WIDTH, bias=False)

    def forward(self, blocks: Tensor) -> Tensor:
        reduced = self.reduce(blocks)  # [M, 16, 7, 7]
        summary: Tensor = self.project((reduced - reduced.mean((2, 3), keepdim=True)).flatten(1))
        return summary


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions, all 64 channels wide, each with group normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = NormedConv(1)
        self.conv2 = NormedConv(3)
        self.conv3 = NormedConv(1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3(self.conv2(self.conv1(x).relu()).relu())
        return (out + x).relu()


class NormedConv(nn.Conv2d):
    """Convolution without bias, then group normalisation; they share a name in the published files."""

    def __init__(self, kernel: int) -> None:
        super().__init__(WIDTH, WIDTH, kernel, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.GroupNorm(GROUPS, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(super().forward(x))
        return normed
