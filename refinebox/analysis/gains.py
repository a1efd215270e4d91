"""Which objects and images got better boxes: IoU with the matched detection, before and after."""

from dataclasses import dataclass

import numpy as np

from refinebox.analysis.swaps import NEAR
from refinebox.evaluation.overlaps import Objects, Overlaps
from refinebox.evaluation.rows import Floats, Rows


@dataclass(frozen=True)
class Placement:
    """The detection of each object.

    Attributes:
        iou: ``[M]`` with the object, 0 where nothing of its category is near, NaN for crowds.
        boxes: ``[M, 4]`` xywh, pixels of the image file; NaN where there is none.
    """

    iou: Floats
    boxes: Floats


@dataclass(frozen=True)
class Gain:
    """How much better the boxes of an image became: mean difference of IoU over its objects, between -1 and 1."""

    image_id: int
    value: float


def place(rows: Rows, objects: Objects) -> Placement:
    """Objects and detections ``[N, 7]``, matched greedily in score order at IoU 0.5, then at 0.1."""
    overlaps = Overlaps.between(rows, objects)
    found = overlaps.match(NEAR)
    chosen = found[overlaps.detection] == overlaps.object
    iou, boxes = np.where(objects.crowd, np.nan, 0.0), np.full((len(objects.image), 4), np.nan)
    iou[overlaps.object[chosen]] = overlaps.iou[chosen]
    boxes[overlaps.object[chosen]] = rows[overlaps.detection[chosen], 1:5]
    return Placement(iou, boxes)


def image_gains(objects: Objects, before: Placement, after: Placement) -> list[Gain]:
    """One for each image with objects, the largest first."""
    difference = np.nan_to_num(after.iou - before.iou)
    images, place_of = np.unique(objects.image, return_inverse=True)
    counts = np.bincount(place_of, ~objects.crowd, minlength=len(images))
    means = np.bincount(place_of, difference, minlength=len(images)) / np.maximum(counts, 1)
    order = np.argsort(-means, kind="stable")
    return [Gain(int(images[index]), float(means[index])) for index in order if counts[index]]
