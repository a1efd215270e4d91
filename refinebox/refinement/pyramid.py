"""The refiner's feature pyramid: the detector's maps, brought to one width and merged from coarse to fine."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refinebox.refinement.tiles import TiledLevel

WIDTH = 64  # channels of the pyramid and of everything after it
STEM_STRIDE = 4
STEM_REACH = 16  # pixels to each side that its level may look at


class FeaturePyramid(nn.Module):
    """Maps of 64 channels, each with what all coarser ones say; sizes may be odd.

    As published it is FPN (arXiv 1612.03144, section 3): sums from coarse to fine, then a 3x3 convolution of each,
    without norm or activation. ``fused``, every sum goes through an activation, its convolution and a normalisation
    before it is added to the next finer level, as on the way down of EfficientDet's BiFPN (arXiv 1911.09070, section
    3.3). A way up again would make fine cells matter to large boxes, which neither tiles nor a cache could leave out.

    Args:
        channels: of the detector's maps, fine to coarse.
        fused: as described.
        stem: before these maps comes the image itself, of which :class:`Stem` makes a level of stride 4.
    """

    def __init__(self, channels: Sequence[int], *, fused: bool = False, stem: bool = False) -> None:
        super().__init__()
        # names count from stride 4, res2, below which the stem stands
        self.levels, self.fused = range(1 if stem else 2, 2 + len(channels)), fused
        inputs = (*((3,) if stem else ()), *channels)
        for level, count in zip(self.levels, inputs, strict=True):
            lateral = NormedLateral(count) if fused else Lateral(count)
            self.add_module(f"fpn_lateral{level}", Stem() if level == 1 else lateral)
            self.add_module(f"fpn_output{level}", Fusion() if fused else Smoothing())

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """``[B, 64, H_l, W_l]`` for each feature map, fine to coarse."""
        return self._made(features)[0]

    def where_read(self, features: Sequence[Tensor], stride: int) -> list[Tensor | TiledLevel]:
        """As :meth:`forward`, but of the finest level, of this ``stride``, only what boxes will read.

        Worth it on a CPU. An exported graph cannot hold it, and stems have none.
        """
        finest, tiles = self.levels[0], len(features) > 1 and features[0].device.type == "cpu"
        if not tiles or finest == 1 or torch.compiler.is_exporting():
            return [*self(features)]
        coarser, above = self._made(features[1:])
        return [TiledLevel(self._lateral(finest), self._output(finest), features[0], above, stride), *coarser]

    def _made(self, features: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """The last of the levels, fine to coarse, and what the next finer one is to be merged with."""
        made: list[Tensor] = []
        above: Tensor | None = None
        for level, feature in zip(reversed(self.levels), reversed(features), strict=False):
            merged = self._lateral(level)(feature)
            if above is not None:
                merged = merged + F.interpolate(above, size=merged.shape[-2:], mode="nearest")
            # laid out once as pooling reads it, which would otherwise do so at every step
            made.insert(0, self._output(level)(merged).contiguous(memory_format=torch.channels_last))
            above = made[0] if self.fused else merged
        return made, cast(Tensor, above)

    def _lateral(self, level: int) -> nn.Module:
        return self.get_submodule(f"fpn_lateral{level}")

    def _output(self, level: int) -> nn.Module:
        return self.get_submodule(f"fpn_output{level}")


class Lateral(nn.Conv2d):
    """``[B, C, H, W]`` to ``[B, 64, H, W]``."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, WIDTH, 1)
        start(self)


class Smoothing(nn.Conv2d):
    """What ends a level of FPN: a 3x3 convolution."""

    def __init__(self) -> None:
        super().__init__(WIDTH, WIDTH, 3, padding=1)
        start(self)

    def forward(self, merged: Tensor, padding: int = 1) -> Tensor:
        """``[B, 64, H, W]``, less a rim of one cell without ``padding``."""
        return F.conv2d(merged, self.weight, self.bias, padding=padding)


class CellNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each cell of ``[B, C, H, W]``, which no other cell has a part in.

    That of groups over whole maps would depend on cells far from any box, which neither tiles nor caches have.
    """

    def __init__(self) -> None:
        super().__init__(WIDTH)

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NormedLateral(Lateral):
    """``[B, C, H, W]`` to ``[B, 64, H, W]``, every cell normalised, so that no map outweighs the others in a sum."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.norm = CellNorm()

    def forward(self, feature: Tensor) -> Tensor:
        normed: Tensor = self.norm(super().forward(feature))
        return normed


class Fusion(Smoothing):
    """What ends a level that is fused: an activation, a 3x3 convolution, a normalisation of every cell."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = CellNorm()

    def forward(self, merged: Tensor, padding: int = 1) -> Tensor:
        normed: Tensor = self.norm(super().forward(F.silu(merged), padding))
        return normed


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


def start(convolution: nn.Conv2d) -> None:
    """The first weights, as published."""
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
