"""The refiner's feature pyramid (FPN, section 3): the detector's maps, fused from coarse to fine."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 64  # channels of the pyramid and of everything after it


class FeaturePyramid(nn.Module):
    """Top-down sum fusion to 64 channels, without norm or activation; sizes may be odd.

    Args:
        channels: of the detector's maps, fine to coarse.
        smoothed: end every level with a 3x3 convolution, as published; it is most of the pyramid's cost.
    """

    def __init__(self, channels: Sequence[int], *, smoothed: bool = True) -> None:
        super().__init__()
        self.levels, self.smoothed = range(2, 2 + len(channels)), smoothed  # names count from stride 4, res2
        for level, inputs in zip(self.levels, channels, strict=True):
            lateral, output = nn.Conv2d(inputs, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
            for convolution in (lateral, output):
                nn.init.kaiming_uniform_(convolution.weight, a=1)
                nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            self.add_module(f"fpn_lateral{level}", lateral)
            if smoothed:
                self.add_module(f"fpn_output{level}", output)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """``[B, 64, H_l, W_l]`` for each feature map, fine to coarse."""
        pyramid: list[Tensor] = []
        above = None
        for level, feature in reversed(list(zip(self.levels, features, strict=True))):
            merged = self.get_submodule(f"fpn_lateral{level}")(feature)
            if above is not None:
                merged = merged + F.interpolate(above, size=merged.shape[-2:], mode="nearest")
            above = merged
            ended = self.get_submodule(f"fpn_output{level}")(merged) if self.smoothed else merged
            # laid out once as RoIAlign reads it, which would otherwise do so at every step
            pyramid.insert(0, ended.contiguous())
        return pyramid
