"""Boxes before and after, drawn over their images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:  # boxes may be arrays, which are drawn without torch
    from torch import Tensor

    from refinebox.detection.output import Detections

# RGB of dashed, solid and thin boxes: told apart by anyone's eyes, and by their brightness where there is no colour
BEFORE, AFTER, TRUTH = (255, 196, 0), (0, 90, 200), (255, 255, 255)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
SMALLEST = 640  # small images are enlarged until their long side has this many pixels
Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Layer:
    """Boxes to draw over an image.

    Attributes:
        boxes: ``[N, 4]`` xyxy, pixels of the image.
        colour: RGB.
        dashed: dashes instead of a line.
        weight: of the line; 1 is :func:`line_width` of the picture.
        captions: one for each box, or none at all.
    """

    boxes: "Tensor | NDArray[np.float64]"
    colour: Colour
    dashed: bool = False
    weight: float = 1.0
    captions: Sequence[str] = ()


def picture(image: Image.Image, layers: Sequence[Layer]) -> Image.Image:
    """The image, enlarged where it is small, with each layer drawn over the ones before."""
    scale = max(1.0, SMALLEST / max(image.size))
    size = round(image.width * scale), round(image.height * scale)
    return drawn(image.resize(size, Image.Resampling.BICUBIC), layers, scale)


def drawn(canvas: Image.Image, layers: Sequence[Layer], scale: float) -> Image.Image:
    """The canvas itself, with each layer drawn over the ones before, its boxes ``scale`` times as large."""
    brush = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=max(12, max(canvas.size) // 50))
    for layer in layers:
        width = max(1, round(layer.weight * line_width(canvas)))
        for box in (layer.boxes * scale).tolist():
            _outline(brush, box, layer, width)
        for box, caption in zip((layer.boxes * scale).tolist(), layer.captions, strict=False):
            _caption(brush, box, caption, layer.colour, font)
    return canvas


def line_width(canvas: Image.Image) -> int:
    """Pixels: 2 where the long side has 640, and more as the picture grows, so that it can be made smaller again."""
    return max(2, round(max(canvas.size) / 320))


def contrast(colour: Colour) -> Colour:
    """Black or white, whichever is farther from the brightness of a colour."""
    red, green, blue = colour
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 127 else WHITE


def detection_layers(
    before: "Detections | None", after: "Detections", names: Mapping[int, str], threshold: float
) -> list[Layer]:
    """Detections with a score of at least ``threshold``: old boxes dashed, the new ones solid with name and score."""
    kept = after.scores >= threshold
    solid = Layer(after.boxes[kept], AFTER, captions=named(after, names, threshold))
    return [solid] if before is None else [Layer(before.boxes[kept], BEFORE, dashed=True), solid]


def named(found: "Detections", names: Mapping[int, str], threshold: float) -> list[str]:
    """Name and score of each detection whose score is at least ``threshold``."""
    kept = found.scores >= threshold
    pairs = zip(found.labels[kept].tolist(), found.scores[kept].tolist(), strict=True)
    return [f"{names.get(label, label)} {score:.2f}" for label, score in pairs]


def _outline(brush: ImageDraw.ImageDraw, box: Sequence[float], layer: Layer, width: int) -> None:
    x0, y0, x1, y1 = box
    sides = ((x0, y0), (x1, y0)), ((x1, y0), (x1, y1)), ((x1, y1), (x0, y1)), ((x0, y1), (x0, y0))
    pieces = [piece for side in sides for piece in (_dashes(*side, 3.0 * width) if layer.dashed else [side])]
    # what lies on both sides of a line makes it stand out from any image
    for colour, wide in ((contrast(layer.colour), width + 2 * max(1, width // 3)), (layer.colour, width)):
        for piece in pieces:
            brush.line(piece, fill=colour, width=wide)


def _dashes(
    start: tuple[float, float], end: tuple[float, float], length: float
) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    total = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    step = [(b - a) / max(total, 1e-6) for a, b in zip(start, end, strict=True)]
    position = 0.0
    while position < total:
        stop = min(position + length, total)
        yield (
            (start[0] + step[0] * position, start[1] + step[1] * position),
            (start[0] + step[0] * stop, start[1] + step[1] * stop),
        )
        position += 2 * length


def _caption(brush: ImageDraw.ImageDraw, box: Sequence[float], text: str, colour: Colour, font: Font) -> None:
    left, top, right, bottom = brush.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    across, down = brush.im.size  # of the picture, in which the whole caption stays if it can
    x, y = (
        max(0.0, min(place, limit)) for place, limit in ((box[0], across - width), (box[1] - height, down - height))
    )
    brush.rectangle((x, y, x + width, y + height), fill=colour)
    brush.text((x + 2 - left, y + 2 - top), text, fill=contrast(colour), font=font)
