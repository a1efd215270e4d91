"""Image files to normalised, padded batches, exactly as the DETR authors do it."""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import clip_boxes_to_image
from torchvision.transforms.v2 import functional as transforms

MEAN = (0.485, 0.456, 0.406)  # ImageNet, RGB between 0 and 1
STD = (0.229, 0.224, 0.225)


def read_image(path: Path) -> Image.Image:
    """The image in RGB, as stored (COCO annotations ignore EXIF rotation).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image that can be decoded to its end; the message names it.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable image: {error}") from error


def resized(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """(height, width) after resizing to ``short_side``, or less where the long side would pass ``long_side``.

    Rounds as the DETR authors do: the shrunken short side to nearest, the long side down.
    """
    short, long = min(height, width), max(height, width)
    if long / short * short_side > long_side:
        short_side = round(long_side * short / long)
    if short == short_side:
        return height, width
    short_side = max(1, short_side)  # of an image that is thinner than it can be shrunk
    if height < width:
        return short_side, int(short_side * width / height)
    return int(short_side * height / width), short_side


def preprocess(image: Image.Image, short_side: int, long_side: int) -> Tensor:
    """``[3, H, W]`` normalised image, resized (bilinear, antialiased, on 8-bit values) as :func:`resized` says."""
    height, width = resized(image.height, image.width, short_side, long_side)
    if (height, width) != (image.height, image.width):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return normalise(image)


def normalise(image: Image.Image) -> Tensor:
    """``[3, H, W]`` float image with ImageNet mean 0 and deviation 1 in each channel."""
    pixels = transforms.to_dtype(transforms.pil_to_tensor(image), torch.float32, scale=True)
    normalised: Tensor = transforms.normalize(pixels, list(MEAN), list(STD))
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
    sizes = torch.tensor([image.shape[-2:] for image in images])
    height, width = sizes.amax(0).tolist()
    batch = torch.zeros(len(images), 3, height, width)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes
