"""A results file of any detector, read and checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refinebox.data import frames, results_file
from refinebox.data.annotations import LIMIT, CocoData
from refinebox.data.frames import Reading
from refinebox.data.references import Counting
from refinebox.data.tally import Tally
from refinebox.evaluation.garbage import collection_paused
from refinebox.evaluation.plausibility import FEW, Best, Mistake, mistakes, read_rows
from refinebox.evaluation.rows import Bools, Floats, Rows, check_rows, top


@collection_paused()
def read_results(
    path: Path,
    data: CocoData,
    *,
    categories: Counting = "check",
    boxes: Reading | None = None,
    tally: Tally | None = None,
) -> Rows:
    """``[N, 7]`` rows of image id, x, y, width, height (pixels), score and category id, in the file's order.

    Ids are the data's numbers; detections that are there twice are left out.

    Args:
        path: the file, in COCO's results format; ``file_name`` beside ``image_id`` says which image it is.
        data: the objects.
        categories: how categories are counted; see :func:`refinebox.data.references.categories`.
        boxes: what boxes are that do not fit as COCO's xywh; by default they are an error.
        tally: counts what was left out, guessed or found odd.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not in COCO's results format, a number in it is not finite, it names an image or
            category that ``data`` does not have, or its boxes or ids look like something else; the message says where.
    """
    tally = Tally() if tally is None else tally
    entries = results_file.read_entries(path)
    try:
        rows = results_file.rows(entries, data, categories, tally)
        rows = _framed(rows, data, boxes, tally)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    rows = _once(rows, tally)
    check_rows(data, rows)
    _count(rows, data, tally)
    for mistake in mistakes(rows, data):
        if not _wanted(mistake, categories, boxes):
            raise ValueError(f"{path}: {mistake.sentence}")
        tally.say(mistake.sentence)
    return rows


def _framed(rows: Rows, data: CocoData, wanted: Reading | None, tally: Tally) -> Rows:
    entries: Mapping[int, Any] = {entry["id"]: entry for entry in data.images}
    sizes = frames.sizes_of(entries, rows[:, 0].astype(np.int64).tolist())
    known: Bools = np.logical_and.reduce(sizes > 0, axis=1)
    reading = _reading(rows, data, sizes, known, wanted)
    if reading != "xywh":
        tally.add(f"boxes of detections read as {frames.MEANINGS[reading]}", "", len(rows))
        rows = rows.copy()
        rows[:, 1:5] = frames.read(rows[:, 1:5], sizes, reading)
    negative = (rows[:, 3:5] < 0).any(1)
    if negative.any():
        first = f"detection {np.flatnonzero(negative)[0]}"
        tally.add("detections with negative sides turned around", first, int(negative.sum()))
        rows = rows.copy()
        rows[negative, 1:5] = frames.upright(rows[negative, 1:5])
    beyond = known & ~frames.inside(rows[:, 1:5], sizes)
    if beyond.any():
        first = f"detection {np.flatnonzero(beyond)[0]}"
        tally.add("detections reach beyond their image, or are smaller than a pixel", first, int(beyond.sum()))
    return rows


def _reading(rows: Rows, data: CocoData, sizes: Floats, known: Bools, wanted: Reading | None) -> Reading:
    """What boxes are, told from the objects they lie on; from the images alone where there are too few."""
    best = Best.of(rows, data)
    if len(best.rows) < FEW:
        return frames.chosen(rows[known, 1:5], sizes[known], wanted)
    if wanted is None:  # which is checked at the end
        return "xywh"
    return wanted if read_rows(wanted, best).fit() >= best.fit() else "xywh"


def _once(rows: Rows, tally: Tally) -> Rows:
    order = np.lexsort(rows.T)  # which keeps equal ones in their order
    repeated = np.sort(order[1:][(np.diff(rows[order], axis=0) == 0).all(axis=1)])
    if len(repeated):
        images = len(np.unique(rows[repeated, 0]))
        tally.add("repeated detections left out", f"detection {repeated[0]}, in {images} images", len(repeated))
    return np.delete(rows, repeated, axis=0)


def _count(rows: Rows, data: CocoData, tally: Tally) -> None:
    """Notes what is sound but may surprise."""
    found = set(rows[:, 0].astype(np.int64).tolist())
    without = [entry["file_name"] for entry in data.images if entry["id"] not in found]
    tally.add("images without detections", without[0] if without else "", len(without))
    beyond = len(rows) - int(top(rows, LIMIT, each_category=True).sum())
    tally.add(f"detections beyond the best {LIMIT} of a category in an image, which COCO does not count", "", beyond)
    if len(rows) and data.annotations and len(np.unique(rows[:, 6])) == 1 < len(data.used):
        tally.say(f"all detections are of one category, though objects are of {len(data.used)}")
    if len(rows) > 1 and len(np.unique(rows[:, 5])) == 1:
        tally.say("all detections have the same score, so that none is better than another; AP means little then")


def _wanted(mistake: Mistake, categories: Counting, boxes: Reading | None) -> bool:
    """Whether somebody said that it is none."""
    return (
        mistake.kind == "fit"
        or (mistake.kind == "boxes" and boxes is not None)
        or (mistake.kind == "categories" and categories != "check")
    )
