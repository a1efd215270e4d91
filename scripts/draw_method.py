"""Draws the six pictures of docs/concepts.md from a finished training of the bundled detector.

refinebox demo --output demo
refinebox train --detector dab-detr-shapes --data demo/data --output run --epochs 4 --augmentation flip --quality
python scripts/draw_method.py --refiner run/best.safetensors --data demo/data --output docs/pictures
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from refinebox.analysis import oracle
from refinebox.boxes import paired_iou, to_pixels
from refinebox.data import annotations, layout
from refinebox.data.annotations import CocoData
from refinebox.detection.zoo import load_detector
from refinebox.evaluation.detect import evaluate, evaluation_batches
from refinebox.evaluation.evaluator import points
from refinebox.evaluation.link import Link
from refinebox.refinement.jitter import jittered, noise
from refinebox.refinement.matching import match
from refinebox.refinement.pooling import ROI_SIDE, enlarged, levels
from refinebox.refinement.refined_detector import RefinedDetector, looked
from refinebox.refinement.refiner_file import load_refiner
from refinebox.report.pictures import AFTER, BEFORE, TRUTH, Layer, drawn
from refinebox.report.predictions import save_picture

DETECTOR = "dab-detr-shapes"
TILE, GAP, LINE = 380, 12, 34  # pixels of a picture's side, between pictures, and of a line of text
CPU = torch.device("cpu")
PAPER, INK = (255, 255, 255), (20, 20, 20)


@dataclass(frozen=True)
class Seen:
    """One image as the detector saw it.

    Attributes:
        image: as it is.
        features: ``[1, C_l, H_l, W_l]`` each.
        boxes, wanted: ``[M, 4]`` cxcywh, fractions; the matched predictions and their objects.
        steps: ``[M, 4]`` each, the boxes before and after every step.
        size: ``[1, 2]`` (height, width).
    """

    image: Image.Image
    features: tuple[Tensor, ...]
    boxes: Tensor
    wanted: Tensor
    steps: list[Tensor]
    size: Tensor

    def pixels(self, boxes: Tensor) -> Tensor:
        """``[M, 4]`` xyxy in pixels of the image."""
        height_width = torch.tensor([self.image.height, self.image.width])
        return to_pixels(boxes, height_width)

    def gain(self) -> float:
        """How much better the box of this image became that became better most."""
        return float((paired_iou(self.steps[-1], self.wanted) - paired_iou(self.boxes, self.wanted)).max())


def main(
    refiner: Annotated[Path, typer.Option(help="best.safetensors of a run with --quality.")],
    data: Annotated[Path, typer.Option(help="The demo's data.")],
    output: Path = Path("docs/pictures"),
) -> None:
    """Draws the six pictures of docs/concepts.md."""
    model = RefinedDetector(load_detector(DETECTOR), load_refiner(refiner))
    validation = annotations.read(*layout.find(data, "val"))
    link = Link.between(model, validation)
    seen = max(look(model, validation, link), key=Seen.gain)
    pictures = {
        "1_frozen": frozen(seen),
        "2_read": read(seen, model),
        "3_steps": steps(seen),
        "4_losses": lessons(seen),
        "5_quality": quality(model, validation, link),
        "6_oracle": ceiling(model, validation, link),
    }
    for name, picture in pictures.items():
        save_picture(picture, output / f"{name}.png")
        print(f"wrote {output / name}.png, {picture.width} x {picture.height} pixels")


@torch.no_grad()
def look(model: RefinedDetector, data: CocoData, link: Link) -> list[Seen]:
    """What the detector and the refiner see in every image, with predictions matched as in training."""
    found = []
    for index, batch in enumerate(evaluation_batches(model, data, link, batch_size=1, workers=0, description="look")):
        batch = batch.to(CPU)  # from 8 bits to what the detector sees
        output = model.detector(batch.images, batch.sizes)
        pairs = match(model.scores(output.logits), output.boxes, batch.targets, model.profile.classification)
        boxes = output.boxes[0, pairs.query]
        stages, _ = looked(model.refiner, model.refiner.reads(output), boxes[None], batch.sizes)
        image = annotations.labelled_picture(data, data.images[index])
        found.append(Seen(image, output.features, boxes, pairs.boxes, [stage[0] for stage in stages], batch.sizes))
    return found


def frozen(seen: Seen) -> Image.Image:
    """The image with the predicted boxes, and how strongly each cell of each map answers."""
    tiles = [(layered(seen, [Layer(seen.pixels(seen.boxes), BEFORE, dashed=True)]), "image, boxes of the detector")]
    for feature in seen.features:
        strength = feature[0].norm(dim=0)  # [H, W]
        grey = (255 * (strength - strength.min()) / (strength.max() - strength.min() + 1e-9)).byte().numpy()
        shape = layered(seen, []).size
        picture = Image.fromarray(grey).resize(shape, Image.Resampling.NEAREST).convert("RGB")
        stride = round(int(seen.size[0, 1]) / feature.shape[-1])
        tiles.append((picture, f"map of stride {stride}: {feature.shape[-1]} x {feature.shape[-2]} cells"))
    return row(tiles)


def read(seen: Seen, model: RefinedDetector) -> Image.Image:
    """One box, what is read around it, and the cells."""
    index = clearest(seen)
    box = seen.pixels(seen.boxes)[index, None]
    area = enlarged(box, model.refiner.architecture.enlargement)
    inside, place = close(seen, index, [Layer(area, TRUTH, weight=1.5), Layer(box, BEFORE, dashed=True, weight=2)])
    brush = ImageDraw.Draw(inside)
    x0, y0, x1, y1 = ((area[0] - area.new_tensor([*place[:2], *place[:2]])) * TILE / place[2]).tolist()
    for cell in range(1, ROI_SIDE):
        x, y = (low + (high - low) * cell / ROI_SIDE for low, high in ((x0, x1), (y0, y1)))
        brush.line(((x, y0), (x, y1)), fill=TRUTH)
        brush.line(((x0, y), (x1, y)), fill=TRUTH)
    whole = layered(seen, [Layer(area, TRUTH), Layer(box, BEFORE, dashed=True)])
    stride = model.refiner.levels[int(levels(box, model.refiner.levels)[0])]
    return row(
        [
            (whole, f"a box, and {model.refiner.architecture.enlargement:g} times its sides"),
            (inside, f"{ROI_SIDE} x {ROI_SIDE} cells, from the level of stride {stride}"),
        ]
    )


def steps(seen: Seen) -> Image.Image:
    """The box that gained most, before and after every step, with the object thin."""
    index = clearest(seen)
    wanted, tiles = seen.pixels(seen.wanted)[index, None], []
    for number, boxes in enumerate(seen.steps):
        overlap = float(paired_iou(boxes[index], seen.wanted[index]))
        box = seen.pixels(boxes)[index, None]
        own = Layer(box, AFTER if number else BEFORE, dashed=not number, weight=2)
        picture, _ = close(seen, index, [Layer(wanted, TRUTH), own])
        tiles.append((picture, f"{f'after step {number}' if number else 'before'}: IoU {overlap:.2f}"))
    return row(tiles)


def lessons(seen: Seen) -> Image.Image:
    """Objects and their matched boxes, and the moved copies of objects."""
    wanted = seen.pixels(seen.wanted)
    matched = layered(seen, [Layer(wanted, TRUTH), Layer(seen.pixels(seen.boxes), BEFORE, dashed=True)])
    copies = seen.pixels(jittered(seen.wanted, noise([0], [len(seen.wanted)], 2, "picture")).flatten(0, 1))
    moved = layered(seen, [Layer(wanted, TRUTH), Layer(copies, AFTER)])
    return row([(matched, "objects, and the box matched with each"), (moved, "objects, and two moved copies of each")])


@torch.no_grad()
def quality(model: RefinedDetector, data: CocoData, link: Link) -> Image.Image:
    """The score of every matched box against its IoU, as the detector gave it and as the head changed it."""
    points_of: dict[str, list[tuple[float, float]]] = {"detector's score": [], "with the quality head": []}
    for batch in evaluation_batches(model, data, link, batch_size=1, workers=0, description="quality"):
        batch = batch.to(CPU)
        before, after = model.before_and_after(batch.images, batch.sizes)
        pairs = match(model.scores(before.logits), before.boxes, batch.targets, model.profile.classification)
        overlap = paired_iou(after.boxes[0, pairs.query], pairs.boxes).tolist()
        for name, output in zip(points_of, (before, after), strict=True):
            scores = model.scores_of(output)[0, pairs.query, pairs.columns].tolist()
            points_of[name] += list(zip(overlap, scores, strict=True))
    tiles = []
    for name, pairs_of in points_of.items():
        correlation = torch.corrcoef(torch.tensor(pairs_of).T)[0, 1]
        tiles.append((scatter(pairs_of), f"{name}: correlation {correlation:.2f}"))
    return row(tiles)


def ceiling(model: RefinedDetector, data: CocoData, link: Link) -> Image.Image:
    """AP after the swaps, and after refinement."""
    perfect = oracle.analyse(model.detector, data, link)
    refined = evaluate(model, data, link)
    bars = {
        "as is": perfect["none"],
        "refined": refined["after"],
        "perfect class": perfect["class"],
        "perfect box": perfect["box"],
        "both": perfect["both"],
    }
    width, font = 2 * TILE + GAP, ImageFont.load_default(size=22)
    canvas = Image.new("RGB", (width, (LINE + GAP) * len(bars) + GAP), PAPER)
    brush = ImageDraw.Draw(canvas)
    for index, (name, metrics) in enumerate(bars.items()):
        y, ap = GAP + index * (LINE + GAP), points(metrics)
        brush.text((150, y + LINE / 2), name, fill=INK, font=font, anchor="rm")
        end = 160 + (width - 240) * ap / 100
        brush.rectangle((160, y, end, y + LINE), fill=AFTER if name == "refined" else BEFORE, outline=INK)
        brush.text((end + 8, y + LINE / 2), f"{ap:.1f}", fill=INK, font=font, anchor="lm")
    return canvas


def clearest(seen: Seen) -> int:
    """The box that became better most."""
    return int((paired_iou(seen.steps[-1], seen.wanted) - paired_iou(seen.boxes, seen.wanted)).argmax())


def layered(seen: Seen, layers: Sequence[Layer]) -> Image.Image:
    """The whole image."""
    scale = TILE / seen.image.width
    size = TILE, round(seen.image.height * scale)
    return drawn(seen.image.resize(size, Image.Resampling.BICUBIC), layers, scale)


def close(seen: Seen, index: int, layers: Sequence[Layer]) -> tuple[Image.Image, tuple[int, int, int]]:
    """A square around a box and its object, enlarged; and (left, top, side) of it in pixels of the image."""
    both = torch.stack([seen.pixels(boxes)[index] for boxes in (seen.boxes, seen.wanted)])
    low, high = both.amin(0)[:2], both.amax(0)[2:]
    side = int(1.7 * float((high - low).max()))
    x, y = ((low + high - side) / 2).int().tolist()
    part = seen.image.crop((x, y, x + side, y + side)).resize((TILE, TILE), Image.Resampling.BICUBIC)
    corner = both.new_tensor([x, y, x, y])
    moved = [replace(layer, boxes=layer.boxes - corner) for layer in layers]
    return drawn(part, moved, TILE / side), (x, y, side)


def scatter(places: Sequence[tuple[float, float]]) -> Image.Image:
    """Points between 0 and 1, IoU to the right and score upwards."""
    canvas = Image.new("RGB", (TILE, TILE), PAPER)
    brush, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=18)
    margin = 30
    span = TILE - 2 * margin
    brush.rectangle((margin, margin, TILE - margin, TILE - margin), outline=INK)
    brush.text((TILE / 2, TILE - 4), "IoU with the object", fill=INK, font=font, anchor="mb")
    brush.text((TILE / 2, 4), "score", fill=INK, font=font, anchor="mt")
    for x, y in places:
        left, top = margin + span * x, TILE - margin - span * y
        brush.ellipse((left - 3, top - 3, left + 3, top + 3), outline=AFTER)
    return canvas


def row(tiles: Sequence[tuple[Image.Image, str]]) -> Image.Image:
    """Pictures side by side with a line below each; four in two rows, five in rows of three."""
    columns = 2 if len(tiles) in (2, 4) else 3
    height = max(tile.height for tile, _ in tiles) + LINE
    canvas = Image.new("RGB", (columns * (TILE + GAP) - GAP, -(-len(tiles) // columns) * height), PAPER)
    brush, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=19)
    for place, (tile, text) in enumerate(tiles):
        x, y = place % columns * (TILE + GAP), place // columns * height
        canvas.paste(tile, (x, y))
        brush.text((x, y + height - LINE + 4), text, fill=INK, font=font)
    return canvas


if __name__ == "__main__":
    typer.run(main)
