"""Images on a grey square, as detectors see them that were trained with large-scale jitter (arXiv 2012.07177).

Their training pads every image, right and bottom, to one square and never tells the network where the image ends. So
the padding is image to them, and boxes are fractions of the square.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from refinebox.detection.output import DetectorOutput

# ImageNet's mean and deviation of 8-bit RGB, and the grey that images are padded with
MEAN, STD, GREY = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 114.0


def on_square(images: Tensor, sizes: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The normalised batch on squares of at least ``side`` pixels, grey around each image, and the squares' sizes."""
    side = max(side, *images.shape[-2:])
    grey = (GREY - images.new_tensor(MEAN)) / images.new_tensor(STD)
    canvas = grey[:, None, None].expand(len(images), 3, side, side).clone(memory_format=torch.channels_last)
    for target, image, (height, width) in zip(canvas, images, sizes.tolist(), strict=True):
        target[:, :height, :width] = image[:, :height, :width]
    return canvas, torch.full_like(sizes, side)


def off_square(output: DetectorOutput, sizes: Tensor, squares: Tensor, image: tuple[int, int]) -> DetectorOutput:
    """``output`` for the squares as one for the batch: boxes as fractions of each image, maps without the rest."""
    factor = (squares / sizes).flip(1).repeat(1, 2)[:, None]  # [B, 1, 4]
    return DetectorOutput(cropped(output.features, image, int(squares[0, 0])), output.boxes * factor, output.logits)


def cropped(features: Sequence[Tensor], image: tuple[int, int], side: int) -> tuple[Tensor, ...]:
    """The part of the square's maps that the batch of (H, W) ``image`` covers."""
    height, width = image
    found = []
    for feature in features:
        stride = side / feature.shape[-1]
        found.append(feature[..., : -int(-height // stride), : -int(-width // stride)])
    return tuple(found)


def limits(size: tuple[int, int], side: int) -> tuple[float, float]:
    """(height, width) of the square in pixels of the original image of ``size``, which was shrunk or grown into it."""
    scale = side / max(size)
    height, width = (side * length / int(length * scale + 0.5) for length in size)
    return height, width
