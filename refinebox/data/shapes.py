"""A generated COCO-format data set: textured shapes that hide one another on textured ground, from a seed."""

import json
import math
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Pixels = NDArray[Any]
Points = NDArray[np.float64]
Object = tuple[int, list[int], int]  # category index, box (xywh, pixels), visible area in pixels

CATEGORIES = ("ellipse", "rectangle", "triangle", "star", "ring", "cross")
CANVAS = 160, 192  # height, width; one size, so that no image is ever padded
OVERSAMPLE = 2  # masks are drawn at twice the size, which gives soft edges


def generate(folder: Path, split: str, count: int, seed: int, *, workers: int = 1) -> None:
    """Writes ``count`` images and their annotations in COCO's layout: ``folder/split/`` and ``folder/annotations/``.

    The same (split, seed) gives the same images whatever ``workers``. Boxes enclose what can be seen of an object.
    """
    (folder / split).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    write = partial(_write_image, folder, split, seed)
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            drawn = list(pool.map(write, range(count), chunksize=16))
    else:
        drawn = [write(index) for index in range(count)]
    annotations: list[dict[str, Any]] = []
    for entry, objects in drawn:
        for category, box, area in objects:
            known = {"id": len(annotations) + 1, "image_id": entry["id"], "category_id": category + 1}
            annotations.append({**known, "bbox": box, "area": area, "iscrowd": 0})
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(CATEGORIES)]
    content = {"images": [entry for entry, _ in drawn], "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"instances_{split}.json").write_bytes(json.dumps(content).encode())


def _write_image(folder: Path, split: str, seed: int, index: int) -> tuple[dict[str, Any], list[Object]]:
    # the split is part of the seed, so that no validation image is ever a training image
    pixels, objects = draw(np.random.default_rng([seed, index, *split.encode()]))
    name = f"{index:06d}.jpg"
    Image.fromarray(pixels).save(folder / split / name, quality=92)
    height, width = pixels.shape[:2]
    return {"id": index + 1, "file_name": name, "height": height, "width": width}, objects


def draw(random: np.random.Generator) -> tuple[NDArray[np.uint8], list[Object]]:
    """One image ``[H, W, 3]`` and its objects."""
    height, width = CANVAS
    pixels = texture(random, height, width)
    owner = np.full((height, width), -1)  # index of the shape that is seen at each pixel
    drawn = []
    for index in range(random.integers(2, 9)):
        category = int(random.integers(len(CATEGORIES)))
        (top, left), mask = shape(random, CATEGORIES[category], height, width)
        window = slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1])
        pixels[window] += mask[..., None] * (texture(random, *mask.shape) - pixels[window])
        owner[window][mask > 0.5] = index
        drawn.append((index, category, int((mask > 0.5).sum())))
    objects = []
    for index, category, full in drawn:
        rows, columns = np.nonzero(owner == index)
        if len(rows) < max(40, 0.4 * full):  # mostly hidden
            continue
        top, left = int(rows.min()), int(columns.min())
        box = [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]
        objects.append((category, box, len(rows)))
    pixels += 6 * random.standard_normal(pixels.shape, dtype=np.float32)  # sensor noise
    return pixels.clip(0, 255).astype(np.uint8), objects


def texture(random: np.random.Generator, height: int, width: int) -> Pixels:
    """``[H, W, 3]`` a colour with soft blotches and, half of the time, stripes."""
    cells = random.normal(random.uniform(30, 225, 3), random.uniform(5, 30), (*random.integers(3, 12, 2), 3))
    blotches = Image.fromarray(cells.clip(0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.array(blotches, dtype=np.float32)
    if random.random() < 0.5:
        angle, period = random.uniform(0, math.pi), random.uniform(4, 14)
        rows = np.arange(height, dtype=np.float32)[:, None] * math.sin(angle)
        columns = np.arange(width, dtype=np.float32) * math.cos(angle)
        wave = np.sin((rows + columns) * np.float32(2 * math.pi / period))
        pixels += wave[..., None] * random.uniform(-35, 35, 3).astype(np.float32)
    return pixels


def shape(random: np.random.Generator, name: str, height: int, width: int) -> tuple[tuple[int, int], Pixels]:
    """One shape of random place, size, proportions and rotation on a canvas of ``height`` and ``width``.

    Returns the (top, left) pixel of the window it fills and its coverage there, ``[h, w]`` between 0 and 1.
    """
    long = math.exp(random.uniform(math.log(14), math.log(150)))
    radii = np.array([long, long * random.uniform(0.5, 1)]) / 2
    centre = random.uniform(0.05, 0.95, 2) * (width, height)
    angle = random.uniform(0, 2 * math.pi)
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    outline = (OUTLINES[name] * radii) @ rotation + centre  # [N, 2] x, y in pixels
    low = np.floor(outline.min(0)).clip(0).astype(int)
    high = np.ceil(outline.max(0)).clip(max=(width, height)).astype(int)
    canvas = Image.new("L", tuple((high - low) * OVERSAMPLE))
    brush = ImageDraw.Draw(canvas)
    brush.polygon(((outline - low) * OVERSAMPLE).ravel().tolist(), fill=255)
    if name == "ring":
        hole = centre + (outline - centre) * random.uniform(0.45, 0.7)
        brush.polygon(((hole - low) * OVERSAMPLE).ravel().tolist(), fill=0)
    return (int(low[1]), int(low[0])), np.asarray(canvas.reduce(OVERSAMPLE), dtype=np.float32) / 255


def _circle() -> Points:
    angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star() -> Points:
    angles = np.arange(10) * math.pi / 5
    radii = np.array([1, 0.45] * 5)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _cross() -> Points:
    arm = 0.33
    corner = np.array([(1, -arm), (1, arm), (arm, arm)])
    quarter = np.array([(0, 1), (-1, 0)])
    return np.concatenate([corner @ np.linalg.matrix_power(quarter, turn) for turn in range(4)])


# [N, 2] outlines within the unit circle around the origin, but for the rectangle, which fills the unit square
OUTLINES: dict[str, Points] = {
    "ellipse": _circle(),
    "rectangle": np.array([(-1.0, -1), (1, -1), (1, 1), (-1, 1)]),
    "triangle": np.array([(1, 0), (-0.5, 0.87), (-0.5, -0.87)]),
    "star": _star(),
    "ring": _circle(),
    "cross": _cross(),
}
