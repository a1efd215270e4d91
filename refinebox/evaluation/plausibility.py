"""Whether detections and objects can belong together: told before anybody believes an AP of 3.

Where the best detections of an image lie on hardly any object, the likely mistakes are tried one by one: boxes in
another form or in pixels of a resized image, images counted otherwise. Where they lie on objects of other categories,
categories counted otherwise are tried.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from refinebox.data import frames
from refinebox.data.annotations import CocoData
from refinebox.data.frames import READINGS
from refinebox.data.image_files import parts_of, stem
from refinebox.evaluation.overlaps import FOREGROUND, Objects, Overlaps
from refinebox.evaluation.rows import Floats, Ints, Rows

IMAGES = 300  # that are looked at
FEW = 10  # detections, of which nothing is concluded
POOR = 0.3  # share of detections on an object, or of its category, below which mistakes are tried
LIKELY = 0.25  # share that a mistake must explain, and this many times more than the detections as they stand
TIMES = 2.5
SIDES = (300, 320, 384, 416, 512, 600, 608, 640, 768, 800, 896, 1024, 1280, 1333, 1536)  # that detectors resize to

Change = Callable[["Best"], "Best"]


@dataclass(frozen=True)
class Mistake:
    """What seems to be wrong.

    Attributes:
        kind: ``boxes``, ``images`` or ``categories``.
        sentence: what it looks like, how well that fits, and what to do.
        reading: of boxes, what ``--boxes`` would have to say; empty where it cannot be said.
    """

    kind: str
    sentence: str
    reading: str = ""


@dataclass(frozen=True)
class Best:
    """As many of the best detections of some images as these have objects, and those objects.

    Attributes:
        rows: ``[N, 7]`` detections.
        objects: without crowds.
        sizes: of the image of each detection and of each object, ``[N, 2]`` and ``[M, 2]`` (width, height).
    """

    rows: Rows
    objects: Objects
    sizes: tuple[Floats, Floats]

    @classmethod
    def of(cls, rows: Rows, data: CocoData) -> "Best":
        """Of images that have both, evenly spread over the data."""
        plain = [entry for entry in data.annotations if not entry["iscrowd"]]
        both = np.intersect1d(rows[:, 0].astype(np.int64), [entry["image_id"] for entry in plain])
        chosen = set(both[:: max(1, len(both) // IMAGES)].tolist())
        kept = [entry for entry in plain if entry["image_id"] in chosen]
        objects = Objects.of(replace(data, annotations=kept))
        ids, counts = np.unique(objects.image, return_counts=True)
        return cls._cut(rows, objects, dict(zip(ids.tolist(), counts.tolist(), strict=True)), data)

    @classmethod
    def _cut(cls, rows: Rows, objects: Objects, counts: Mapping[int, int], data: CocoData) -> "Best":
        order = np.lexsort((-rows[:, 5], rows[:, 0]))
        images = rows[order, 0].astype(np.int64)
        first = np.searchsorted(images, images)
        limit = np.array([counts.get(image, 0) for image in images.tolist()], dtype=np.int64)
        best = rows[order[np.arange(len(rows)) - first < limit]]
        entries = {entry["id"]: entry for entry in data.images}
        of_rows, of_objects = (
            frames.sizes_of(entries, ids.tolist()) for ids in (best[:, 0].astype(np.int64), objects.image)
        )
        return cls(best, objects, (of_rows, of_objects))

    def fit(self) -> float:
        """The share of the detections that lie on some object of their image."""
        overlaps = Overlaps.between(self.rows, self.objects)
        good = overlaps.detection[overlaps.iou >= FOREGROUND]
        return len(np.unique(good)) / max(1, len(self.rows))

    def categories(self) -> tuple[Ints, Ints]:
        """(category of the detection, category of the object) of every pair that fits."""
        overlaps = Overlaps.between(self.rows, self.objects)
        good = overlaps.iou >= FOREGROUND
        mine = self.rows[overlaps.detection[good], 6].astype(np.int64)
        return mine, self.objects.category[overlaps.object[good]]


def mistakes(rows: Rows, data: CocoData) -> list[Mistake]:
    """What seems to be wrong with ``[N, 7]`` detections of ``data``; nothing where they can be right.

    At least ten detections in images with objects are needed to say anything.
    """
    best = Best.of(rows, data)
    if len(best.rows) < FEW:
        return []
    fit = best.fit()
    if fit < POOR:
        found = best_change(_other_boxes(), best, fit) or _other_images(rows, data, best, fit)
        if found:
            return [found]
        if fit < 0.05:
            sentence = (
                f"only {fit:.0%} of the best detections lie on an object: other images, boxes in another form, or a "
                "detector of other things?"
            )
            return [Mistake("fit", sentence)]
        return []
    found = other_categories(best, data)
    return [found] if found else []


def best_change(changes: list[tuple[str, str, Change]], best: Best, fit: float) -> Mistake | None:
    """The change of boxes that explains most, if it explains enough."""
    scored = [(change(best).fit(), sentence, reading) for sentence, reading, change in changes]
    share, sentence, reading = max(scored, key=lambda item: item[0])
    if share < max(LIKELY, TIMES * fit):
        return None
    way = f"; pass --boxes {reading} to read them so" if reading else "; write boxes in pixels of the image files"
    shares = f"{share:.0%} of the best ones lie on an object so, {fit:.0%} as they stand"
    return Mistake("boxes", f"{sentence}: {shares}{way}", reading)


def _other_boxes() -> list[tuple[str, str, Change]]:
    forms = [reading for reading in READINGS if reading != "xywh"]
    changes: list[tuple[str, str, Change]] = [
        (f"the boxes of the detections look like {frames.MEANINGS[reading]}", reading, partial(read_rows, reading))
        for reading in forms
    ]
    changes += [
        (f"the objects' boxes look like {frames.MEANINGS[reading]}", reading, partial(_read_objects, reading))
        for reading in forms
    ]
    for how, scale in (("stretched to {0} × {0}", _stretched), ("with a longest side of {0}", _longest)):
        changes += [
            (f"the boxes look like pixels of images {how.format(side)}", "", partial(_scale, scale, side))
            for side in SIDES
        ]
    changes += [
        (f"the boxes look like pixels of images centred in {side} × {side}", "", partial(_centred, side))
        for side in SIDES
    ]
    return changes


def read_rows(reading: frames.Reading, best: Best) -> Best:
    """With boxes of detections that mean ``reading``."""
    rows = best.rows.copy()
    rows[:, 1:5] = frames.read(rows[:, 1:5], best.sizes[0], reading)
    return replace(best, rows=rows)


def _read_objects(reading: frames.Reading, best: Best) -> Best:
    boxes = frames.read(best.objects.boxes, best.sizes[1], reading)
    return replace(best, objects=replace(best.objects, boxes=boxes))


def _stretched(sizes: Floats, side: int) -> Floats:
    return sizes / side


def _longest(sizes: Floats, side: int) -> Floats:
    return np.repeat(sizes.max(1, keepdims=True) / side, 2, axis=1)


def _scale(scale: Callable[[Floats, int], Floats], side: int, best: Best) -> Best:
    rows = best.rows.copy()
    rows[:, 1:5] *= np.tile(scale(best.sizes[0], side), 2)
    return replace(best, rows=rows)


def _centred(side: int, best: Best) -> Best:
    rows, factor = best.rows.copy(), _longest(best.sizes[0], side)
    rows[:, 1:3] -= (side - best.sizes[0] / factor) / 2
    rows[:, 1:5] *= np.tile(factor, 2)
    return replace(best, rows=rows)


def _other_images(rows: Rows, data: CocoData, best: Best, fit: float) -> Mistake | None:
    """Images counted by their place, or by the number in their file's name."""
    ids = [entry["id"] for entry in data.images]
    stems = [stem(parts_of(str(entry["file_name"]))[-1]) for entry in data.images if "file_name" in entry]
    numbers = [int(text) for text in stems if text.isdecimal()]
    counted = {
        "places in the list of images, from 0": dict(enumerate(ids)),
        "places in the list of images, from 1": dict(enumerate(ids, start=1)),
        "numbers in the names of the files": dict(zip(numbers, ids, strict=True)) if len(numbers) == len(ids) else {},
    }
    for what, meant in counted.items():
        known = np.array([meant.get(int(image), -1) for image in rows[:, 0]], dtype=np.float64)
        if (known == rows[:, 0]).all() or (known < 0).any():
            continue
        changed = rows.copy()
        changed[:, 0] = known
        share = Best.of(changed, data).fit()
        if share >= max(LIKELY, TIMES * fit):
            return Mistake(
                "images",
                f"image ids look like {what}: {share:.0%} of the best detections lie on an object so, {fit:.0%} as "
                "they stand; write the annotations' own ids, or the file_name beside each",
            )
    return None


def other_categories(best: Best, data: CocoData) -> Mistake | None:
    """Categories that are counted otherwise: shifted by one, or by their places."""
    mine, theirs = best.categories()
    as_they_stand = float((mine == theirs).mean()) if len(mine) else 1.0
    if len(mine) < FEW or as_they_stand >= POOR or len(data.categories) < 2:
        return None
    everything, used = sorted(data.categories), sorted(data.used)
    counted = {
        "shifted by one, too low": {number: number + 1 for number in everything},
        "shifted by one, too high": {number: number - 1 for number in everything},
        "places in the list of categories, from 0": dict(enumerate(everything)),
        "places in the list of categories, from 1": dict(enumerate(everything, start=1)),
        "places in the list of the categories that have objects, from 0": dict(enumerate(used)),
        "places in the list of the categories that have objects, from 1": dict(enumerate(used, start=1)),
    }
    shares = {
        what: float(np.mean([meant.get(category, -1) == other for category, other in zip(mine, theirs, strict=True)]))
        for what, meant in counted.items()
    }
    what = max(shares, key=lambda key: shares[key])
    if shares[what] < max(0.5, TIMES * as_they_stand):
        return None
    return Mistake(
        "categories",
        f"category ids look {'like ' if what.startswith('places') else ''}{what}: {shares[what]:.0%} of the detections "
        f"on an object have its category so, {as_they_stand:.0%} as they stand; pass --categories order if they are "
        "places from 0, or --categories id to take them as they are",
    )
