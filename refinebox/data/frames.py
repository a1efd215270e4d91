"""What the four numbers of a box mean: each reading tried against the images, before any number is believed."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Reading = Literal["xywh", "xyxy", "cxcywh", "xywhn", "xyxyn", "cxcywhn"]

READINGS: tuple[Reading, ...] = get_args(Reading)
MEANINGS: Mapping[Reading, str] = {
    "xywh": "a corner and sides",
    "xyxy": "corners (x1, y1, x2, y2)",
    "cxcywh": "centres and sides",
    "xywhn": "fractions of the image (a corner and sides)",
    "xyxyn": "fractions of the image (corners)",
    "cxcywhn": "fractions of the image (centres and sides)",
}
FEW = 10  # boxes, of which nothing is concluded
USUAL = 0.8  # share of the boxes of a sound file that lie inside their images, at the very least
LIKELY = 0.9  # share that another reading must fit to be named


def read(boxes: Floats, sizes: Floats, reading: Reading) -> Floats:
    """``[N, 4]`` xywh in pixels of ``boxes`` that mean ``reading``; ``sizes`` ``[N, 2]`` are (width, height)."""
    if reading.endswith("n"):
        boxes = boxes * np.tile(sizes, 2)
    first, second = boxes[:, :2], boxes[:, 2:]
    if reading.startswith("xyxy"):
        return np.concatenate([first, second - first], axis=1)
    if reading.startswith("cxcywh"):
        return np.concatenate([first - second / 2, second], axis=1)
    return boxes


def written(moves: Floats, sizes: Floats, reading: Reading) -> Floats:
    """The inverse of :func:`read`: ``[N, 4]`` numbers that mean these boxes, or how far they move, as ``reading``."""
    first, second = moves[:, :2], moves[:, 2:]
    if reading.startswith("xyxy"):
        moves = np.concatenate([first, first + second], axis=1)
    elif reading.startswith("cxcywh"):
        moves = np.concatenate([first + second / 2, second], axis=1)
    return moves / np.tile(sizes, 2) if reading.endswith("n") else moves


def upright(boxes: Floats) -> Floats:
    """``[N, 4]`` xywh boxes with sides above 0: those that were drawn from another corner are turned around."""
    low = np.minimum(boxes[:, :2], boxes[:, :2] + boxes[:, 2:])
    return np.concatenate([low, np.abs(boxes[:, 2:])], axis=1)


def inside(boxes: Floats, sizes: Floats) -> Bools:
    """``[N]`` which xywh boxes lie in their images but for a pixel and 2 %, and are no smaller than a pixel."""
    slack = 1 + 0.02 * sizes
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    within: Bools = np.logical_and.reduce((low >= -slack) & (high <= sizes + slack), axis=1)
    fits: Bools = within & (boxes[:, 2:] >= 1).any(axis=1)
    return fits


def touching(boxes: Floats, sizes: Floats) -> Bools:
    """``[N]`` which xywh boxes share anything with their images."""
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    shared: Bools = np.logical_and.reduce((low < sizes) & (high > 0), axis=1)
    return shared


def fits(boxes: Floats, sizes: Floats) -> dict[Reading, float]:
    """The share of ``boxes`` ``[N, 4]`` that lie in their images, by what they are taken for."""
    shares: dict[Reading, float] = {}
    for reading in READINGS:
        pixels = read(boxes, sizes, reading)
        sound = inside(upright(pixels) if reading == "xywh" else pixels, sizes)
        sound &= (boxes <= 1.05).all(1) if reading.endswith("n") else (pixels[:, 2:] > 0).all(1) | (reading == "xywh")
        shares[reading] = float(sound.mean()) if len(boxes) else 1.0
    return shares


def chosen(boxes: Floats, sizes: Floats, wanted: Reading | None) -> Reading:
    """What the boxes of a file are read as: ``wanted``, unless they fit better as COCO's own xywh.

    Raises:
        ValueError: nothing is wanted, few of at least ten boxes fit as they stand, and another reading fits well.
    """
    shares = fits(boxes, sizes)
    if wanted is not None:
        return wanted if shares[wanted] >= shares["xywh"] else "xywh"
    best = max(READINGS, key=lambda reading: shares[reading])
    if len(boxes) >= FEW and shares["xywh"] < USUAL and shares[best] >= LIKELY:
        raise ValueError(f"the boxes look like {likeness(shares, best)}")
    return "xywh"


def likeness(shares: Mapping[Reading, float], best: Reading) -> str:
    """What boxes look like, how well that fits, and how to say so."""
    return (
        f"{MEANINGS[best]}: {shares[best]:.0%} fit so, {shares['xywh']:.0%} as they stand; pass --boxes {best} to read "
        "them so, or --boxes xywh to take them as they are"
    )


def sizes_of(entries: Mapping[Any, Mapping[str, Any]], ids: list[Any]) -> Floats:
    """``[N, 2]`` (width, height) of the image entries with these ids; 0 where it is not known."""
    return np.array(
        [(entries[key].get("width", 0), entries[key].get("height", 0)) for key in ids], dtype=np.float64
    ).reshape(-1, 2)
