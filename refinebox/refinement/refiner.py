"""The refiner: a pyramid, RoIAlign, and a head that moves each box, a few times with one set of weights.

With the architecture ``published`` it equals the published network (RefineBox, arXiv 2307.11828, section 3), and module
names are those of the published files.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from refinebox.boxes import to_pixels
from refinebox.detection.output import DetectorOutput
from refinebox.refinement.architecture import PUBLISHED, Architecture
from refinebox.refinement.head import BoxHead
from refinebox.refinement.move import moved
from refinebox.refinement.pooling import pool
from refinebox.refinement.pyramid import STEM_STRIDE, WIDTH, FeaturePyramid
from refinebox.refinement.quality import Quality
from refinebox.refinement.tiles import TiledLevel


class Refiner(nn.Module):
    """Moves boxes to where the features say they belong.

    Args:
        channels: of the detector's feature maps, fine to coarse.
        strides: of the same maps, in pixels.
        steps: how often the boxes are moved.
        architecture: the parts it is made of.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int] = (4, 8, 16, 32),
        steps: int = 3,
        architecture: Architecture = PUBLISHED,
    ) -> None:
        super().__init__()
        if len(channels) != len(strides):
            raise ValueError(
                f"{len(channels)} channel counts for {len(strides)} strides; expected one of each for every feature map"
            )
        self.channels, self.strides, self.steps = tuple(channels), tuple(strides), steps
        self.architecture = architecture
        self.levels = (*((STEM_STRIDE,) if architecture.stem else ()), *self.strides)  # strides of the pyramid
        self.channel_mapper = FeaturePyramid(channels, fused=architecture.pyramid == "fused", stem=architecture.stem)
        # a relative move of zero is no move, which is where to start from
        self.bboxes_refiner = BoxHead(
            placed=architecture.placed,
            still=architecture.moves == "relative",
            cells=architecture.cells,
            blocks=architecture.blocks,
        )
        self.quality: Quality | None = None  # trained when the boxes are

    def reads(self, output: DetectorOutput) -> tuple[Tensor, ...]:
        """What it reads of a detector's output: the feature maps, and before them the images if it has a stem."""
        if not self.architecture.stem:
            return output.features
        if output.images is None:
            raise ValueError(
                "this refiner looks at the pixels, but the output has no images; pass what a detector gave"
            )
        return (output.images, *output.features)

    def forward(self, features: Sequence[Tensor], boxes: Tensor, sizes: Tensor) -> list[Tensor]:
        """The boxes after each step, a list of ``[B, N, 4]`` in the format and frame of ``boxes``.

        Args:
            features: the detector's maps, ``[B, C_l, H_l, W_l]`` each, as :meth:`reads` says.
            boxes: ``[B, N, 4]`` cxcywh, fractions of the unpadded image.
            sizes: ``[B, 2]`` (height, width) of the unpadded images as the detector saw them, in pixels.
        """
        image = torch.arange(boxes.shape[0], device=boxes.device).repeat_interleave(boxes.shape[1])  # [B * N]
        return [step.view_as(boxes) for step in self.refine(features, boxes.flatten(0, 1), image, sizes)]

    def refine(self, features: Sequence[Tensor], boxes: Tensor, image: Tensor, sizes: Tensor) -> list[Tensor]:
        """As :meth:`forward` for boxes ``[M, 4]`` from any images, box m from image ``image[m]``.

        Gradients flow from step to step through the boxes, not through RoIAlign.
        """
        return self.refine_and_look(features, boxes, image, sizes)[0]

    def refine_and_look(
        self, features: Sequence[Tensor], boxes: Tensor, image: Tensor, sizes: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """As :meth:`refine`, and ``[M, 64]`` what the head saw of each box before it moved it for the last time."""
        pyramid = self.channel_mapper.where_read(features, self.levels[0])
        steps, seen = [], boxes.new_zeros(boxes.shape[0], WIDTH)
        for _ in range(self.steps):
            seen = self.bboxes_refiner.summary(self.pool(pyramid, boxes, image, sizes))
            boxes = moved(boxes, self.bboxes_refiner.moves(seen), self.architecture.moves)
            steps.append(boxes)
        return steps, seen

    def pool(self, pyramid: Sequence[Tensor | TiledLevel], boxes: Tensor, image: Tensor, sizes: Tensor) -> Tensor:
        """``[M, 64, cells, cells]`` features in and around boxes ``[M, 4]`` (cxcywh, fractions)."""
        pixels = to_pixels(boxes[:, None], sizes[image])[:, 0]  # [M, 4]
        parts = self.architecture
        return pool(pyramid, self.levels, pixels, image, parts.enlargement, parts.cells)
