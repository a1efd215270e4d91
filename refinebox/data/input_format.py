"""How a detector wants its images: how large, how padded, with which mean and deviation."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import clip_boxes_to_image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

Fit = Literal["shortest", "stretch", "letterbox"]
Rounding = Literal["authors", "detrex", "transformers", "torchvision", "mmdet"]
Resampling = Literal["nearest", "bilinear", "bicubic"]

MEAN = (0.485, 0.456, 0.406)  # ImageNet, RGB between 0 and 1
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputFormat:
    """How images become a detector's input; adapters say it once, and samples, prediction and export read it.

    Attributes:
        fit: ``shortest`` brings the short side to ``short_side`` unless the long side would pass ``long_side``;
            ``stretch`` brings both sides to ``height`` and ``width``, whatever the image's proportions; ``letterbox``
            makes the image as large as fits into ``height`` and ``width`` and pads it right and bottom.
        short_side, long_side: in pixels, of ``shortest``.
        height, width: in pixels, of the other two.
        multiple: sides are zero-padded, right and bottom, to a multiple of so many pixels.
        mean, std: of each channel, for pixels between 0 and 1; mean 0 and deviation 1 leave them between 0 and 1.
        rounding: whose code decides about the last pixel of a size; see :meth:`content`.
        resampling: between pixels.
        library: whose resampling it is; torch's differs from Pillow's by up to a grey value.
        antialias: whether torch looks at all pixels when it shrinks an image; Pillow always does.
        whole: whether resized pixels are rounded to whole grey values, as they are in most code.
        step: of ``shortest``; sides are rounded down to a multiple of so many pixels, which stretches images a little.
    """

    fit: Fit = "shortest"
    short_side: int = 800
    long_side: int = 1333
    height: int = 0
    width: int = 0
    multiple: int = 1
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    rounding: Rounding = "authors"
    resampling: Resampling = "bilinear"
    library: Literal["pillow", "torch"] = "pillow"
    antialias: bool = True
    whole: bool = True
    step: int = 1

    @property
    def fixed(self) -> bool:
        """Whether every batch has the same height and width."""
        return self.fit != "shortest"

    @property
    def side(self) -> int:
        """The shorter side that an image is brought to, about; what augmentation is measured by."""
        return min(self.height, self.width) if self.fixed else self.short_side

    def resized(self, short_side: int | None, long_side: int | None) -> Self:
        """The same with other sides; None leaves a side as it is.

        Raises:
            ValueError: the detector takes images of one size alone.
        """
        if self.fixed and (short_side or long_side):
            raise ValueError(
                f"this detector takes images of {self.height} x {self.width} pixels; leave out the short and long side"
            )
        return replace(self, short_side=short_side or self.short_side, long_side=long_side or self.long_side)

    def content(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in pixels that an image of this ``height`` and ``width`` is resized to, without padding.

        For ``shortest`` the rounding is that of the code the detector comes from, which differs by a pixel: the DETR
        authors round the shrunken short side first and the long side down from it, transformers does so from the short
        side not yet rounded, detectron2, which detrex uses, rounds both to nearest, as mmdetection does with one scale
        for both, and torchvision rounds both down.
        """
        if self.fit == "stretch":
            return self.height, self.width
        if self.fit == "letterbox":
            scale = min(self.height / height, self.width / width)
            return max(1, int(height * scale)), max(1, int(width * scale))
        short, long = min(height, width), max(height, width)
        if self.rounding == "detrex":
            shorter, longer = _nearest(short, long, self.short_side, self.long_side)
        elif self.rounding == "torchvision":
            shorter, longer = _down(short, long, self.short_side, self.long_side)
        elif self.rounding == "mmdet":
            scale = min(self.short_side / short, self.long_side / long)
            shorter, longer = max(1, int(short * scale + 0.5)), int(long * scale + 0.5)
        else:
            from_rounded = self.rounding == "authors"
            shorter, longer = _truncated(short, long, self.short_side, self.long_side, from_rounded=from_rounded)
        shorter, longer = (max(self.step, side - side % self.step) for side in (shorter, longer))
        return (shorter, longer) if height < width else (longer, shorter)

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that a batch is padded to whose largest contents are ``height`` and ``width``."""
        if self.fixed:
            height, width = max(height, self.height), max(width, self.width)
        return (-(-height // self.multiple) * self.multiple, -(-width // self.multiple) * self.multiple)

    def pixels(self, image: Image.Image) -> Tensor:
        """``[3, H, W]`` the RGB image resized: uint8, or float32 between 0 and 255 where pixels are not rounded.

        By Pillow where the source does so: torchvision resizes to slightly other pixels; what its decoder saves goes
        into handing them to Pillow.
        """
        height, width = self.content(image.height, image.width)
        if self.library == "pillow":
            if (height, width) != (image.height, image.width):
                image = image.resize((width, height), Image.Resampling[self.resampling.upper()])
            pixels: Tensor = transforms.pil_to_tensor(image)
            return pixels
        pixels = transforms.pil_to_tensor(image)
        if not self.whole:
            pixels = pixels.float()
        if (height, width) != (image.height, image.width):
            mode = InterpolationMode(self.resampling)
            pixels = transforms.resize(pixels, [height, width], mode, antialias=self.antialias)
        return pixels

    def normalise(self, pixels: Tensor) -> Tensor:
        """``[..., 3, H, W]`` float32 image of one between 0 and 255, with ``mean`` 0 and ``std`` 1 in each channel."""
        exact = pixels.dtype == torch.uint8
        scaled = transforms.to_dtype(pixels, torch.float32, scale=True) if exact else pixels / 255
        if any(self.mean) or set(self.std) != {1.0}:
            scaled = transforms.normalize(scaled, list(self.mean), list(self.std), inplace=True)
        normalised: Tensor = scaled
        return normalised

    def preprocess(self, image: Image.Image) -> Tensor:
        """``[3, H, W]`` the RGB image resized and normalised, without padding."""
        return self.normalise(self.pixels(image))

    def pad(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """One zero-padded batch ``[B, 3, H, W]`` (right and bottom) and the unpadded sizes ``[B, 2]``, in pixels."""
        return pad(images, self)

    def normalise_padded(self, batch: Tensor, sizes: Tensor) -> Tensor:
        """Pixels ``[B, 3, H, W]`` normalised; the padding around ``sizes`` ``[B, 2]`` is 0 after it, not before."""
        normalised = self.normalise(batch)
        for image, (height, width) in zip(normalised, sizes.tolist(), strict=True):
            image[:, height:] = 0
            image[:, :, width:] = 0
        return normalised


def pad(images: Sequence[Tensor], form: InputFormat | None = None) -> tuple[Tensor, Tensor]:
    """One zero-padded batch ``[B, 3, H, W]`` (right and bottom) and the unpadded sizes ``[B, 2]``, in pixels.

    It is as large as its images demand, and as ``form`` does where one is given.
    """
    if not images:
        return torch.empty(0, 3, 0, 0), torch.empty(0, 2, dtype=torch.int64)
    sizes = torch.tensor([image.shape[-2:] for image in images])
    height, width = sizes.amax(0).tolist()
    if form is not None:
        height, width = form.canvas(height, width)
    # channels last, as images are decoded and as detectors read them
    batch = torch.empty(len(images), 3, height, width, dtype=images[0].dtype, memory_format=torch.channels_last).zero_()
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes


def random_crop(
    image: Image.Image, boxes: Tensor, short_side: int, choice: random.Random
) -> tuple[Image.Image, Tensor]:
    """DETR's crop: the image at 400, 500 or 600 pixels, then a window of 384 to 600, all times ``short_side`` / 800.

    ``boxes`` are xyxy in pixels, of ``image`` before and of the returned image after; those outside have no area.
    """
    scale = short_side / 800
    target = InputFormat(short_side=round(choice.choice((400, 500, 600)) * scale), long_side=10**9)
    height, width = target.content(image.height, image.width)
    boxes = boxes * torch.tensor([width / image.width, height / image.height] * 2)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    low, high = (max(1, round(side * scale)) for side in (384, 600))
    window = [choice.randint(min(side, low), min(side, high)) for side in (height, width)]
    top, left = (choice.randint(0, side - cut) for side, cut in zip((height, width), window, strict=True))
    image = image.crop((left, top, left + window[1], top + window[0]))
    return image, clip_boxes_to_image(boxes - torch.tensor([left, top] * 2), (window[0], window[1]))


def _truncated(short: int, long: int, short_side: int, long_side: int, *, from_rounded: bool) -> tuple[int, int]:
    wanted: float = short_side
    if long / short * short_side > long_side:
        wanted = long_side * short / long
    rounded = max(1, round(wanted))  # some images are thinner than they can be shrunk
    if rounded == short:
        return short, long
    return rounded, int((rounded if from_rounded else wanted) * long / short)


def _nearest(short: int, long: int, short_side: int, long_side: int) -> tuple[int, int]:
    scale = short_side / short
    sides = float(short_side), scale * long
    if sides[1] > long_side:
        scale = long_side / sides[1]
        sides = sides[0] * scale, sides[1] * scale
    return max(1, int(sides[0] + 0.5)), int(sides[1] + 0.5)


def _down(short: int, long: int, short_side: int, long_side: int) -> tuple[int, int]:
    scale = min(short_side / short, long_side / long)
    return max(1, math.floor(short * scale)), math.floor(long * scale)
