"""The refiner: FPN, RoIAlign, residual blocks and an MLP that moves each box, three times with one set of weights.

Equal to the published network (RefineBox, arXiv 2307.11828, section 3); module names are those of the published files.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from refinebox.boxes import inverse_sigmoid, to_pixels

WIDTH = 64  # channels of the pyramid and of everything after it
GROUPS = 32  # of the group normalisation
ROI_SIDE = 7


class Refiner(nn.Module):
    """Moves boxes to where the features say they belong.

    Args:
        channels: of the detector's feature maps, fine to coarse.
        strides: of the same maps, in pixels.
        steps: how often the boxes are moved.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int] = (4, 8, 16, 32), steps: int = 3) -> None:
        super().__init__()
        if len(channels) != len(strides):
            raise ValueError(
                f"{len(channels)} channel counts for {len(strides)} strides; expected one of each for every feature map"
            )
        self.channels, self.strides, self.steps = tuple(channels), tuple(strides), steps
        self.channel_mapper = FeaturePyramid(channels)
        self.bboxes_refiner = BoxHead()

    def forward(self, features: Sequence[Tensor], boxes: Tensor, sizes: Tensor) -> list[Tensor]:
        """The boxes after each step, a list of ``[B, N, 4]`` in the format and frame of ``boxes``.

        Args:
            features: the detector's maps, ``[B, C_l, H_l, W_l]`` each.
            boxes: ``[B, N, 4]`` cxcywh, fractions of the unpadded image.
            sizes: ``[B, 2]`` (height, width) of the unpadded images as the detector saw them, in pixels.
        """
        image = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])  # [B * N]
        return [step.view_as(boxes) for step in self.refine(features, boxes.flatten(0, 1), image, sizes)]

    def refine(self, features: Sequence[Tensor], boxes: Tensor, image: Tensor, sizes: Tensor) -> list[Tensor]:
        """As :meth:`forward` for boxes ``[M, 4]`` from any images, box m from image ``image[m]``.

        Gradients flow from step to step through the boxes' logits, not through RoIAlign.
        """
        pyramid = self.channel_mapper(features)
        steps = []
        for _ in range(self.steps):
            pixels = to_pixels(boxes[:, None], sizes[image])[:, 0]  # [M, 4]
            pooled = self.pool(pyramid, pixels, image)
            boxes = (inverse_sigmoid(boxes) + self.bboxes_refiner(pooled)).sigmoid().clamp(0, 1)
            steps.append(boxes)
        return steps

    def pool(self, pyramid: Sequence[Tensor], pixels: Tensor, image: Tensor) -> Tensor:
        """``[M, 64, 7, 7]`` features inside boxes ``[M, 4]`` (xyxy, pixels, not clipped), each from its own level."""
        rois = torch.cat([image[:, None].to(pixels), pixels], dim=1)  # [M, 5]
        level_of = levels(pixels, self.strides)
        pooled = pixels.new_zeros(len(pixels), WIDTH, ROI_SIDE, ROI_SIDE)
        for level, (feature, stride) in enumerate(zip(pyramid, self.strides, strict=True)):
            # a level without boxes takes part too, so that its weights get a gradient of zero rather than none
            rows = (level_of == level).nonzero()[:, 0]
            pooled[rows] = roi_align(feature, rois[rows], ROI_SIDE, 1 / stride, sampling_ratio=2, aligned=True)
        return pooled


def levels(pixels: Tensor, strides: Sequence[int]) -> Tensor:
    """``[M]`` pyramid level of each box (xyxy, pixels): 224 pixels of side belong to stride 16 (FPN, equation 1)."""
    sides = ((pixels[:, 2] - pixels[:, 0]) * (pixels[:, 3] - pixels[:, 1])).sqrt()
    # the epsilon stands inside the logarithm here, unlike in torchvision
    level = (4 + torch.log2(sides / 224 + 1e-8)).floor()
    finest = round(math.log2(strides[0]))
    return level.clamp(finest, finest + len(strides) - 1).long() - finest


class FeaturePyramid(nn.Module):
    """Top-down sum fusion to 64 channels, without norm or activation; sizes may be odd."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.levels = range(2, 2 + len(channels))  # names count from the published stride 4, res2
        for level, inputs in zip(self.levels, channels, strict=True):
            lateral, output = nn.Conv2d(inputs, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
            for convolution in (lateral, output):
                nn.init.kaiming_uniform_(convolution.weight, a=1)
                nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            self.add_module(f"fpn_lateral{level}", lateral)
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
            # laid out once as RoIAlign reads it, which would otherwise do so at every step
            pyramid.insert(0, self.get_submodule(f"fpn_output{level}")(merged).contiguous())
        return pyramid


class BoxHead(nn.Module):
    """Residual blocks, average pooling, MLP: ``[M, 64, 7, 7]`` to moves ``[M, 4]`` of the logits of cx, cy, w, h."""

    def __init__(self) -> None:
        super().__init__()
        self.res_block = nn.Sequential(*(Bottleneck() for _ in range(3)))
        self.reg_module = nn.Sequential(
            nn.Linear(WIDTH, WIDTH, bias=False),
            nn.LayerNorm(WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, WIDTH, bias=False),
            nn.LayerNorm(WIDTH),
            nn.ReLU(),
        )
        self.bboxes_deltas = nn.Linear(WIDTH, 4)

    def forward(self, pooled: Tensor) -> Tensor:
        moves: Tensor = self.bboxes_deltas(self.reg_module(self.res_block(pooled).mean((2, 3))))
        return moves


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
