"""How a library prepares its images, found out by giving it some."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from refinebox.detection.profile import InputFormat

HEIGHT, WIDTH = 300, 451  # of the images given, in pixels
GREY = 3.0 / 255  # the most that another library's resampling may differ from ours
RESAMPLINGS: tuple[dict[str, Any], ...] = (
    {"library": "pillow"},
    {"library": "torch", "antialias": False},  # what OpenCV does
    {"library": "torch"},
    {"library": "pillow", "resampling": "bicubic"},
    {"library": "torch", "antialias": False, "resampling": "bicubic"},
)


@dataclass(frozen=True)
class Convention:
    """How a library's images differ from ours.

    Attributes:
        channels: which of red, green and blue each of its channels is.
        padding: what it fills the padding with, one value for each of its channels, normalised.
    """

    channels: tuple[int, ...]
    padding: tuple[float, ...]

    def applied(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Our ``[B, 3, H, W]`` images as the library makes them; ``sizes`` ``[B, 2]`` are without padding."""
        rows = torch.arange(images.shape[-2], device=images.device) < sizes[:, :1]  # [B, H]
        columns = torch.arange(images.shape[-1], device=images.device) < sizes[:, 1:]  # [B, W]
        inside = (rows[:, :, None] & columns[:, None, :])[:, None]  # [B, 1, H, W]
        fill = images.new_tensor(self.padding)[:, None, None]
        return torch.where(inside, images[:, list(self.channels)], fill)


def measure(preprocess: Callable[[Image.Image], Any]) -> tuple[InputFormat, Convention]:
    """The input format of a library's own preprocessing, and what an input format does not say.

    Args:
        preprocess: takes a picture and returns ``[1, 3, H, W]`` first.

    Raises:
        ValueError: no input format gives the same; the message says in what they differ.
    """

    def given(image: Image.Image) -> Tensor:
        tensor: Tensor = preprocess(image)[0][0].float()
        return tensor  # [3, H, W]

    black, white = (given(_plain(colour)) for colour in ((0, 0, 0), (255, 255, 255)))
    inside = (white != black).any(0)  # [H, W]
    height, width = int(inside.any(1).sum()), int(inside.any(0).sum())
    if not inside[:height, :width].all():
        raise ValueError("it pads images on the left or above; expected right and below")
    channels = []
    for channel in range(3):
        changes = [_differs(given(_plain(colour)), black, channel) for colour in _primaries()]
        channels.append(changes.index(True))
    low, high = black[:, 0, 0].double(), white[:, 0, 0].double()
    std = [1 / (high - low)[channels.index(colour)].item() for colour in range(3)]
    mean = [-low[channels.index(colour)].item() * std[colour] for colour in range(3)]
    full = tuple(inside.shape)
    form = InputFormat(
        "stretch" if (height, width) == full else "letterbox",
        height=full[0],
        width=full[1],
        mean=tuple(mean),
        std=tuple(std),
    )
    padding = black[:, -1, -1].tolist() if form.fit == "letterbox" else [0.0] * 3
    convention = Convention(tuple(channels), tuple(padding))
    return _resampled(form, convention, given), convention


def _resampled(form: InputFormat, convention: Convention, given: Callable[[Image.Image], Tensor]) -> InputFormat:
    """The format with that resampling which comes nearest to the library's."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (HEIGHT * 3, WIDTH * 3, 3), dtype=torch.uint8, generator=generator)
    picture = Image.fromarray(noise.numpy())
    wanted = given(picture)
    scale = torch.tensor([form.std[colour] for colour in convention.channels])[:, None, None]
    best, least = form, float("inf")
    for resampling in RESAMPLINGS:
        tried = InputFormat(**{**vars(form), **resampling})
        images, sizes = tried.pad([tried.preprocess(picture)])
        if images.shape[-2:] != wanted.shape[-2:]:
            raise ValueError(f"it makes {tuple(wanted.shape[-2:])} pixels of a picture, expected {images.shape[-2:]}")
        error = float(((convention.applied(images, sizes)[0] - wanted).abs() * scale).max())
        if error < least:
            best, least = tried, error
    if least > GREY:
        raise ValueError(f"it resamples images in its own way, {255 * least:.0f} grey values off the nearest of ours")
    return best


def _plain(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (WIDTH, HEIGHT), colour)


def _primaries() -> list[tuple[int, int, int]]:
    return [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def _differs(image: Tensor, black: Tensor, channel: int) -> bool:
    return bool((image[channel, 0, 0] - black[channel, 0, 0]).abs() > 0)
