"""The annotations of a COCO file, read field by field: what cannot be an object is left out and counted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refinebox.data import frames
from refinebox.data.fields import Box, box, brief, enclosing, flag, number, whole
from refinebox.data.frames import Reading
from refinebox.data.ids import LARGEST, Ids
from refinebox.data.tally import Tally

NEEDED = ("image_id", "category_id", "bbox")
Entry = dict[str, Any]


def locate(entries: Sequence[Any], ids: tuple[Ids, Ids], tally: Tally) -> list[Entry]:
    """The annotations that have an image, a category and a box, which are numbers now, each once.

    Args:
        entries: the file's annotations.
        ids: of images and categories.
        tally: counts what was left out.

    Raises:
        ValueError: there are annotations, and none can be used.
    """
    located = [found for index, entry in enumerate(entries) if (found := _located(entry, index, ids, tally))]
    if entries and not located:
        raise ValueError(f"none of {len(entries)} annotations can be used: {nothing(entries, ids, tally)}")
    return _once(located, tally)


def complete(
    located: list[Entry], images: Mapping[int, Mapping[str, Any]], tally: Tally, reading: Reading | None = None
) -> list[Entry]:
    """The objects: each with an id above 0, an xywh box in pixels that has an area, ``area`` and ``iscrowd``.

    Args:
        located: what :func:`locate` gave.
        images: the image entries by number, with width and height.
        tally: counts what was left out, filled in or guessed.
        reading: what boxes are that do not fit as xywh; by default that is an error.

    Raises:
        ValueError: the boxes are in another form, or outside of their images.
    """
    framed = _framed(located, images, tally, reading)
    numbers = [whole(entry.get("id")) for entry in framed]
    usable = all(value is not None and 0 < value <= LARGEST for value in numbers)
    renumbered = not usable or len(set(numbers)) < len(numbers)
    kept = []
    for index, entry in enumerate(framed):
        if min(entry["bbox"][2:]) <= 0:
            tally.add("boxes without area dropped", _named(entry))
            continue
        kept.append(_completed(entry, index + 1 if renumbered else numbers[index], tally))
    tally.add("annotation ids renumbered", "", len(kept) if renumbered else 0)
    return kept


def nothing(entries: Sequence[Any], ids: tuple[Ids, Ids], tally: Tally) -> str:
    """Why no annotation can be used, from the first."""
    for column, what, message in (
        (0, "image_id", "annotations without images, image ids {} ({} in all) are not listed"),
        (1, "category_id", "annotations of unknown categories {}"),
    ):
        values = [entry[what] for entry in entries if isinstance(entry, dict) and what in entry]
        unknown = sorted({str(value) for value in values if ids[column].number(value) is None})
        if unknown:
            listed = ", ".join(map(brief, list(ids[1].originals.values())[:20])) or "none"
            known = f"; listed are {listed}" if column else ""
            return message.format(", ".join(map(brief, unknown[:5])), len(unknown)) + known
    return next(iter(tally.examples.values()), "all were left out")


def _located(entry: Any, index: int, ids: tuple[Ids, Ids], tally: Tally) -> Entry | None:
    """The annotation with numbers for its image and category and four numbers for its box; None if it lacks them."""
    if not isinstance(entry, dict):
        tally.add("annotations that are no objects left out", f"annotations[{index}] has no 'image_id'")
        return None
    for field in NEEDED[:2]:
        if field not in entry:
            tally.add(f"annotations without {field} left out", f"annotations[{index}] has no {field!r}")
            return None
    image, category = ids[0].number(entry["image_id"]), ids[1].number(entry["category_id"])
    if image is None:
        tally.add("annotations of images that are not listed left out", f"image id {entry['image_id']}")
        return None
    if category is None:
        tally.add("annotations of categories that are not listed left out", f"category id {entry['category_id']}")
        return None
    found = box(entry.get("bbox"))
    if found is None:
        found = enclosing(entry.get("segmentation"))
        what = "boxes taken from segmentations" if found else "annotations without a box left out"
        had = f"the box {entry['bbox']!r}" if entry.get("bbox") else "no 'bbox'"
        tally.add(what, f"annotations[{index}] has {had}")
    if found is None:
        return None
    return {**entry, "image_id": image, "category_id": category, "bbox": found}


def _once(entries: list[Entry], tally: Tally) -> list[Entry]:
    """Without entries that repeat another, id and all; two of the same place and category only count."""
    seen: set[tuple[Any, ...]] = set()
    places: set[tuple[Any, ...]] = set()
    kept = []
    for entry in entries:
        place = entry["image_id"], entry["category_id"], *entry["bbox"]
        key = str(entry.get("id")), *place
        if "id" in entry and key in seen:
            tally.add("annotations that are there twice left out", _named(entry))
            continue
        if place in places:
            tally.add("objects annotated twice (same image, category and box)", _named(entry))
        seen.add(key)
        places.add(place)
        kept.append(entry)
    return kept


def _framed(
    entries: list[Entry], images: Mapping[int, Mapping[str, Any]], tally: Tally, wanted: Reading | None
) -> list[Entry]:
    """With boxes as xywh in pixels, sides not below 0."""
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    sizes = frames.sizes_of(images, [entry["image_id"] for entry in entries])
    known = (sizes > 0).all(1) & (boxes[:, 2:] != 0).all(1)
    reading = frames.chosen(boxes[known], sizes[known], wanted)
    if reading != "xywh":
        tally.add(f"boxes read as {frames.MEANINGS[reading]}", "", len(entries))
        boxes = frames.read(boxes, sizes, reading)
        entries = [{**entry, "bbox": found} for entry, found in zip(entries, boxes.tolist(), strict=True)]
    _count_outside(entries, frames.upright(boxes), sizes, known, tally, wanted)
    return [_turned(entry, tally) for entry in entries]


def _count_outside(
    entries: list[Entry], boxes: "frames.Floats", sizes: "frames.Floats", known: Any, tally: Tally, wanted: Any
) -> None:
    beyond = known & ~frames.inside(boxes, sizes)
    outside = known & ~frames.touching(boxes, sizes)
    if wanted is None and known.sum() >= frames.FEW and outside.sum() > 0.95 * known.sum():
        first = int(np.flatnonzero(outside)[0])
        raise ValueError(
            f"{outside.sum()} of {known.sum()} boxes lie outside of their images, such as "
            f"{_named(entries[first])} {entries[first]['bbox']} in {sizes[first][0]:.0f} × {sizes[first][1]:.0f} "
            "pixels; are they of other images, or of another size?"
        )
    for what, which in (
        ("boxes outside of their image", outside),
        ("boxes reach beyond their image, or are smaller than a pixel", beyond & ~outside),
    ):
        if which.any():
            tally.add(what, _named(entries[int(np.flatnonzero(which)[0])]), int(which.sum()))


def _turned(entry: Entry, tally: Tally) -> Entry:
    x, y, width, height = entry["bbox"]
    if width >= 0 and height >= 0:
        return entry
    tally.add("boxes with negative sides turned around", _named(entry))
    turned: Box = [min(x, x + width), min(y, y + height), abs(width), abs(height)]
    return {**entry, "bbox": turned}


def _completed(entry: Entry, annotation_id: int | None, tally: Tally) -> Entry:
    width, height = entry["bbox"][2:]
    crowd, area = flag(entry.get("iscrowd")), number(entry.get("area"))
    if crowd is None:
        tally.add("iscrowd flags that are neither 0 nor 1 taken for 0", repr(entry["iscrowd"]))
    tally.add("iscrowd flags filled in", "", int(entry.get("iscrowd") is None))
    tally.add("crowd regions (not trained on)", "", int(bool(crowd)))
    if entry.get("area") is None:
        tally.add("areas filled in")
    elif area is None or not plausible(area, width, height):
        tally.add("areas that cannot be the object's filled in", f"{entry['area']!r} of {_named(entry)}")
        area = None
    return {
        **entry,
        "id": annotation_id,
        "iscrowd": int(bool(crowd)),
        "area": width * height if area is None else area,
    }


def plausible(area: float, width: float, height: float) -> bool:
    """Whether an object in a box of these sides can have this area; masks of thin ones may pass it by a pixel."""
    return min(1, width * height / 2) <= area <= (width + 2) * (height + 2)


def _named(entry: Entry) -> str:
    return f"id {entry['id']}" if "id" in entry else f"one of image {entry['image_id']}"
