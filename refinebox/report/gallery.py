"""The images whose boxes gain and lose most, drawn and ready to be put into a page."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from refinebox.analysis.gains import Gain, Placement
from refinebox.data.annotations import CocoData, labelled_picture
from refinebox.evaluation.overlaps import Objects
from refinebox.evaluation.rows import Bools, Floats, Ints
from refinebox.report.pictures import AFTER, BEFORE, TRUTH, Layer, picture

SIDE, QUALITY = 560, 70  # long side in pixels and JPEG quality: 40 pictures stay below 5 MB
CAPTIONS = 3  # objects whose names are written, those that changed most


@dataclass(frozen=True)
class Drawn:
    """A picture, as the address of an ``<img>``, of an image and its gain; ``source`` is None without the file.

    ``seen`` says in words what the picture shows.
    """

    gain: Gain
    name: str
    source: str | None
    seen: str = ""


def draw(data: CocoData, objects: Objects, before: Placement, after: Placement, gains: Sequence[Gain]) -> list[Drawn]:
    """One picture for each of ``gains``: objects thin, their detections before dashed and after solid."""
    entries = {entry["id"]: entry for entry in data.images}
    drawn = []
    for gain in gains:
        try:
            image = labelled_picture(data, entries[gain.image_id])
        except (OSError, ValueError):
            drawn.append(Drawn(gain, entries[gain.image_id]["file_name"], None))
            continue
        here = np.flatnonzero((objects.image == gain.image_id) & ~objects.crowd)
        drawings = layers(data, objects, before, after, here)
        canvas = picture(image, drawings)
        canvas.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        name = entries[gain.image_id]["file_name"]
        drawn.append(Drawn(gain, name, as_address(canvas), seen(name, gain, drawings)))
    return drawn


def seen(name: str, gain: Gain, drawings: Sequence[Layer]) -> str:
    """What a picture shows, for those who do not see it."""
    there, moved, after = drawings
    changed = f"; IoU of {', '.join(after.captions)}" if after.captions else ""
    return (
        f"{name} with {len(there.boxes)} objects and {len(after.boxes)} detections of them, of which "
        f"{len(moved.boxes)} moved; the mean IoU changes by {gain.value:+.2f}{changed}"
    )


def layers(data: CocoData, objects: Objects, before: Placement, after: Placement, here: Ints) -> list[Layer]:
    """What is drawn over an image for the objects ``here``, which are indices."""
    change = np.nan_to_num(after.iou - before.iou)[here]
    moved = (before.boxes[here] != after.boxes[here]).any(1)
    order = here[np.argsort(-np.abs(change), kind="stable")]  # captions are written for the first boxes
    order = order[_known(after.boxes[order])]
    named = order[: min(CAPTIONS, int((change != 0).sum()))]
    captions = [
        f"{data.categories[int(objects.category[index])]} {before.iou[index]:.2f} to {after.iou[index]:.2f}"
        for index in named
    ]
    return [
        Layer(_xyxy(objects.boxes[here]), TRUTH, weight=0.5),
        Layer(_xyxy(before.boxes[here][_known(before.boxes[here]) & moved]), BEFORE, dashed=True),
        Layer(_xyxy(after.boxes[order]), AFTER, captions=captions),
    ]


def as_address(image: Image.Image) -> str:
    """The picture itself as a ``data:`` address."""
    with BytesIO() as buffer:
        image.save(buffer, "JPEG", quality=QUALITY)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _known(boxes: Floats) -> Bools:
    known: Bools = np.isfinite(boxes.sum(axis=1))  # one that is NaN makes the sum NaN
    return known


def _xyxy(boxes: Floats) -> Floats:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
