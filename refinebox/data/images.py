"""Image files to normalised, padded batches, exactly as the code does it that a detector comes from."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import clip_boxes_to_image
from torchvision.transforms.v2 import functional as transforms

MEAN = (0.485, 0.456, 0.406)  # ImageNet, RGB between 0 and 1
STD = (0.229, 0.224, 0.225)

Layout = Literal["authors", "detrex", "transformers"]  # whose code a detector and its checkpoint come from


def read_image(path: Path) -> Image.Image:
    """The image in RGB, as stored (COCO annotations ignore EXIF rotation).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image that can be decoded to its end; the message names it.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is not there") from error
    except (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable image: {error}") from error


def resized(height: int, width: int, short_side: int, long_side: int, layout: Layout = "authors") -> tuple[int, int]:
    """(height, width) after resizing to ``short_side``, or less where the long side would pass ``long_side``.

    The rounding is that of the code the detector comes from, which differs by a pixel: the DETR authors round the
    shrunken short side first and the long side down from it, transformers does so from the short side not yet rounded,
    and detectron2, which detrex uses, rounds both to nearest.
    """
    short, long = min(height, width), max(height, width)
    if layout == "detrex":
        shorter, longer = _rounded(short, long, short_side, long_side)
    else:
        shorter, longer = _truncated(short, long, short_side, long_side, from_rounded=layout == "authors")
    return (shorter, longer) if height < width else (longer, shorter)


def _truncated(short: int, long: int, short_side: int, long_side: int, *, from_rounded: bool) -> tuple[int, int]:
    wanted: float = short_side
    if long / short * short_side > long_side:
        wanted = long_side * short / long
    rounded = max(1, round(wanted))  # some images are thinner than they can be shrunk
    if rounded == short:
        return short, long
    return rounded, int((rounded if from_rounded else wanted) * long / short)


def _rounded(short: int, long: int, short_side: int, long_side: int) -> tuple[int, int]:
    scale = short_side / short
    sides = float(short_side), scale * long
    if sides[1] > long_side:
        scale = long_side / sides[1]
        sides = sides[0] * scale, sides[1] * scale
    return max(1, int(sides[0] + 0.5)), int(sides[1] + 0.5)


def preprocess(image: Image.Image, short_side: int, long_side: int, layout: Layout = "authors") -> Tensor:
    """``[3, H, W]`` normalised image, resized as :func:`to_pixels` does it."""
    return normalise(to_pixels(image, short_side, long_side, layout))


def to_pixels(image: Image.Image, short_side: int, long_side: int, layout: Layout = "authors") -> Tensor:
    """``[3, H, W]`` uint8 image, resized (bilinear, antialiased, on 8-bit values) as :func:`resized` says.

    By Pillow: torchvision resizes to slightly other pixels; what its decoder saves goes into handing them to Pillow.
    """
    height, width = resized(image.height, image.width, short_side, long_side, layout)
    if (height, width) != (image.height, image.width):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels: Tensor = transforms.pil_to_tensor(image)
    return pixels


def normalise(pixels: Tensor) -> Tensor:
    """``[..., 3, H, W]`` float image of a uint8 one, with ImageNet mean 0 and deviation 1 in each channel."""
    scaled = transforms.to_dtype(pixels, torch.float32, scale=True)
    normalised: Tensor = transforms.normalize(scaled, list(MEAN), list(STD), inplace=True)
    return normalised


def random_crop(
    image: Image.Image, boxes: Tensor, short_side: int, choice: random.Random
) -> tuple[Image.Image, Tensor]:
    """DETR's crop: the image at 400, 500 or 600 pixels, then a window of 384 to 600, all times ``short_side`` / 800.

    ``boxes`` are xyxy in pixels, of ``image`` before and of the returned image after; those outside have no area.
    """
    scale = short_side / 800
    height, width = resized(image.height, image.width, round(choice.choice((400, 500, 600)) * scale), 10**9)
    boxes = boxes * torch.tensor([width / image.width, height / image.height] * 2)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    low, high = round(384 * scale), round(600 * scale)
    window = [choice.randint(min(side, low), min(side, high)) for side in (height, width)]
    top, left = (choice.randint(0, side - cut) for side, cut in zip((height, width), window, strict=True))
    image = image.crop((left, top, left + window[1], top + window[0]))
    return image, clip_boxes_to_image(boxes - torch.tensor([left, top] * 2), (window[0], window[1]))


def pad(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """One zero-padded batch ``[B, 3, H, W]`` (right and bottom) and the unpadded sizes ``[B, 2]`` (height, width)."""
    if not images:
        return torch.empty(0, 3, 0, 0), torch.empty(0, 2, dtype=torch.int64)
    sizes = torch.tensor([image.shape[-2:] for image in images])
    height, width = sizes.amax(0).tolist()
    # channels last, as images are decoded and as detectors read them
    batch = torch.empty(len(images), 3, height, width, dtype=images[0].dtype, memory_format=torch.channels_last).zero_()
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes


def normalise_padded(batch: Tensor, sizes: Tensor) -> Tensor:
    """A uint8 batch ``[B, 3, H, W]`` normalised; the padding around ``sizes`` ``[B, 2]`` is 0 after it, not before."""
    normalised = normalise(batch)
    for image, (height, width) in zip(normalised, sizes.tolist(), strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    return normalised
