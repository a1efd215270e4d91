"""The refiner's feature pyramid (FPN, section 3): the detector's maps, fused from coarse to fine."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refinebox.refinement.tiles import TiledLevel

WIDTH = 64  # channels of the pyramid and of everything after it
STEM_STRIDE = 4
STEM_REACH = 16  # pixels to each side that its level, smoothed, may look at


class FeaturePyramid(nn.Module):
    """Top-down sum fusion to 64 channels, without norm or activation; sizes may be odd.

    Args:
        channels: of the detector's maps, fine to coarse.
        smoothed: end every level with a 3x3 convolution, as published; it is most of the pyramid's cost.
        stem: before these maps comes the image itself, of which :class:`Stem` makes a level of stride 4.
    """

    def __init__(self, channels: Sequence[int], *, smoothed: bool = True, stem: bool = False) -> None:
        super().__init__()
        # names count from stride 4, res2, below which the stem stands
        self.levels, self.smoothed = range(1 if stem else 2, 2 + len(channels)), smoothed
        for level, inputs in zip(self.levels, (*((3,) if stem else ()), *channels), strict=True):
            lateral, output = nn.Conv2d(inputs, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
            for convolution in (lateral, output):
                nn.init.kaiming_uniform_(convolution.weight, a=1)
                nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            self.add_module(f"fpn_lateral{level}", Stem() if level == 1 else lateral)
            if smoothed:
                self.add_module(f"fpn_output{level}", output)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """``[B, 64, H_l, W_l]`` for each feature map, fine to coarse."""
        # laid out once as RoIAlign reads it, which would otherwise do so at every step
        return [self._ended(level, merged).contiguous() for level, merged in self._merged(features).items()]

    def where_read(self, features: Sequence[Tensor], stride: int) -> list[Tensor | TiledLevel]:
        """As :meth:`forward`, but of the finest level, of this ``stride``, only what boxes will read.

        Worth it on a CPU. An exported graph cannot hold it, and stems have none.
        """
        finest, tiles = self.levels[0], self.smoothed and len(features) > 1 and features[0].device.type == "cpu"
        if not tiles or finest == 1 or torch.compiler.is_exporting():
            return [*self(features)]
        merged = self._merged(features[1:])
        lateral, output = (cast(nn.Conv2d, self.get_submodule(f"fpn_{part}{finest}")) for part in ("lateral", "output"))
        tiled = TiledLevel(lateral, output, features[0], merged[finest + 1], stride)
        return [tiled, *(self._ended(level, each).contiguous() for level, each in merged.items())]

    def _merged(self, features: Sequence[Tensor]) -> dict[int, Tensor]:
        """The last of the levels, fine to coarse, before their output convolutions."""
        merged: dict[int, Tensor] = {}
        for level, feature in zip(reversed(self.levels), reversed(features), strict=False):
            own = self.get_submodule(f"fpn_lateral{level}")(feature)
            if merged:
                own = own + F.interpolate(merged[level + 1], size=own.shape[-2:], mode="nearest")
            merged[level] = own
        return dict(reversed(merged.items()))

    def _ended(self, level: int, merged: Tensor) -> Tensor:
        ended: Tensor = self.get_submodule(f"fpn_output{level}")(merged) if self.smoothed else merged
        return ended


class Stem(nn.Sequential):
    """``[B, 3, H, W]`` pixels to ``[B, 64, H / 4, W / 4]``: what the detector's coarse maps no longer know.

    It has no normalisation, which would depend on pixels far from any box that a cache does not keep.
    """

    def __init__(self) -> None:
        convolutions = [
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1) for inputs, outputs in pairwise((3, WIDTH // 2, WIDTH))
        ]
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        super().__init__(convolutions[0], nn.ReLU(), convolutions[1])
