"""Which detections lie on which objects of a whole data set, as flat arrays, and greedy matching on them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refinebox.data.annotations import CocoData
from refinebox.evaluation.lvis import Federated
from refinebox.evaluation.rows import Bools, Floats, Ints, Rows

FOREGROUND, BACKGROUND = 0.5, 0.1  # TIDE's thresholds of IoU (Bolya et al. 2020, section 2.2)
PAIRS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Objects:
    """The annotated objects of a data set, crowds included.

    Attributes:
        image, category: ``[M]`` COCO ids.
        boxes: ``[M, 4]`` xywh, pixels of the image file.
        crowd: ``[M]`` which are regions of many objects.
        federated: what was looked for in each image, in LVIS; None where it is everything.
    """

    image: Ints
    category: Ints
    boxes: Floats
    crowd: Bools
    federated: Federated | None = None

    @classmethod
    def of(cls, data: CocoData, *, lvis: bool = False) -> "Objects":
        """The annotations of ``data``, in its order; with ``lvis``, which must be LVIS', as they are judged there."""
        return cls(
            np.array([entry["image_id"] for entry in data.annotations], dtype=np.int64),
            np.array([entry["category_id"] for entry in data.annotations], dtype=np.int64),
            np.array([entry["bbox"] for entry in data.annotations], dtype=np.float64).reshape(-1, 4),
            np.array([bool(entry["iscrowd"]) for entry in data.annotations], dtype=np.bool_),
            Federated(data) if lvis else None,
        )


@dataclass(frozen=True)
class Pass:
    """One round of greedy matching: the least IoU of a pair, and whether its categories must be equal."""

    iou: float
    same_category: bool = True


@dataclass(frozen=True)
class Overlaps:
    """Detections, objects, and every pair of them in one image with an IoU of at least ``BACKGROUND``.

    Attributes:
        rows: ``[N, 7]`` detections.
        objects: what they should have found.
        rank: ``[N]`` place in score order over all images; ties go by image id, then as given, as in COCO.
        detection, object: ``[P]`` indices of each pair into ``rows`` and ``objects``.
        iou: ``[P]`` of each pair; with a crowd the share of the detection that lies in it, as in COCO.
        same: ``[P]`` which pairs are of one category.
    """

    rows: Rows
    objects: Objects
    rank: Ints
    detection: Ints
    object: Ints
    iou: Floats
    same: Bools

    @classmethod
    def between(cls, rows: Rows, objects: Objects) -> "Overlaps":
        """Every pair, computed a few million at a time."""
        order = np.lexsort((rows[:, 0], -rows[:, 5]))
        rank = np.empty(len(rows), dtype=np.int64)
        rank[order] = np.arange(len(rows))
        detection, object_, iou = _pairs(rows, objects)
        same = rows[detection, 6].astype(np.int64) == objects.category[object_]
        return cls(rows, objects, rank, detection, object_, iou, same)

    def match(self, passes: Sequence[Pass]) -> Ints:
        """``[N]`` the object of each detection, or -1: the detections choose in score order, best IoU first.

        Every pass is COCO's matching at one threshold among what the passes before left free. Crowds are left out.
        """
        found = np.full(len(self.rows), -1)
        free = ~self.objects.crowd
        for item in passes:
            kept = (self.iou >= item.iou) & free[self.object] & (found[self.detection] < 0)
            if item.same_category:
                kept &= self.same
            chosen = _greedy(self.rank, self.detection[kept], self.object[kept], self.iou[kept])
            found[chosen[0]] = chosen[1]
            free[chosen[1]] = False
        return found

    def excused(self, iou: float) -> Bools:
        """``[N]`` which detections count neither way where they find nothing.

        They lie in a crowd of their category by more than nothing and at least ``iou``, or, in LVIS, are of a category
        that was not looked for in their image.
        """
        inside = np.zeros(len(self.rows), dtype=np.bool_)
        inside[self.detection[self.objects.crowd[self.object] & self.same & (self.iou >= iou)]] = True
        return inside | self.unlooked_for()

    def unlooked_for(self) -> Bools:
        """``[N]`` which detections are of a category that was not looked for in their image; none but in LVIS."""
        federated = self.objects.federated
        return np.zeros(len(self.rows), dtype=np.bool_) if federated is None else federated.excused(self.rows)


def _pairs(rows: Rows, objects: Objects) -> tuple[Ints, Ints, Floats]:
    by_image = np.argsort(objects.image, kind="stable")
    first, last = (np.searchsorted(objects.image[by_image], rows[:, 0], side) for side in ("left", "right"))
    counts = last - first  # [N] objects in each detection's image
    blocks = np.cumsum(counts) // PAIRS_AT_ONCE
    found: list[tuple[Ints, Ints, Floats]] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for block in np.unique(blocks):
        mine = np.flatnonzero(blocks == block)
        detection = np.repeat(mine, counts[mine])
        within = np.arange(len(detection)) - np.repeat(np.cumsum(counts[mine]) - counts[mine], counts[mine])
        object_ = by_image[first[detection] + within]
        iou = pair_iou(rows[detection, 1:5], objects.boxes[object_], objects.crowd[object_])
        kept = iou >= BACKGROUND
        found.append((detection[kept], object_[kept], iou[kept]))
    detection, object_, iou = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return detection, object_, iou


def pair_iou(boxes: Floats, others: Floats, crowd: Bools) -> Floats:
    """``[P]`` IoU of each row of ``boxes`` with the same row of ``others``, both ``[P, 4]`` xywh in pixels.

    Where ``crowd`` is set, the shared area is divided by that of the first box alone, as in COCO's evaluation.
    """
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    area = boxes[:, 2] * boxes[:, 3]
    union = np.where(crowd, area, area + others[:, 2] * others[:, 3] - shared)
    iou: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def _greedy(rank: Ints, detection: Ints, object_: Ints, iou: Floats) -> tuple[Ints, Ints]:
    """(detections, objects) that one pass matches.

    A detection may take its best free object as soon as no better-ranked one could still want it. All such
    detections take theirs at once, which gives the same result as one after the other.
    """
    # of two objects with the same IoU the later one, as in COCO
    order = np.lexsort((-object_, -iou, rank[detection]))
    detection, object_ = detection[order], object_[order]
    chosen: list[tuple[Ints, Ints]] = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    busy = np.zeros(len(rank), dtype=np.bool_)
    taken = np.zeros(object_.max(initial=-1) + 1, dtype=np.bool_)
    suitor = np.empty(len(taken), dtype=np.int64)
    while len(detection):
        first_choice = np.append(True, detection[1:] != detection[:-1])
        suitor[object_[::-1]] = detection[::-1]  # the best-ranked one is written last
        settled = first_choice & (suitor[object_] == detection)
        chosen.append((detection[settled], object_[settled]))
        busy[detection[settled]] = True
        taken[object_[settled]] = True
        left = ~busy[detection] & ~taken[object_]
        detection, object_ = detection[left], object_[left]
    detections, objects = (np.concatenate(parts) for parts in zip(*chosen, strict=True))
    return detections, objects
