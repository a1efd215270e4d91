"""Boxes before and after, drawn over their images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from refinebox.detection.output import Detections

BEFORE, AFTER, TRUTH = (255, 140, 0), (0, 200, 80), (255, 255, 255)  # RGB of dashed, solid and thin boxes


SMALLEST = 640  # small images are enlarged until their long side has this many pixels
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Layer:
    """Boxes to draw over an image.

    Attributes:
        boxes: ``[N, 4]`` xyxy, pixels of the image.
        colour: RGB.
        dashed: dashes instead of a line.
        width: of the line, in pixels of the picture.
        captions: one for each box, or none at all.
    """

    boxes: Tensor
    colour: Colour
    dashed: bool = False
    width: int = 2
    captions: Sequence[str] = ()


def picture(image: Image.Image, layers: Sequence[Layer]) -> Image.Image:
    """The image, enlarged where it is small, with each layer drawn over the ones before."""
    scale = max(1.0, SMALLEST / max(image.size))
    canvas = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    brush = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=max(12, canvas.height // 50))
    for layer in layers:
        for box in (layer.boxes * scale).tolist():
            _outline(brush, box, layer)
        for box, caption in zip((layer.boxes * scale).tolist(), layer.captions, strict=False):
            _caption(brush, box, caption, layer.colour, font)
    return canvas


def detection_layers(
    before: Detections | None, after: Detections, names: Mapping[int, str], threshold: float
) -> list[Layer]:
    """Detections with a score of at least ``threshold``: old boxes dashed, the new ones solid with name and score."""
    kept = after.scores >= threshold
    scores, labels = after.scores[kept].tolist(), after.labels[kept].tolist()
    captions = [f"{names.get(label, label)} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
    solid = Layer(after.boxes[kept], AFTER, captions=captions)
    return [solid] if before is None else [Layer(before.boxes[kept], BEFORE, dashed=True), solid]


def _outline(brush: ImageDraw.ImageDraw, box: Sequence[float], layer: Layer) -> None:
    x0, y0, x1, y1 = box
    for start, end in (((x0, y0), (x1, y0)), ((x1, y0), (x1, y1)), ((x1, y1), (x0, y1)), ((x0, y1), (x0, y0))):
        for piece in _dashes(start, end) if layer.dashed else [(start, end)]:
            brush.line(piece, fill=layer.colour, width=layer.width)


def _dashes(
    start: tuple[float, float], end: tuple[float, float], length: float = 6.0
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


def _caption(
    brush: ImageDraw.ImageDraw,
    box: Sequence[float],
    text: str,
    colour: Colour,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    left, top, right, bottom = brush.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    across, down = brush.im.size  # of the picture, in which the whole caption stays if it can
    x, y = (
        max(0.0, min(place, limit)) for place, limit in ((box[0], across - width), (box[1] - height, down - height))
    )
    brush.rectangle((x, y, x + width, y + height), fill=colour)
    brush.text((x + 2 - left, y + 2 - top), text, fill=(0, 0, 0), font=font)


def montage(pictures: Sequence[Image.Image], columns: int, tile: int = 400, gap: int = 8) -> Image.Image:
    """Pictures side by side, each fitted into a square of ``tile`` pixels."""
    rows = -(-len(pictures) // columns)
    canvas = Image.new("RGB", (columns * (tile + gap) + gap, rows * (tile + gap) + gap), (24, 24, 24))
    for index, item in enumerate(pictures):
        fitted = item.copy()
        fitted.thumbnail((tile, tile), Image.Resampling.LANCZOS)
        x, y = (gap + place * (tile + gap) for place in (index % columns, index // columns))
        canvas.paste(fitted, (x + (tile - fitted.width) // 2, y + (tile - fitted.height) // 2))
    return canvas
