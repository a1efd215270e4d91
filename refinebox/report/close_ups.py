"""A photograph beside close-ups of those of its boxes that moved most."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from refinebox.boxes import paired_iou
from refinebox.report.pictures import AFTER, BEFORE, BLACK, WHITE, Layer, drawn

HEIGHT, GAP = 640, 8  # pixels of a photograph, and between it and its close-ups
WIDEST = 1.5  # times its height that the photograph may be wide
AROUND = 1.4  # times the longer side of a box and its old place that a close-up shows
STILL = 0.02  # 1 - IoU, below which nobody sees that a box has moved
SAME = 0.5  # IoU, from which on two boxes would give the same close-up
PAPER, INK = WHITE, BLACK
Window = tuple[int, int, int]  # left, top, side, in pixels of the image


@dataclass(frozen=True)
class Moved:
    """An image, and where its boxes were and are.

    Attributes:
        image: as it is.
        before, after: ``[N, 4]`` xyxy, pixels of the image, paired.
        captions: what to write on the close-up of each.
        candidates: ``[N]`` bool, which may be enlarged; None for all.
    """

    image: Image.Image
    before: Tensor
    after: Tensor
    captions: Sequence[str]
    candidates: Tensor | None = None

    def distances(self) -> Tensor:
        """``[N]``: 1 - IoU of each box with its old place."""
        old, new = (box_convert(boxes, "xyxy", "cxcywh") for boxes in (self.before, self.after))
        return 1 - paired_iou(old, new)

    def farthest(self, count: int) -> list[int]:
        """Indices of the boxes that moved most, the most first; of two at one place, the first."""
        chosen: list[int] = []
        distances = self.distances().nan_to_num(0)
        if self.candidates is not None:
            distances = distances * self.candidates
        for index in distances.argsort(descending=True, stable=True).tolist():
            if len(chosen) == count or distances[index] < STILL:
                break
            if not chosen or box_iou(self.after[index, None], self.after[chosen]).max() < SAME:
                chosen.append(index)
        return chosen

    def movement(self, count: int) -> float:
        """How far the ``count`` that moved most did, in all."""
        return float(self.distances()[self.farthest(count)].sum())

    def window(self, index: int) -> Window:
        """A square around a box and its old place; inside the image if both are and it has room."""
        low = self.before[index].minimum(self.after[index])[:2]
        high = self.before[index].maximum(self.after[index])[2:]
        extent = float((high - low).max())
        side = max(16, ceil(extent), min(ceil(AROUND * extent), *self.image.size))
        x, y = (
            min(max(round((start + end - side) / 2), 0), max(0, length - side))
            for start, end, length in zip(low.tolist(), high.tolist(), self.image.size, strict=True)
        )
        return x, y, side


def most_moved(images: Sequence[Moved], count: int) -> list[Moved]:
    """The ``count`` images whose close-ups show most movement, the most first."""
    return sorted(images, key=lambda moved: -moved.movement(4))[:count]


def sheet(photographs: Sequence[Moved], columns: int = 2, rows: int = 2) -> Image.Image:
    """Photographs below one another, and a line that says what dashed and solid boxes are.

    ``columns`` times ``rows`` close-ups stand beside each; movement alone decides which, and no truth.
    """
    strips = [comparison(moved, columns, rows) for moved in photographs]
    width = max(strip.width for strip in strips)
    strips.append(legend(width))
    canvas = Image.new("RGB", (width, sum(strip.height + GAP for strip in strips) - GAP), PAPER)
    y = 0
    for strip in strips:
        canvas.paste(strip, (0, y))
        y += strip.height + GAP
    return canvas


def comparison(moved: Moved, columns: int, rows: int) -> Image.Image:
    """The photograph with all its boxes beside the numbered close-ups."""
    scale = min(HEIGHT / moved.image.height, WIDEST * HEIGHT / moved.image.width)
    size = max(1, round(moved.image.width * scale)), max(1, round(moved.image.height * scale))
    whole = moved.image.resize(size, Image.Resampling.LANCZOS)
    drawn(whole, [Layer(moved.before, BEFORE, dashed=True), Layer(moved.after, AFTER)], scale)
    tile = (HEIGHT - (rows - 1) * GAP) // rows
    canvas = Image.new("RGB", (whole.width + columns * (tile + GAP), HEIGHT), PAPER)
    for place, index in enumerate(moved.farthest(columns * rows)):
        number(whole, place + 1, moved.after[index, :2].mul(scale).tolist(), tile)
        row, column = divmod(place, columns)
        enlarged = close_up(moved, index, tile)
        number(enlarged, place + 1, (0, 0), tile)
        canvas.paste(enlarged, (whole.width + GAP + column * (tile + GAP), row * (tile + GAP)))
    canvas.paste(whole, (0, (HEIGHT - whole.height) // 2))
    return canvas


def close_up(moved: Moved, index: int, tile: int) -> Image.Image:
    """One box and what is around it, enlarged to ``tile`` pixels a side."""
    x, y, side = moved.window(index)
    part = moved.image.crop((x, y, x + side, y + side)).resize((tile, tile), Image.Resampling.LANCZOS)
    corner = moved.after.new_tensor([x, y, x, y])
    before, after = (boxes[index, None] - corner for boxes in (moved.before, moved.after))
    drawn(part, [Layer(before, BEFORE, dashed=True, weight=2), Layer(after, AFTER, weight=2)], tile / side)
    label(part, moved.captions[index], (0, tile), "lb", tile)
    return part


def number(canvas: Image.Image, value: int, corner: Sequence[float], tile: int) -> None:
    """Writes what tells a close-up by, at the upper left corner of its box or of itself."""
    label(canvas, str(value), corner, "lt", tile)


def label(canvas: Image.Image, text: str, corner: Sequence[float], anchor: str, tile: int) -> None:
    """Writes black on white, for a reader of pictures that are made ``tile`` pixels small and less."""
    brush, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=max(12, tile // 12))
    x = min(max(corner[0], 0.0), canvas.width - 1.0)
    y = min(max(corner[1], 0.0), float(canvas.height))
    margin = tile // 60
    place = x + margin, y + (margin if anchor == "lt" else -margin)
    left, top, right, bottom = brush.textbbox(place, text, font=font, anchor=anchor)
    brush.rectangle((left - margin, top - margin, right + margin, bottom + margin), fill=PAPER)
    brush.text(place, text, fill=INK, font=font, anchor=anchor)


def legend(width: int) -> Image.Image:
    """What dashed and solid boxes are, in one line."""
    height = max(24, width // 36)
    strip = Image.new("RGB", (width, height), PAPER)
    brush, font = ImageDraw.Draw(strip), ImageFont.load_default(size=0.6 * height)
    x = float(GAP)
    for colour, dashed, words in ((BEFORE, True, "as detected"), (AFTER, False, "refined")):
        sample = Tensor([[x, 0.2 * height, x + 2 * height, 0.8 * height]])
        drawn(strip, [Layer(sample, colour, dashed=dashed, weight=0.75)], 1.0)
        x += 2 * height + GAP
        brush.text((x, height / 2), words, fill=INK, font=font, anchor="lm")
        x += brush.textlength(words, font=font) + 4 * GAP
    return strip
